"""What a run reports: its `Summary` at the end, and the files it writes while it trains.

`metrics.jsonl` and the TensorBoard events hold the curves, `progress.json` the current step,
`confusion.json` the pixel counts of the best and the last epoch.
"""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from datasets.files import atomic_path

Counts = tuple[tuple[int, ...], ...]  # pixels by truth, then by prediction; 255 is left out


@dataclass(frozen=True)
class Summary:
    """The numbers of a run, complete or stopped; scores are IoU in percent.

    Attributes:
        status: "done", or "stopped" at a step from which it can go on.
        steps: optimiser steps done since step 0, over all attempts.
        best_iou_percent: per class at the best epoch; None where a class neither occurs nor is
            predicted.
        best_confusion: pixels of the validation set at the best epoch, (truth, prediction).
        seconds: time in the training loop and evaluation, over all attempts.
        peak_memory_bytes: most memory of rank 0's side of the run, see `trainer.run`.
        weights_sha256: digest of the final weights and buffers; None while the run is stopped.
        best_weights_sha256: of the file best.pt.
        data_fingerprint: of the images and masks.
        split_checksum: of the labelled, unlabelled and validation lists.
        pretrained_sha256: of the file of ImageNet weights; None when weights were drawn.
        absent_classes: names of the classes that no validation mask shows.
        absent_rule: what they add to the mean, see `evaluation.absent`; None where there are none.
    """

    status: Literal["done", "stopped"]
    epochs: int
    steps: int
    best_miou_percent: float | None
    best_epoch: int | None
    last_miou_percent: float | None
    last_epoch: int | None
    best_iou_percent: tuple[float | None, ...]
    last_iou_percent: tuple[float | None, ...]
    best_confusion: Counts
    last_confusion: Counts
    seconds: float
    peak_memory_bytes: int
    weights_sha256: str | None
    best_weights_sha256: str | None
    data_fingerprint: str
    split_checksum: str
    pretrained_sha256: str | None
    world_size: int
    device: str
    absent_classes: tuple[str, ...] = ()
    absent_rule: str | None = None


METRICS = "metrics.jsonl"
PROGRESS = "progress.json"
CONFUSION = "confusion.json"
_PROGRESS_SECONDS = 1.0  # at most one write


@dataclass
class RunLog:
    """Writes metrics.jsonl (a line per logged step or epoch), progress.json and confusion.json.

    Attributes:
        on_progress: called with the content of progress.json whenever it is written.
        events: a tensorboardX writer, see `open_events`.
    """

    folder: Path
    total_steps: int
    epochs: int
    on_progress: Callable[[dict[str, Any]], None] | None = None
    events: Any = None
    _marks: list[tuple[float, int]] = field(default_factory=list)
    _written: float = 0.0
    _rate: float = 0.0  # steps per second

    def rewind(self, step: int) -> None:
        """Drop the lines of steps after `step`, which a resumed run will do again."""
        path = self.folder / METRICS
        if not path.exists():
            return
        kept = [line for line in path.read_text().splitlines() if _step_of(line) <= step]
        _replace(path, "".join(line + "\n" for line in kept))

    def metric(self, **values: Any) -> None:
        """Append one line, and its numbers to the TensorBoard events where there are any."""
        with (self.folder / METRICS).open("a") as file:
            file.write(json.dumps(values) + "\n")
        if self.events is None:
            return
        for name, value in values.items():
            if name != "step" and isinstance(value, int | float):
                self.events.add_scalar(name, value, values["step"])
            elif isinstance(value, list):  # IoU by class
                by_class = {str(i): x for i, x in enumerate(value) if x is not None}
                self.events.add_scalars(name, by_class, values["step"])
        self.events.flush()

    def confusion(self, **epochs: tuple[int, Counts]) -> None:
        """Replace confusion.json: epoch and pixels (truth, prediction) of "best" and "last"."""
        entries = {
            name: {"epoch": epoch, "counts": counts} for name, (epoch, counts) in epochs.items()
        }
        _replace(self.folder / CONFUSION, json.dumps(entries))

    def open_events(self, step: int) -> None:
        """Write TensorBoard events from now on; those after `step` are purged, as in `rewind`."""
        from tensorboardX import SummaryWriter  # 1.5 s of imports, only for those who ask

        self.events = SummaryWriter(str(self.folder / "tensorboard"), purge_step=step + 1)

    def progress(
        self, step: int, *, images: int, force: bool = False, work: str = "", **values: Any
    ) -> None:
        """Replace progress.json, at most once a second unless forced.

        Args:
            step: optimiser steps done.
            images: labelled and unlabelled images per step over all ranks.
            force: write even if less than a second has passed.
            work: what is done between two trainings; its time is that of no step.
            values: more entries, such as epoch and miou_percent.
        """
        now = time.time()
        if not self._marks:
            self._marks.append((now, step))
        if not force and now - self._written < _PROGRESS_SECONDS:
            return
        self._written = now
        if work:
            self._marks, values = [(now, step)], values | {"work": work}
        else:
            # The rate is that of the last 31 writes, so it follows a run that becomes slower.
            self._marks = [*self._marks[-30:], (now, step)]
            (first_time, first_step) = self._marks[0]
            self._rate = (step - first_step) / max(now - first_time, 1e-9)
        rate = self._rate
        progress = {
            "step": step,
            "total_steps": self.total_steps,
            "epochs": self.epochs,
            "images_per_second": rate * images,
            "seconds_left": (self.total_steps - step) / rate if rate > 0 else None,
            "time": now,
            **values,
        }
        _replace(self.folder / PROGRESS, json.dumps(progress))
        if self.on_progress is not None:
            self.on_progress(progress)


def _replace(path: Path, text: str) -> None:
    """Replace a file at once; the temporary name is fixed, so kills leave at most one of them."""
    with atomic_path(path, part=path.with_name(path.name + ".tmp")) as part:
        part.write_text(text)


def _step_of(line: str) -> float:
    """Step of a line of metrics.jsonl; infinite, so dropped, when a kill cut the line short."""
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return float("inf")
