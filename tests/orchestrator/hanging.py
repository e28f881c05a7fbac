"""Images that nobody can read to their end: pipes without a writer, in a tree of their own."""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from orchestrator.places import Places
from orchestrator.progress import read_progress
from tests.orchestrator.launching import KL, Lab, wait_until

HANGS = ("hang_minutes=0.05", "run.checkpoint_steps=6")  # steps take well below a second


def in_midst_of_steps(lab: Lab) -> int:
    """Wait until the KL cell is between two checkpoints; the process of its first rank."""
    pid = lab.worker_at(KL, 6)
    place = Places.at(str(lab.root)).run(KL)
    wait_until(lambda: (found := read_progress(place)) is not None and found.step % 6 > 0)
    return pid


@dataclass(frozen=True)
class Blocked:
    """A lab whose images can be made to block their readers."""

    lab: Lab

    @property
    def kept(self) -> Path:
        return self.lab.data.with_name("kept")

    def block(self) -> None:
        """Let every training image block whoever reads it, in the midst of steps."""
        in_midst_of_steps(self.lab)
        shutil.copytree(self.lab.data, self.kept)
        for image in (self.lab.data / "JPEGImages").iterdir():
            part = image.with_suffix(".pipe")
            os.mkfifo(part)
            part.replace(image)

    def stacks(self, rank: int = 0) -> str:
        """Wait until a rank has told where it stands."""
        log = Places.at(str(self.lab.root)).run(KL).log(1)
        if rank:
            log = log.with_name(f"{log.stem}-rank-{rank:04d}{log.suffix}")
        wait_until(lambda: log.exists() and "most recent call first" in log.read_text())
        return log.read_text()

    def free(self) -> None:
        """Let images be read again; who waits for a pipe waits on."""
        for image in (self.kept / "JPEGImages").iterdir():
            image.replace(self.lab.data / "JPEGImages" / image.name)
