"""Trains one run again and notes its state at some steps: a script for a process of its own.

It is started with the code that once made the run first on Python's path, so it imports nothing
but doors of the trainer that stay. Argument: the folder of the reproduction, with its order.json.
"""

import json
import os
import signal
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from trainer.config.compose import from_json
from trainer.determinism import digest
from trainer.run import train

STOPPED = 10  # exit code, as of a launch that is not done
_PAUSE_SECONDS = 30.0  # between two lines of an epoch


@dataclass
class ProgressLines:
    """Which progress is worth a line.

    Attributes:
        epoch: of the newest line.
        last: seconds by a clock, when that was.
    """

    epoch: int = -1
    last: float = 0.0

    def next_line(self, progress: Mapping[str, Any], now: float) -> str:
        """A line on the progress; empty shortly after another one of the same epoch."""
        epoch = progress.get("epoch", 0)
        if epoch == self.epoch and now - self.last < _PAUSE_SECONDS:
            return ""
        self.epoch, self.last = epoch, now
        text = f"epoch {epoch} of {progress['epochs']}, step {progress['step']}"
        miou, left = progress.get("miou_percent"), progress.get("seconds_left")
        if miou is not None:
            text += f", mIoU {miou:.2f}"
        return text if left is None else f"{text}, {timedelta(seconds=round(left))} left"


def main(folder: Path) -> int:
    """Train to the end and write summary.json; returns the exit code."""
    order = json.loads((folder / "order.json").read_text())
    steps, is_first = set(order["steps"]), os.environ.get("RANK", "0") == "0"
    signals: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda received, _: signals.append(received))
    lines = ProgressLines()

    def on_step(report: Any) -> None:
        """Append the digest of the state after a step that the first run has kept as well."""
        state = report.state
        if is_first and state.step in steps:
            line = json.dumps({"step": state.step, "digest": digest(state.tensors())})
            with (folder / "states.jsonl").open("a") as file:
                file.write(line + "\n")

    def on_progress(progress: dict[str, Any]) -> None:
        """Print a line per epoch, and in a long one from time to time."""
        if line := lines.next_line(progress, time.monotonic()):
            sys.stderr.write(f"  {line}\n")

    summary = train(
        from_json(order["config_json"]),
        folder / "run",
        should_stop=lambda: bool(signals),
        on_step=on_step,
        on_progress=on_progress,
    )
    if summary.status == "stopped":
        return STOPPED
    if is_first:
        (folder / "summary.json").write_text(json.dumps(asdict(summary)))
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
