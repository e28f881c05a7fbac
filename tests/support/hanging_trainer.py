"""An image that nobody can read to its end: a pipe without a writer, in a tree of its own."""

import os
from dataclasses import dataclass
from pathlib import Path

from orchestrator.storage.run_state import read_progress
from tests.support.lab import KL, Lab, wait_until

HANGS = ("hang_minutes=0.05", "run.checkpoint_steps=6")  # steps take well below a second


def in_midst_of_steps(lab: Lab) -> int:
    """Wait until the KL cell is between two checkpoints; the process of its first rank."""
    pid = lab.worker_at(KL, 6)
    run = lab.opened.run(KL)
    wait_until(lambda: (progress := read_progress(run)) is not None and progress.step % 6 > 0)
    return pid


@dataclass(frozen=True)
class Blocked:
    """A lab one of whose training images can be made to block its reader."""

    lab: Lab

    @property
    def image(self) -> Path:
        return self.lab.data / "JPEGImages" / "scene_00000.jpg"

    @property
    def kept(self) -> Path:
        return self.image.with_suffix(".kept")

    def block(self) -> None:
        """Let the image block whoever reads it, in the midst of steps."""
        in_midst_of_steps(self.lab)
        part = self.image.with_suffix(".pipe")
        os.mkfifo(part)
        os.link(self.image, self.kept)
        part.replace(self.image)  # never a moment without a file

    def tells(self, *words: str, rank: int = 0) -> str:
        """Wait until a rank's log holds one of these words; the whole log."""
        log = self.lab.opened.run(KL).log(1)
        if rank:
            log = log.with_name(f"{log.stem}-rank-{rank:04d}{log.suffix}")
        wait_until(lambda: log.exists() and any(word in log.read_text() for word in words))
        return log.read_text()

    def free(self) -> None:
        """Let the image be read again; who waits for the pipe waits on."""
        self.kept.replace(self.image)
