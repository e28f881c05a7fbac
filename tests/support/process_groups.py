"""Real process groups for tests: gloo over loopback, one process a rank."""

import os
import socket
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as multiprocessing


def run_ranks(function: Callable[..., Any], world_size: int, *arguments: Any) -> list[Any]:
    """What `function(*arguments)` returned on every rank, in rank order.

    A rank that raises makes this raise, with its traceback.
    """
    with tempfile.TemporaryDirectory() as folder:
        given = (world_size, _free_port(), folder, function, arguments)
        multiprocessing.start_processes(_rank, given, world_size, start_method="spawn")
        paths = [Path(folder) / f"{rank}.pt" for rank in range(world_size)]
        return [torch.load(path, weights_only=False) for path in paths]


def _rank(
    rank: int, world_size: int, port: int, folder: str, function: Callable[..., Any], given: Any
) -> None:
    os.environ.update(
        RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(world_size), OMP_NUM_THREADS="1"
    )
    address = f"tcp://127.0.0.1:{port}"
    dist.init_process_group("gloo", init_method=address, rank=rank, world_size=world_size)
    torch.save(function(*given), Path(folder) / f"{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()


def _free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return int(server.getsockname()[1])
