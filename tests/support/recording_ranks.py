"""Runs on real gloo ranks that write down every step, and that can be killed at any moment."""

import json
import os
import signal
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import timedelta
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from tests.support.process_groups import FORKSERVER, as_a_process_of_its_own
from tests.support.tiny_config import tiny_config
from trainer import evaluate
from trainer.checkpoint_manifest import CHECKPOINTS
from trainer.config.schema import TrainConfig
from trainer.determinism import digest
from trainer.distributed import Ranks
from trainer.loop import StepReport
from trainer.network.backbone import Backbone
from trainer.network.deeplab import normalise
from trainer.run import train

SECONDS = 120  # until a rank that waits for another gives up
WRITING = ("half of the data", "data", "record")  # moments of a checkpoint's way to the disk


@dataclass(frozen=True)
class Run:
    """A run of the tiny network.

    Attributes:
        folder: of the run; what its ranks write down lies beside its checkpoints.
        is_double: whether the network computes in float64.
    """

    root: Path
    folder: Path
    world_size: int
    overrides: tuple[str, ...]
    is_double: bool = False

    def start(self, *, attempt: int = 0, dies_at: str = "") -> list[BaseProcess]:
        """Its ranks; rank 0 kills itself at a moment of WRITING, in its second checkpoint."""
        config = tiny_config(self.root, *self.overrides)
        given = [(self, config, rank, attempt, dies_at) for rank in range(self.world_size)]
        started = [FORKSERVER.Process(target=_rank, args=arguments) for arguments in given]
        for process in started:
            process.start()
        return started

    def finish(self, *, attempt: int = 0) -> "Run":
        """Run to the end."""
        for process in self.start(attempt=attempt):
            process.join()
            assert process.exitcode == 0
        return self

    def records(self, what: str = "step") -> list[dict[str, Any]]:
        """The lines of all ranks and attempts about steps or about evaluated images."""
        paths = sorted(self.folder.glob("record-*.jsonl"))
        lines = [json.loads(line) for path in paths for line in path.read_text().splitlines()]
        return [line for line in lines if what in line]

    def num_lines(self) -> int:
        """How much was written down so far."""
        return sum(path.read_bytes().count(b"\n") for path in self.folder.glob("record-*.jsonl"))

    def digests(self) -> dict[int, str]:
        """Sha256 of weights, average and momentum after each step, equal if done twice."""
        digests: dict[int, str] = {}
        for line in self.records():
            assert digests.setdefault(line["step"], line["digest"]) == line["digest"]
        return dict(sorted(digests.items()))

    def samples(self) -> dict[int, list[str]]:
        """What each step was made of, over all ranks: ids and bytes of each image's slot."""
        samples: dict[int, list[str]] = {}
        for line in self.records():
            samples.setdefault(line["step"], []).extend(line["samples"])
        return {step: sorted(slots) for step, slots in sorted(samples.items())}

    def losses(self) -> dict[int, float]:
        """Loss of each step over the global batch."""
        return {line["step"]: line["loss"] for line in self.records()}

    def evaluated(self) -> list[str]:
        """Sha256 of every image and every mask that was scored, over all ranks and epochs."""
        return sorted(line["evaluated"] for line in self.records("evaluated"))

    def plan(self) -> list[tuple[float, float, float]]:
        """Step, epoch and learning rate of each line of metrics.jsonl."""
        text = (self.folder / "metrics.jsonl").read_text()
        lines = [json.loads(line) for line in text.splitlines()]
        return [(line["step"], line["epoch"], line.get("lr", 0.0)) for line in lines]

    def newest(self, prefix: str = "") -> dict[str, torch.Tensor]:
        """Tensors of the newest checkpoint, without a prefix that they all have."""
        path = max((self.folder / "checkpoints").glob("step-*.pt"))
        tensors = torch.load(path, weights_only=True)["tensors"]
        return {k[len(prefix) :]: v for k, v in tensors.items() if k.startswith(prefix)}


