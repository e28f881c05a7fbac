"""Every failure has a class, and every class its policy."""

import errno

import pytest
import torch

from datasets.errors import DataError
from orchestrator.failures import (
    POLICIES,
    UNLIMITED,
    Budget,
    Failure,
    advice_on,
    classify,
    next_memory,
)
from trainer.checkpoint import CheckpointError
from trainer.config.schema import Memory
from trainer.hardware.gpu import DeviceError
from trainer.loop import Diverged


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (DataError("mask 7.png is missing"), Failure.bad_data),
        (CheckpointError("another configuration"), Failure.bad_config),
        (DeviceError("the driver is too old"), Failure.no_device),
        (ValueError("a split with fewer images than a batch"), Failure.bad_config),
        (Diverged("step 3"), Failure.diverged),
        (torch.OutOfMemoryError("CUDA out of memory"), Failure.out_of_memory),
        (MemoryError(), Failure.out_of_memory),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), Failure.out_of_memory),
        (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), Failure.out_of_memory),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), Failure.out_of_memory),
        (OSError(errno.ENOSPC, "No space left on device"), Failure.disk_full),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), Failure.disk_full),
        (RuntimeError("[enforce fail] write: No space left on device"), Failure.disk_full),
        (OSError(errno.EACCES, "Permission denied"), Failure.bug),
        (RuntimeError("Connection closed by peer [127.0.0.1]:5"), Failure.node_lost),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), Failure.bug),
        (ZeroDivisionError(), Failure.bug),
    ],
)
def test_an_exception_has_its_class(error: Exception, expected: Failure) -> None:
    assert classify(error) is expected


FULL_CARD = torch.OutOfMemoryError("CUDA out of memory")
FULL_HOST = RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: 9 bytes")


@pytest.mark.parametrize(
    ("error", "rungs"),
    [
        (FULL_CARD, [Memory.recompute, Memory.offload, None]),
        (RuntimeError("CUBLAS_STATUS_ALLOC_FAILED"), [Memory.recompute, Memory.offload, None]),
        (FULL_HOST, [Memory.recompute, None, None]),
        (MemoryError(), [Memory.recompute, None, None]),
        (OSError(errno.ENOMEM, "mmap"), [Memory.recompute, None, None]),
        (Diverged("step 3"), [None, None, None]),
    ],
)
def test_a_run_without_memory_takes_the_next_rung(
    error: Exception, rungs: list[Memory | None]
) -> None:
    assert [next_memory(error, memory) for memory in Memory] == rungs


def test_every_class_has_a_policy() -> None:
    assert set(POLICIES) == set(Failure)


@pytest.mark.parametrize(
    "failure", [Failure.bug, Failure.bad_data, Failure.bad_config, Failure.diverged]
)
def test_what_would_only_fail_again_is_not_retried(failure: Failure) -> None:
    assert not Budget.fresh().allows(failure, step=100, limit=9)


def test_a_lost_process_is_retried_five_times() -> None:
    budget = Budget.fresh()

    answers = [budget.allows(Failure.node_lost, step=None) for _ in range(6)]

    assert answers == [True] * 5 + [False]


def test_a_checkpoint_that_advanced_gives_the_retries_back() -> None:
    budget = Budget.fresh()

    answers = [budget.allows(Failure.node_lost, step=step) for step in range(50)]

    assert all(answers)


def test_preemption_is_never_counted() -> None:
    budget = Budget.fresh()

    assert POLICIES[Failure.preempted].retries == UNLIMITED
    assert all(budget.allows(Failure.preempted, step=None, limit=0) for _ in range(50))


def test_a_limit_on_the_command_line_replaces_the_number_of_the_class() -> None:
    assert not Budget.fresh().allows(Failure.node_lost, step=None, limit=0)
    assert Budget.fresh().allows(Failure.out_of_memory, step=None, limit=2)


@pytest.mark.parametrize(
    "text",
    [
        "1 worker(s) were killed due to the node running low on memory.",
        "job 7 on n1 ended as OUT_OF_MEMORY",
        "RuntimeError: [enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate",
        "MemoryError: ",
    ],
)
def test_a_host_without_memory_is_no_matter_of_the_card(text: str) -> None:
    advice = advice_on(Failure.out_of_memory, text)

    assert "concurrency=1" in advice
    assert "card" not in advice
    for option in ("cpus_per_rank", "run.loader_workers", "slurm.memory_gb", "data.crop"):
        assert option in advice


def test_a_card_without_memory_gets_the_advice_of_the_ladder() -> None:
    text = "OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB."

    assert advice_on(Failure.out_of_memory, text) == POLICIES[Failure.out_of_memory].advice
