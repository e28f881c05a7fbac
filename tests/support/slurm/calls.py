"""What the jobs of these tests do; importable in a job, since the checkout is on its path."""

import os
import time
from dataclasses import dataclass
from pathlib import Path

from slurm.job_runtime import JobContext, Signals, rename, rendezvous, requeue

CHECKOUT = Path(__file__).resolve().parents[3]
SETUP = (f"export PYTHONPATH={CHECKOUT}", "export OMP_NUM_THREADS=1")


@dataclass(frozen=True)
class Say:
    """Write the words, and what the job sees of itself, into a file."""

    path: Path
    words: str

    def __call__(self) -> None:
        seen = [os.uname().nodename, os.environ.get("CUDA_VISIBLE_DEVICES", "-")]
        seen.append(os.environ.get("GREETING", "-"))
        self.path.write_text("|".join([self.words, *seen]))


@dataclass(frozen=True)
class Count:
    """Count to a number in a file; at a signal, note it and start again from there."""

    path: Path
    until: int
    label: str = ""

    def __call__(self) -> None:
        here, signals = JobContext.from_environment(), Signals().listen()
        if self.label:
            rename(here.job_id, self.label)
        while (number := self.reached()) < self.until:
            self._write(f"{number + 1}", here)
            time.sleep(0.2)
            if signals.asked:
                with self.path.with_suffix(".signals").open("a") as file:
                    file.write(f"{signals.received} at {number + 1}\n")
                assert requeue(here.job_id, signals.received) == ""
                raise SystemExit(1)
        with self.path.with_suffix(".ends").open("a") as file:
            file.write(f"{here.restart}\n")

    def reached(self) -> int:
        return int(self.path.read_text().split()[0]) if self.path.exists() else 0

    def _write(self, text: str, here: JobContext) -> None:
        part = self.path.with_suffix(".tmp")
        part.write_text(f"{text} {here.restart}")
        part.replace(self.path)


@dataclass(frozen=True)
class Hog:
    """Take more memory than was asked for."""

    def __call__(self) -> None:
        block = bytearray(900 << 20)
        block[::4096] = b"x" * len(block[::4096])
        time.sleep(30)


@dataclass(frozen=True)
class Leave:
    """End with an exit code, or by a signal of its own."""

    code: int

    def __call__(self) -> None:
        os._exit(self.code)


@dataclass(frozen=True)
class SumRanks:
    """Meet the other tasks, and add up the ranks by torch."""

    folder: Path

    def __call__(self) -> None:
        here = JobContext.from_environment()
        os.environ.update(rendezvous(here, self.folder))
        import torch
        import torch.distributed as dist

        dist.init_process_group("gloo")
        total = torch.tensor([here.rank + 1])
        dist.all_reduce(total)
        ranks_here = os.environ["LOCAL_WORLD_SIZE"]
        words = f"{int(total)} {os.uname().nodename} {here.local_rank} {ranks_here}"
        (self.folder / f"rank-{here.rank}").write_text(words)
        dist.destroy_process_group()