def stop(processes: list[BaseProcess]) -> None:
    """Wait for ranks of which one died; the others must notice."""
    for process in processes:
        process.join(SECONDS)
    waiting = [process for process in processes if process.is_alive()]
    for process in waiting:
        process.kill()
    assert not waiting, "a rank waits for a dead one"


def _rank(run: Run, config: TrainConfig, rank: int, attempt: int, dies_at: str) -> None:
    """One rank, in its own process."""
    as_a_process_of_its_own()
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(run.world_size))
    run.folder.mkdir(parents=True, exist_ok=True)
    dist.init_process_group(
        "gloo",
        init_method=f"file://{run.folder}/meeting-{attempt}",
        rank=rank,
        world_size=run.world_size,
        timeout=timedelta(seconds=SECONDS),
    )
    record = _Record(run.folder / f"record-{rank}.jsonl")
    record.evaluated_images()
    if run.is_double:
        _compute_in_double()
    if dies_at and rank == 0:
        _die_in_a_write(dies_at)
    train(config, run.folder, on_step=record.step)
    dist.destroy_process_group()


def _compute_in_double() -> None:
    """Everything from the network on, for good."""
    normalise(torch.zeros(1, 3, 2, 2, dtype=torch.uint8))  # makes its constants, in float32
    single = Backbone.features
    Backbone.features = lambda own, x: single(own, x.double())
    torch.Tensor.float = torch.Tensor.double
    torch.set_default_dtype(torch.float64)


class _Record:
    """A file with a line for every step and for every evaluated image."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        self._ranks = Ranks(dist.get_rank(), dist.get_world_size(), torch.device("cpu"))

    def write(self, **values: Any) -> None:
        """One line, whole whenever the process dies."""
        os.write(self._file, (json.dumps(values) + "\n").encode())

    def step(self, report: StepReport) -> None:
        """What `train` reports of a step."""
        loss = float(self._ranks.sum(report.terms["loss"].double()))
        halves = (report.labelled, report.unlabelled)
        samples = [slot for batch in halves if batch for slot in _slots(batch)]
        state = report.state
        self.write(step=state.step, digest=state.digest(), loss=loss, samples=samples)

    def evaluated_images(self) -> None:
        """Also write down what validation reads from now on."""
        read = evaluate.validation_images

        def noting(*given: Any, **named: Any) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
            with closing(read(*given, **named)) as images:
                for image, truth in images:
                    self.write(evaluated=digest({"": image}))
                    self.write(evaluated=digest({"": truth}))
                    yield image, truth

        evaluate.validation_images = noting


def _slots(batch: Any) -> list[str]:
    """One word per image of a batch: its ids, and sha256 of all that was drawn for it."""
    tensors: dict[str, torch.Tensor] = {}
    for name, value in vars(batch).items():
        parts = value if isinstance(value, tuple) else (value,)
        # A view that the method did not name is an empty tensor.
        tensors |= {
            f"{name}{i}": x
            for i, x in enumerate(parts)
            if isinstance(x, torch.Tensor) and x.numel()
        }
    words = []
    for slot, image in enumerate(batch.ids):
        mix_ids = getattr(batch, "mix_ids", ())
        partner = mix_ids[slot] if mix_ids else ""
        drawn = digest({name: value[slot] for name, value in tensors.items()})
        words.append(f"{image} {partner} {drawn}")
    return words


def _die_in_a_write(moment: str) -> None:
    """SIGKILL this process while its second checkpoint is under way to the disk."""
    save, replace = torch.save, Path.replace
    saves, renames = [0], [0]

    def die() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def saving(packed: Any, path: Path) -> None:
        save(packed, path)
        saves[0] += 1
        if moment == WRITING[0] and saves[0] == 2:
            os.truncate(path, path.stat().st_size // 2)
            die()

    def renaming(part: Path, path: Path) -> Path:
        renames[0] += path.parent.name == CHECKPOINTS
        if moment in WRITING[1:] and renames[0] == 2 + WRITING.index(moment):
            die()
        return replace(part, path)

    torch.save, Path.replace = saving, renaming
