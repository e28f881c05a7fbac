"""The command line of one run, and of what one does with it afterwards."""

import os
import signal
import sys
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from trainer.alone import alone
from trainer.compose import GROUPS, choices, compose
from trainer.config import TrainConfig
from trainer.field_notes import settings
from trainer.summary import Summary
from trainer.verbs import VERBS, run_verb

EXIT_DONE, EXIT_USAGE, EXIT_STOPPED, EXIT_FAILED, EXIT_UNREACHABLE = 0, 2, 10, 11, 20
USAGE = """\
usage: python -m trainer [group=choice ...] [key=value ...]
       torchrun --nproc-per-node N -m trainer [...]
       python -m trainer predict checkpoint=RUN_OR_FILE images=DIR out=DIR [device=cpu|cuda]
       python -m trainer export run=RUN_OR_FILE out=FILE.safetensors
       python -m trainer weights fetch BACKBONE | import BACKBONE FILE

Trains one run and goes on from its newest checkpoint when there is one. Ctrl-C or SIGTERM saves the
step at hand; the same command continues it bit for bit. Exit codes: 0 done, 2 usage or
configuration, 10 stopped, 11 failed, 20 a server does not answer.
"""


def main(arguments: list[str]) -> int:
    """The command line; returns the exit code."""
    if {"--help", "-h"} & set(arguments):
        print(help_text())
        return EXIT_DONE
    try:
        return _carry_out(arguments)
    except ValueError as error:
        print(f"trainer: {error}", file=sys.stderr)
        return EXIT_USAGE
    except (OSError, RuntimeError) as error:
        print(f"trainer: {type(error).__name__}: {error}", file=sys.stderr)
        return EXIT_UNREACHABLE if isinstance(error, ConnectionError) else EXIT_FAILED


def _carry_out(arguments: list[str]) -> int:
    """A verb, or a run."""
    if not arguments or arguments[0] not in VERBS:
        return _train(arguments)
    run_verb(arguments[0], arguments[1:], print)
    return EXIT_DONE


def _train(arguments: list[str]) -> int:
    """The default: one run."""
    config = compose(arguments)
    from trainer.run import train  # torch, only now that the arguments make sense

    folder = Path(config.run.folder or Path("outputs") / "runs" / config.key)
    stopped, is_first = _stop_on_signal(), os.environ.get("RANK", "0") == "0"
    with alone(folder) if is_first else nullcontext():
        summary = train(config, folder, should_stop=lambda: bool(stopped), say=_Line(config.key))
    if is_first:
        print(_ending(summary, folder))
    return EXIT_DONE if summary.status == "done" else EXIT_STOPPED


def _ending(summary: Summary, folder: Path) -> str:
    """The last line of a run."""
    if summary.status == "stopped":
        return f"stopped at step {summary.steps}; the same command continues, from {folder}"
    return (
        f"done: mIoU {summary.best_miou_percent:.2f} (best, epoch {summary.best_epoch}), "
        f"{summary.last_miou_percent:.2f} (last); weights {summary.weights_sha256}; {folder}"
    )


def help_text() -> str:
    """Usage, the choices of every group, and every setting."""
    groups = "\n".join(f"  {group}: {', '.join(choices(group))}" for group in GROUPS)
    lines = [line for setting in settings(TrainConfig) for line in setting.lines()]
    told = "\n".join(lines)
    return f"{USAGE}\nGroups:\n{groups}\n\nSettings and their defaults; a recipe sets some:\n{told}"


def _stop_on_signal() -> list[int]:
    """Collect SIGINT and SIGTERM; a second one ends the process as usual."""
    seen: list[int] = []

    def remember(number: int, _: Any) -> None:
        seen.append(number)
        signal.signal(number, signal.SIG_DFL)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, remember)
    return seen


class _Line:
    """Progress on one line of a terminal, or a line every ten seconds elsewhere."""

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
            f"mIoU {'-' if miou is None else f'{miou:.2f}'}  "
            f"{progress['images_per_second']:.1f} images/s"
        )
        print(f"\r{text}\x1b[K" if live else text, end="" if live else "\n", flush=True)
        if live and progress["step"] == progress["total_steps"]:
            print()
