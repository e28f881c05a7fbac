"""The code, the package versions and the host of this process, as columns of a row."""

import platform
import socket
import subprocess
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from orchestrator.results.row import Provenance

CHECKOUT = Path(__file__).resolve().parents[2]


@cache
def current_provenance() -> Provenance:
    """Provenance of this process; asked once, since its code was loaded once."""
    commit, is_dirty = checkout_state()
    return Provenance(
        git_commit=commit,
        git_dirty=is_dirty,
        python=platform.python_version(),
        torch=_version("torch"),
        cuda=_cuda(),
        ray=_version("ray"),
        host=socket.gethostname(),
    )


@cache
def checkout_state() -> tuple[str | None, bool | None]:
    """Commit of the checkout, and whether tracked files differ from it; asked once a process.

    None without git, and where the repository around the code does not hold it.
    """
    if not _git("ls-files", "--error-unmatch", __file__):
        return None, None
    changes = _git("status", "--porcelain", "--untracked-files=no")
    return _git("rev-parse", "HEAD") or None, None if changes is None else bool(changes)


def _git(*arguments: str) -> str | None:
    """Output of a git command in the checkout; None without git or a repository, or on an error."""
    try:
        answer = subprocess.run(
            ["git", "-C", str(CHECKOUT), *arguments],
            capture_output=True,
            text=True,
            check=False,
            timeout=30,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return answer.stdout.strip() if answer.returncode == 0 else None


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _cuda() -> str | None:
    import torch

    return torch.version.cuda
