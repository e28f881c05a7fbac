"""Real processes for tests: gloo ranks over loopback, `python -m trainer`, or one function.

They are forked from a server that has imported torch and the trainer once: a start costs a tenth
of a second instead of three seconds, so that a test can afford many.
"""

import multiprocessing
import os
import resource
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.multiprocessing import start_processes

FORKSERVER = multiprocessing.get_context("forkserver")
FORKSERVER.set_forkserver_preload(
    [
        "pytest",
        "hypothesis",
        "tests.support.recording_ranks",
        "orchestrator.commands.verbs",
        "orchestrator.launch",
        "orchestrator.backends.inline",
        "trainer.losses",
        "trainer.methods.supervised",
        "trainer.methods.unimatch",
        "trainer.network.resnet",
        "jinja2",
        "tests.support.preloaded",
    ]
)


def run_ranks(function: Callable[..., Any], world_size: int, *arguments: Any) -> list[Any]:
    """What `function(*arguments)` returned on every rank, in rank order.

    A rank that raises makes this raise, with its traceback.
    """
    with tempfile.TemporaryDirectory() as folder:
        given = (world_size, free_port(), folder, function, arguments)
        start_processes(_rank, given, world_size, start_method="forkserver")
        paths = [Path(folder) / f"{rank}.pt" for rank in range(world_size)]
        return [torch.load(path, weights_only=False) for path in paths]


def in_fresh_process(function: Callable[..., Any], *arguments: Any) -> Any:
    """What `function(*arguments)` returned in a process that has done nothing yet."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "result.pt"
        start_processes(_alone, (path, function, arguments), 1, start_method="forkserver")
        return torch.load(path, weights_only=False)


@dataclass(frozen=True)
class TrainerCommand:
    """`python -m trainer` under way, without the start of a Python.

    Attributes:
        folder: where its two streams are written.
    """

    process: BaseProcess
    folder: Path

    def wait(self, timeout: float = 120) -> subprocess.CompletedProcess[str]:
        """Its exit code and what it wrote, once it ended."""
        self.process.join(timeout)
        assert self.process.exitcode is not None, f"it still runs after {timeout} s"
        out, err = ((self.folder / name).read_text() for name in ("stdout", "stderr"))
        return subprocess.CompletedProcess([], self.process.exitcode, out, err)


def start_trainer(
    words: list[str], folder: Path, *, max_file_bytes: int = resource.RLIM_INFINITY
) -> TrainerCommand:
    """Begin `python -m trainer WORDS`.

    Args:
        words: of the command line.
        folder: for what it writes to its two streams.
        max_file_bytes: the kernel refuses longer files, as a full disk does.
    """
    folder.mkdir(parents=True, exist_ok=True)
    process = FORKSERVER.Process(target=_trainer, args=(words, folder, max_file_bytes))
    process.start()
    return TrainerCommand(process, folder)


def run_trainer(
    words: list[str], *, max_file_bytes: int = resource.RLIM_INFINITY
) -> subprocess.CompletedProcess[str]:
    """`python -m trainer WORDS` to its end."""
    with tempfile.TemporaryDirectory() as folder:
        return start_trainer(words, Path(folder), max_file_bytes=max_file_bytes).wait()


def as_a_process_of_its_own() -> None:
    """Forget what the server left behind: one thread, and loader workers as Python starts them."""
    multiprocessing.set_start_method(None, force=True)  # else each worker would import torch anew
    torch.set_num_threads(1)


def _alone(rank: int, path: Path, function: Callable[..., Any], arguments: Any) -> None:
    as_a_process_of_its_own()
    torch.save(function(*arguments), path)


def _trainer(words: list[str], folder: Path, max_file_bytes: int) -> None:
    as_a_process_of_its_own()
    for number, name in ((1, "stdout"), (2, "stderr")):
        os.dup2(os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    resource.setrlimit(resource.RLIMIT_FSIZE, (max_file_bytes, max_file_bytes))
    from trainer.__main__ import main

    sys.exit(main(words))


def _rank(
    rank: int, world_size: int, port: int, folder: str, function: Callable[..., Any], given: Any
) -> None:
    as_a_process_of_its_own()
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(world_size))
    address = f"tcp://127.0.0.1:{port}"
    dist.init_process_group("gloo", init_method=address, rank=rank, world_size=world_size)
    torch.save(function(*given), Path(folder) / f"{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()


def free_port() -> int:
    """A port of loopback that nobody listens on."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return int(server.getsockname()[1])
