"""Trains one run again and notes its state at some steps: a script for a process of its own.

It is started with the code that once made the run first on Python's path, so it imports nothing
but doors of the trainer that stay. Argument: the folder of the reproduction, with its order.json.
"""

import json
import os
import signal
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from trainer.config.compose import from_json
from trainer.determinism import digest
from trainer.run import train

STOPPED = 10  # exit code, as of a launch that is not done


def main(folder: Path) -> int:
    """Train to the end and write summary.json; returns the exit code."""
    order = json.loads((folder / "order.json").read_text())
    steps, is_first = set(order["steps"]), os.environ.get("RANK", "0") == "0"
    signals: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda received, _: signals.append(received))
    epochs: set[int] = set()

    def on_step(report: Any) -> None:
        """Append the digest of the state after a step that the first run has kept as well."""
        state = report.state
        if is_first and state.step in steps:
            line = json.dumps({"step": state.step, "digest": digest(state.tensors())})
            with (folder / "states.jsonl").open("a") as file:
                file.write(line + "\n")

    def on_progress(progress: dict[str, Any]) -> None:
        """Print a line per epoch."""
        if progress["epoch"] not in epochs:
            epochs.add(progress["epoch"])
            place = f"epoch {progress['epoch']} of {progress['epochs']}, step {progress['step']}"
            sys.stderr.write(f"  {place}, mIoU {progress['miou_percent']}\n")

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
