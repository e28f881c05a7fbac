"""The step on several ranks, each in a process of its own with a card of its own."""

import json
import os
import socket
import time
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import torch.distributed as dist
from torch.multiprocessing import (
    ProcessContext,
    ProcessExitedException,
    ProcessRaisedException,
    start_processes,
)

from benchmarks.gpu.entries import FAILED, Line, peak_memory
from benchmarks.gpu.kernels import batch_norm_operators, launched_by
from benchmarks.gpu.steps import WARM_UP
from benchmarks.table import seconds
from benchmarks.two_steps import Case, made_up, ours
from trainer import determinism
from trainer.config.schema import RunConfig
from trainer.distributed import init_process_group


@dataclass(frozen=True)
class Task:
    """What every rank is told.

    Attributes:
        case: with the images of all ranks together.
        answer: the file that rank 0 writes.
    """

    case: Case
    run: RunConfig
    world_size: int
    steps: int
    port: int
    answer: Path


def step_on_ranks(case: Case, run: RunConfig, world_size: int, *, steps: int, limit: float) -> Line:
    """Seconds of a step whose batch the ranks share.

    Args:
        case: with the images of all ranks together.
        run: says the device.
        world_size: number of ranks.
        steps: timed, after those that warm up.
        limit: seconds until the ranks are ended.
    """
    with TemporaryDirectory() as folder:
        answer = Path(folder) / "line.json"
        task = Task(case, run, world_size, steps, _free_port(), answer)
        # Not fork, which CUDA does not survive.
        context = start_processes(_rank, (task,), world_size, join=False, start_method="forkserver")
        assert isinstance(context, ProcessContext)
        problem = _wait(context, limit)
        if problem:
            return Line(FAILED + problem)
        found = json.loads(answer.read_text())
    remark = f"batch norm by {found['operators']}"
    return Line(remark, tuple(found["seconds"]), 2 * case.batch, found["memory"])


def _wait(context: ProcessContext, limit: float) -> str:
    """Wait until all ranks have ended; what went wrong, or nothing."""
    until = time.monotonic() + limit
    try:
        while not context.join(timeout=1.0):
            if time.monotonic() > until:
                return f"no end after {limit:.0f} s"
    except (ProcessExitedException, ProcessRaisedException) as error:
        return str(error).strip().splitlines()[-1]
    finally:
        for process in context.processes:
            process.kill()
            process.join()
    return ""


def _rank(rank: int, task: Task) -> None:
    """One rank: times its steps, and writes them if it is the first."""
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(task.world_size))
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(task.port))
    config = replace(task.case.config, run=task.run)
    determinism.enable_determinism(config)
    ranks = init_process_group(task.run)
    step = ours(config, ranks, task.case.classes)
    share = replace(task.case, batch=task.case.batch // task.world_size)
    labelled, unlabelled = made_up(share, ranks, seed=rank)
    taken = [
        seconds(lambda: step(labelled, unlabelled), ranks.device.type)
        for _ in range(WARM_UP + task.steps)
    ]
    memory = peak_memory(ranks.device)
    names = launched_by(lambda: step(labelled, unlabelled), ranks.device)
    if ranks.is_first:
        found = {"seconds": taken[WARM_UP:], "memory": memory}
        task.answer.write_text(json.dumps(found | {"operators": batch_norm_operators(names)}))
    dist.destroy_process_group()


def _free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return int(server.getsockname()[1])
