"""What follows when a rank of an attempt hangs: words for whoever looks, then the end of it."""

import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path

from orchestrator import sight
from orchestrator.failures import Failure
from orchestrator.hang import Hang, HangWatch, end_this_process, interruptible
from orchestrator.places import Places, RunPlace
from orchestrator.stopping import EXIT_UNFINISHED
from orchestrator.trial import Outcome, Trial

_LEAVE_SECONDS = 30.0  # for an interrupted wait to end


@contextmanager
def guarded(
    trial: Trial, number: int, ended: Callable[[Outcome], None]
) -> Iterator[Callable[[str], None]]:
    """Watch this rank of an attempt; the block gets what it calls whenever it moves.

    A hang in a process of the trial's own ends that process. In the process of a launch
    (backend=inline) it raises `Hang`, which ends waits in system calls; where that does not help,
    the launch ends.

    Args:
        trial: the cell.
        number: of the attempt.
        ended: writes down how the attempt ended.

    Raises:
        Hang: something broke while or because the run hung.
    """
    place = Places.at(trial.root).run(trial.key)
    is_ours = threading.current_thread() is threading.main_thread()

    def tell(text: str) -> None:
        with suppress(OSError):
            ended(Outcome("failed", number, Failure.hang.value, text))

    def kill(text: str) -> None:
        tell(text)
        end_this_process()

    watch = HangWatch(60.0 * trial.hang_minutes, kill, rank_log(place, number))
    try:
        is_inline = trial.backend == "inline" and is_ours
        with _interrupted_first(watch, tell) if is_inline else nullcontext(), watch.watching():
            yield watch.beat
    except Exception as error:
        # A rank whose peer was ended for the same hang sees a lost peer.
        if watch.found and not isinstance(error, Hang):
            raise Hang(watch.found) from error
        raise


@contextmanager
def _interrupted_first(watch: HangWatch, tell: Callable[[str], None]) -> Iterator[None]:
    """The process of the launch: it shall live, and ends itself only if nothing else helps."""
    left = threading.Event()
    with interruptible() as interrupt:

        def leave(text: str) -> None:
            interrupt(text)
            if not left.wait(_LEAVE_SECONDS):
                tell(text)
                sys.stderr.write(f"{text}. It cannot be interrupted; launch again.\n")
                sys.stderr.flush()
                os._exit(EXIT_UNFINISHED)

        watch.on_hang = leave
        try:
            yield
        finally:
            left.set()


def rank_log(place: RunPlace, number: int) -> Path:
    """Messages, traceback and stacks of this process's rank."""
    log, rank = place.log(number), int(os.environ.get("RANK", "0"))
    return log if rank == 0 else log.with_name(f"{log.stem}-rank-{rank:04d}{log.suffix}")


def last_words(place: RunPlace, before: int) -> Outcome | None:
    """What the ranks of an attempt wrote about its end, the most telling first.

    Args:
        place: of the run.
        before: attempts up to this one are not meant.
    """
    number, place = sight.newest_attempt(place), sight.seen(place)
    if number <= before:
        return None
    notes = [place.outcome(number), *sorted(place.attempt(number).glob("rank-*.json"))]
    written = [Outcome.from_json(note.read_text()) for note in notes if note.exists()]
    telling = [note for note in written if note.failure != Failure.node_lost.value]
    return next(iter(telling or written), None)


def newest_attempt(trial: Trial) -> int:
    """Number of a cell's newest attempt; 0 without one."""
    return sight.newest_attempt(Places.at(trial.root).run(trial.key))


def found_dead(trial: Trial, before: int) -> Outcome:
    """How an attempt ended whose process is gone: in its own words if it left some."""
    written = last_words(Places.at(trial.root).run(trial.key), before)
    lost = Outcome.lost("the process of the trial died")
    return written if written is not None and written.status == "failed" else lost
