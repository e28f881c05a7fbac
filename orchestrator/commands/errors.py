"""The errors of the command line: for each kind a code for programs and the exit code."""

from dataclasses import dataclass

from datasets.errors import DataError, Unreachable
from orchestrator.backends.ray.cluster import ClusterUnreachable
from orchestrator.storage.file_lock import Busy
from slurm.commands import SlurmMissing, SlurmSilent


@dataclass(frozen=True)
class ErrorKind:
    """A kind of error.

    Attributes:
        code: its name in the answer of --json; never changed, since programs compare it.
        exit_code: of the command.
        meaning: for docs/json.md.
    """

    code: str
    exit_code: int
    meaning: str


_USAGE = ErrorKind("usage", 2, "words, configuration or a grid that do not fit; nothing was done")
_FILE = ErrorKind("file", 2, "a file or folder cannot be read or written, or the disk is full")
_INTERNAL = ErrorKind("internal", 11, "the program itself failed; its traceback is kept")
# By the error's own type; a type that is not here is one of the three above.
_KINDS: dict[type[Exception], ErrorKind] = {
    DataError: ErrorKind("data", 2, "images, masks or lists are missing or broken"),
    Busy: ErrorKind("busy", 10, "another process has the grid or the cell"),
    ClusterUnreachable: ErrorKind("ray_unreachable", 20, "no Ray answers"),
    SlurmMissing: ErrorKind("slurm_missing", 20, "a program of Slurm is not installed here"),
    SlurmSilent: ErrorKind("slurm_silent", 20, "Slurm does not answer; its jobs go on"),
    Unreachable: ErrorKind("server_unreachable", 20, "an object store or server does not answer"),
}
ERROR_KINDS = (_USAGE, _FILE, *_KINDS.values(), _INTERNAL)


def kind_of(error: Exception) -> ErrorKind:
    """The kind of an error that ended a command."""
    if type(error) in _KINDS:
        return _KINDS[type(error)]
    if isinstance(error, OSError):
        return _FILE
    return _USAGE if isinstance(error, ValueError) else _INTERNAL


def sentence_of(error: Exception) -> str:
    """An error's own text, for a user."""
    text = getattr(error, "strerror", None) or str(error)
    named = getattr(error, "filename", None)
    text = f"{text}: {named}" if named and str(named) not in text else text
    if isinstance(error, SlurmSilent):
        text = f"Slurm does not answer ({text}). Its jobs go on; try again, or `scontrol ping`."
    return text
