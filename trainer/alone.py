"""One command at a time in a run's folder: two would write each other's checkpoints."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

LOCK = "train.lock"


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Hold `folder` until the block ends or the process dies, however it dies.

    Raises:
        ValueError: another process holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / LOCK
    # A record lock: unlike flock it is not inherited by loader workers, which may live on a little.
    with path.open("a+") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            file.seek(0)
            holder = file.read().strip() or "unknown"
            raise ValueError(
                f"Another process trains in {folder} (pid {holder} of its machine). Wait for it, "
                "stop it, or choose another run.folder."
            ) from error
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        try:
            yield
        finally:
            if [entry.name for entry in folder.iterdir()] == [LOCK]:  # nothing came of it
                path.unlink()
                folder.rmdir()
