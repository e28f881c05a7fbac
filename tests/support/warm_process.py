"""Commands, mostly of the orchestrator, that start at once.

Each one is forked from the server of `process_groups`, which has imported torch and what a launch
needs, and is then a process as from a shell: with a session, a folder, an environment and an output
of its own.
"""

import os
import runpy
import signal
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Mapping, Sequence
from multiprocessing.reduction import DupFd
from pathlib import Path
from typing import Any

from tests.support.process_groups import FORKSERVER, as_a_process_of_its_own


class WarmCommand:
    """A running command, with the part of `subprocess.Popen` that the tests need.

    Args:
        words: of the command line.
        cwd: its working directory.
        module: other than the orchestrator, as `python -m MODULE` names it.

    Attributes:
        pid: of the process, which leads a process group of its own.
        stdout: what it prints, errors too.
        returncode: None until it is waited for.
    """

    def __init__(self, words: Sequence[str], cwd: Path, module: str = "") -> None:
        reading, writing = os.pipe()
        self.stdout = os.fdopen(reading)
        given = (list(words), cwd, dict(os.environ), _Descriptor(writing), module)
        self._process = FORKSERVER.Process(target=_run, args=given)
        self._process.start()
        os.close(writing)
        assert self._process.pid is not None
        self.pid = self._process.pid
        self.returncode: int | None = None

    def send_signal(self, number: int) -> None:
        """Send a signal to the process."""
        os.kill(self.pid, number)

    def kill(self) -> None:
        """End the process at once."""
        self.send_signal(signal.SIGKILL)

    def poll(self) -> int | None:
        """The exit code if it has ended."""
        self.returncode = self._process.exitcode
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end; returns the exit code, or minus the signal that killed it."""
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired("orchestrator", timeout or 0.0)
        self.returncode = self._process.exitcode
        return self.returncode

    def communicate(self, timeout: float | None = None) -> tuple[str, None]:
        """Read until the command and all its children have closed their output, then wait."""
        text: list[str] = []
        reader = threading.Thread(target=lambda: text.append(self.stdout.read()), daemon=True)
        reader.start()
        reader.join(timeout)
        if reader.is_alive():
            raise subprocess.TimeoutExpired("orchestrator", timeout or 0.0)
        self.stdout.close()
        self.wait(timeout)
        return text[0], None


class _Descriptor:
    """A file descriptor that travels to a forked process."""

    def __init__(self, number: int) -> None:
        self._number = number

    def __reduce__(self) -> Any:
        return _received, (DupFd(self._number),)


def _received(sent: Any) -> int:
    number: int = sent.detach()
    return number


def _run(words: list[str], cwd: Path, environ: Mapping[str, str], output: int, module: str) -> None:
    """Be the command."""
    from orchestrator.__main__ import main

    os.setsid()
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environ)
    as_a_process_of_its_own()
    tempfile.tempdir = None  # it follows TMPDIR
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number, stream in ((0, os.open(os.devnull, os.O_RDONLY)), (1, output), (2, output)):
        os.dup2(stream, number)
    os.close(output)
    sys.argv = [module or "orchestrator", *words]
    try:
        if module:
            runpy.run_module(module, run_name="__main__", alter_sys=True)
        code = 0 if module else main(words)
    except Exception:  # noqa: BLE001 - what an interpreter does with it
        traceback.print_exc()
        code = 1
    sys.exit(code)
