"""Times some steps of a run and some images of its evaluation: a script for a process of its own.

A process of its own, because the peak of memory never falls and determinism is switched on once.
Arguments: the run's configuration as JSON, a folder for the files of a run, and where to write.
"""

import json
import math
import multiprocessing
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from trainer.config.schema import TrainConfig

if TYPE_CHECKING:
    from trainer.loop import StepReport

WARM_STEPS = 3  # the first ones choose algorithms and fill caches
BLOCKS, BLOCK_STEPS = 4, 5  # the spread between blocks is the interval of a forecast
_IMAGES = 2  # of the validation set, beside those that warm up
_NEVER = 10**9
# They tell a process that it is one of several ranks.
_OF_RANKS = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


class ProbeFailed(RuntimeError):
    """A kind of cell could not be timed on this machine."""


@dataclass(frozen=True)
class Timing:
    """Seconds of the parts of a run: of the wall clock on CUDA, of CPU time on a CPU.

    CPU time does not depend on what else the machine does; it is that of the process and of the
    workers that load its images.

    Attributes:
        start: from the start of the process to the first step, without any step, and from the last
            step to the end, with a checkpoint.
        steps: of one step, the mean of each block.
        evaluation: of one evaluation apart from its images.
        image: of one image of the evaluation.
        peak_bytes: of the card, or of the process on a CPU.
        device: "cpu" or "cuda".
    """

    start: float
    steps: tuple[float, ...]
    evaluation: float
    image: float
    peak_bytes: int
    device: str

    @classmethod
    def from_json(cls, text: str) -> "Timing":
        """The timing that `to_json` wrote."""
        fields = json.loads(text)
        return cls(**{**fields, "steps": tuple(fields["steps"])})

    def to_json(self) -> str:
        """As JSON, to be sent to another process and kept."""
        return json.dumps(asdict(self))


def timed_apart(config_json: str, environment: Mapping[str, str]) -> Timing:
    """Time a run of one rank in a process of its own.

    Args:
        config_json: the run.
        environment: of that process.

    Raises:
        ProbeFailed: with the last line that this process printed.
    """
    with tempfile.TemporaryDirectory(prefix="probe-") as name:
        folder = Path(name)
        config, answer = folder / "config.json", folder / "timing.json"
        config.write_text(config_json)
        command = [sys.executable, __file__, str(config), str(folder / "run"), str(answer)]
        alone = {name: value for name, value in environment.items() if name not in _OF_RANKS}
        # Without PYTHONSAFEPATH the folder of the script would come before the code.
        alone["PYTHONSAFEPATH"] = "1"
        ended = subprocess.run(command, env=alone, capture_output=True, check=False)
        if ended.returncode == 0:
            return Timing.from_json(answer.read_text())
        lines = ended.stderr.decode(errors="replace").strip().splitlines()
        raise ProbeFailed(lines[-1] if lines else f"exit code {ended.returncode}")


def main(config: Path, folder: Path, answer: Path) -> int:
    """Time the configured run in an empty folder; writes the answer as JSON."""
    # What the process of a cell imports for its row, too; `start` counts it.
    import orchestrator.results.store  # noqa: F401
    from trainer.config.compose import from_json

    answer.write_text(timed(from_json(config.read_text()), folder).to_json())
    return 0


def timed(config: TrainConfig, folder: Path) -> Timing:
    """Take some steps of a run and score some images; every rank of it calls this.

    Args:
        config: the run.
        folder: for the files of the run, which nobody reads.

    Raises:
        Exception: whatever would end the run itself, such as too little memory.
    """
    import torch

    from trainer.run import train

    config = _lengthened(config)
    readings: list[float] = []  # between the blocks
    scoring: list[float] = []
    ended: list[float] = []  # the steps, and the evaluation

    def on_step(report: "StepReport") -> None:
        step = report.state.step - WARM_STEPS
        if step >= 0 and step % BLOCK_STEPS == 0:
            readings.append(_seconds())
        if step == BLOCKS * BLOCK_STEPS:
            scoring.extend(_timed_evaluation(config, report))
            ended.append(_seconds())

    train(config, folder, on_step=on_step, should_stop=lambda: bool(scoring))
    end_seconds = _seconds() - ended[0]
    steps = tuple((end - begin) / BLOCK_STEPS for begin, end in pairwise(readings))
    is_cuda = _uses_card()
    kibibytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # Linux counts KiB
    return Timing(
        start=readings[0] - WARM_STEPS * min(steps) + end_seconds,
        steps=steps,
        evaluation=scoring[0],
        image=scoring[1],
        peak_bytes=torch.cuda.max_memory_allocated() if is_cuda else kibibytes * 1024,
        device="cuda" if is_cuda else "cpu",
    )


def _lengthened(config: TrainConfig) -> TrainConfig:
    """The run with enough steps, and neither an evaluation nor a checkpoint among them."""
    from datasets.splits.lists import split_sizes
    from trainer.schedule import Schedule

    labelled, unlabelled, _ = split_sizes(config.data)
    schedule = Schedule.of(config, num_labelled=labelled, num_unlabelled=unlabelled)
    epochs = math.ceil((WARM_STEPS + BLOCKS * BLOCK_STEPS + 1) / schedule.stages[0].epoch_steps)
    return replace(
        config,
        optim=replace(config.optim, epochs=max(epochs, schedule.stages[0].epochs)),
        evaluation=replace(config.evaluation, every_epochs=_NEVER),
        run=replace(config.run, checkpoint_minutes=_NEVER, checkpoint_steps=0, tensorboard=False),
    )


def _timed_evaluation(config: TrainConfig, report: "StepReport") -> tuple[float, float]:
    """Seconds of an evaluation apart from its images, and of one image."""
    from datasets.dataset import open_dataset
    from trainer.distributed import init_process_group
    from trainer.evaluate import evaluate

    dataset, ranks = open_dataset(config.data), init_process_group(config.run)
    network = report.state.deployed_network()

    def seconds(names: Sequence[str]) -> float:
        part = replace(dataset, split=replace(dataset.split, validation=tuple(names)))
        begin = _seconds()
        evaluate(network, part, config, ranks)
        return _seconds() - begin

    first = ranks.world_size  # an image for each rank
    names = dataset.split.validation[: first * (1 + _IMAGES)]
    seconds(names)  # warms up
    few, all_of_them = seconds(names[:first]), seconds(names)
    image = max(all_of_them - few, 0.0) / max(len(names) - first, 1)
    return max(few - first * image, 0.0), image


def _seconds() -> float:
    """Seconds since this process began; on a CPU those of its CPU time, with its children's."""
    import torch

    if _uses_card():
        torch.cuda.synchronize()  # the host runs ahead of the device
        began = int(_stat(os.getpid())[19]) / os.sysconf("SC_CLK_TCK")
        return time.clock_gettime(time.CLOCK_BOOTTIME) - began
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    alive = [child.pid for child in multiprocessing.active_children() if child.pid]
    ticks = sum(int(field) for pid in alive for field in _stat(pid)[11:13])  # user and system
    return time.process_time() + ended.ru_utime + ended.ru_stime + ticks / os.sysconf("SC_CLK_TCK")


def _uses_card() -> bool:
    """Whether this process has begun to use a GPU."""
    import torch

    return bool(torch.cuda.is_initialized())  # type: ignore[no-untyped-call]


def _stat(pid: int) -> list[str]:
    """What Linux says of a process after its name, see proc(5)."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


if __name__ == "__main__":
    sys.exit(main(*map(Path, sys.argv[1:4])))
