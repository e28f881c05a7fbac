"""A small disk in memory that can be full or read-only; only root may have one."""

import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

_MEGABYTES = 128
_PATIENCE_SECONDS = 10.0  # until killed processes have closed their files


@dataclass(frozen=True)
class Disk:
    """A tmpfs of its own at a folder."""

    folder: Path

    @contextmanager
    def full(self) -> Iterator[None]:
        """Leave no room until the block ends."""
        filling = self.folder / "filling"
        block = bytes(1 << 16)
        try:
            with filling.open("wb", buffering=0) as file, suppress(OSError):
                for _ in range((_MEGABYTES << 20) // len(block)):
                    file.write(block)
            yield
        finally:
            filling.unlink()

    @contextmanager
    def read_only(self) -> Iterator[bool]:
        """Refuse every write until the block ends; gives False where files stay open for one."""
        give_up = time.monotonic() + _PATIENCE_SECONDS
        while not (is_so := self._remount("ro")) and time.monotonic() < give_up:
            time.sleep(0.1)
        try:
            yield is_so
        finally:
            self._remount("rw")

    def _remount(self, mode: str) -> bool:
        call = ["mount", "-o", f"remount,{mode}", str(self.folder)]
        return subprocess.run(call, capture_output=True, check=False).returncode == 0


@contextmanager
def small_disk(folder: Path) -> Iterator[Disk | None]:
    """A small disk at a folder until the block ends; None where this user may not mount one."""
    folder.mkdir(parents=True, exist_ok=True)
    call = ["mount", "-t", "tmpfs", "-o", f"size={_MEGABYTES}m", "drill", str(folder)]
    if os.geteuid() or subprocess.run(call, capture_output=True, check=False).returncode:
        yield None
        return
    try:
        yield Disk(folder)
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=False)
