"""How long a checkpoint holds training up: `python -m benchmarks.checkpoint [key=value ...]`.

`save` copies the state and returns; a thread writes the file. Beside it the same bytes written by
`torch.save`, `fsync` and a rename before training goes on. Both in wall time and in CPU time of the
training thread, which a busy machine does not stretch. Settings: model, rounds, device.
"""

import os
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from benchmarks.table import Column, print_table, settings
from benchmarks.two_steps import Case
from trainer.checkpoint import Checkpoints
from trainer.config.schema import RunConfig, TrainConfig
from trainer.distributed import Ranks, init_process_group
from trainer.schedule import Schedule, Stage
from trainer.state import TrainState, new_state


def main(words: list[str]) -> None:
    """Print the table."""
    given = settings(words, {"model": "resnet50", "rounds": "7", "device": "cpu"})
    config = Case(model=given["model"], crop=321, batch=4, classes=21).config
    ranks = init_process_group(RunConfig(device=given["device"]))
    state = new_state(config, 21, ranks)
    torch.set_num_threads(1)
    walls, works = stalls(config, ranks, state, rounds=int(given["rounds"]))
    size = sum(tensor.nbytes for tensor in state.tensors().values()) / 2**20
    title = f"A checkpoint of {given['model']} ({size:.0f} MiB, {ranks.device}) blocks"
    print_table(f"{title}, wall", walls)
    print_table(f"{title}, CPU time of the thread", works)


def stalls(
    config: TrainConfig, ranks: Ranks, state: TrainState, *, rounds: int
) -> tuple[tuple[Column, Column], tuple[Column, Column]]:
    """Seconds on the clock, and of CPU, that a save by torch and one of ours hold training up."""
    walls = Column("torch.save, fsync, rename"), Column("ours")
    works = Column("torch.save, fsync, rename"), Column("ours")
    with TemporaryDirectory() as folder:
        checkpoints = Checkpoints(Path(folder), config, ranks, Schedule((Stage("", 1, 1),)))

        def ours() -> None:
            checkpoints.save(state.pack())

        def plain() -> None:
            _save_at_once(state, Path(folder) / "plain.pt")

        for number in range(rounds + 1):
            state.step = number
            for call, wall, work in zip((plain, ours), walls, works, strict=True):
                start, started = time.perf_counter(), time.thread_time()
                call()
                taken = time.perf_counter() - start, time.thread_time() - started
                checkpoints.finish()
                if number:  # the first round makes the buffers
                    wall.values.append(taken[0])
                    work.values.append(taken[1])
    return walls, works


def _save_at_once(state: TrainState, path: Path) -> None:
    part = path.with_suffix(".tmp")
    torch.save(state.pack(), part)
    with part.open("rb") as file:
        os.fsync(file.fileno())
    part.replace(path)


if __name__ == "__main__":
    main(sys.argv[1:])
