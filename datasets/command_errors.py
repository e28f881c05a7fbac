"""What the three command lines print when they fail: one sentence, and on request the traceback.

An error that a line of this project raised on purpose has a text for the user. Any other one is
printed with the place in our code where it happened, and its traceback is kept in a file.
"""

import os
import tempfile
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

FLAG = "--traceback"
_CODE = Path(__file__).resolve().parents[1]


def without_flag(words: Sequence[str]) -> tuple[list[str], bool]:
    """The words of a command line but `--traceback`, and whether that was among them."""
    return [word for word in words if word != FLAG], FLAG in words


def is_deliberate(error: BaseException) -> bool:
    """Whether the error's text is meant for a user: an OSError, or raised by a line of ours."""
    if isinstance(error, OSError):
        return True
    innermost = traceback.extract_tb(error.__traceback__)[-1:]
    return any(_is_ours(frame) and (frame.line or "").startswith("raise ") for frame in innermost)


def error_text(error: BaseException, text: str = "", *, shows_traceback: bool = False) -> str:
    """What a command line prints about an error, without the program's name.

    Args:
        error: as it was caught.
        text: a better sentence than the error's own.
        shows_traceback: whether the traceback follows.
    """
    text = text or _own_text(error)
    if not is_deliberate(error):
        lines = text.strip().splitlines() or ["no more is known"]
        text = f"{type(error).__name__} at {_place_of(error)}: {lines[0].rstrip('.')}."
        if not shows_traceback and not _log_of(error):
            with suppress(OSError):
                number, name = tempfile.mkstemp(prefix="ipixmatch-", suffix=".log")
                os.close(number)
                _write(error, Path(name))
    if shows_traceback:
        return "\n".join([text, *_lines(error)])
    return " ".join([text, *_log_of(error)])


def _own_text(error: BaseException) -> str:
    """The text of an error, without the number that Python puts before one of the system."""
    if isinstance(error, OSError) and error.strerror and error.filename:
        return f"{error.strerror}: {error.filename}"
    return str(error)


@contextmanager
def kept_traceback(log: Path) -> Iterator[None]:
    """Append the traceback of an error in the block to `log`, unless the error is deliberate."""
    try:
        yield
    except Exception as error:
        if not is_deliberate(error):
            with suppress(OSError):
                _write(error, log)
        raise


def _write(error: BaseException, log: Path) -> None:
    """Append the traceback, and let the error say where it is."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a") as file:
        file.write("\n".join([*_lines(error), ""]))
    error.add_note(f"The traceback is in {log}; {FLAG} prints it.")


def _log_of(error: BaseException) -> list[str]:
    """The note that `_write` left."""
    return [note for note in getattr(error, "__notes__", []) if FLAG in note]


def _lines(error: BaseException) -> list[str]:
    return "".join(traceback.format_exception(error)).splitlines()


def _place_of(error: BaseException) -> str:
    """The innermost line of this project that the error passed."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if _is_ours(frame)] or frames
    file = Path(ours[-1].filename)
    return f"{file.relative_to(_CODE) if _is_ours(ours[-1]) else file}:{ours[-1].lineno}"


def _is_ours(frame: traceback.FrameSummary) -> bool:
    """Whether the line is of this project; an environment may lie inside the checkout."""
    path = Path(frame.filename)
    return path.is_relative_to(_CODE) and "site-packages" not in path.parts
