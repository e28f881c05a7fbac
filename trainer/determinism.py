"""Deterministic training: torch's switches are set and checked, and weights get a digest.

Sec. IV-B asks for torch.use_deterministic_algorithms(True). That alone does not cover cuBLAS, NCCL,
TF32 and the number of threads, so these are fixed here as well (A26 of docs/ambiguities.md).
"""

import hashlib
import os
from collections.abc import Mapping

import torch
import torch.distributed as dist
from torch import Tensor

from trainer.config.schema import Precision, TrainConfig
from trainer.environment import ENVIRONMENT

CUBLAS_WORKSPACES = (":4096:8", ":16:8")  # those that cuBLAS documents as reproducible


class NotDeterministicError(RuntimeError):
    """A setting that byte-identical runs need cannot be had in this process."""


def enable_determinism(config: TrainConfig) -> None:
    """Set every switch, then verify each as torch reports it.

    Must come before the first CUDA call and before the process group is made.

    Raises:
        NotDeterministicError: the process is already configured in a way that cannot repeat itself.
    """
    if os.environ.get("OMP_DYNAMIC", "").lower() in ("true", "1"):
        raise NotDeterministicError(
            "OMP_DYNAMIC is set: OpenMP may then change the number of threads between steps "
            "(and can hang torch). Unset it and start again."
        )
    if "NVLS" in os.environ.get("NCCL_ALGO", "").upper():
        raise NotDeterministicError(
            f"NCCL_ALGO={os.environ['NCCL_ALGO']} allows NVLS, whose sums are not repeatable; "
            "unset it, or use NCCL_ALGO=Ring."
        )
    _refuse_late_start()
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    # use_deterministic_algorithms(True) is the same switch and imports the compiler: 1 s a process.
    torch.set_deterministic_debug_mode("error")
    # Filling every empty tensor with NaN costs up to 15 % of a step and changes no bit.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    # The search for the fastest kernel measures time, so two runs may choose differently.
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.allow_tf32 = _allows_tf32(config)
    # As torch leaves it, and so the UniMatch code: only convolutions round to TF32. Our matrix
    # products are those of bilinear up-sampling, whose weights TF32 would round.
    torch.backends.cuda.matmul.allow_tf32 = False
    # Each thread sums a share, so their number decides the order of additions.
    torch.set_num_threads(config.run.threads)
    verify(config)


def _allows_tf32(config: TrainConfig) -> bool:
    """Whether convolutions of float32 may round what they multiply to 10 bits of mantissa."""
    return config.optim.precision is not Precision.fp32


def _refuse_late_start() -> None:
    """Raise if cuBLAS or NCCL started without its variable: they read it only once, at start."""
    started = []
    cuda = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    if cuda and "CUBLAS_WORKSPACE_CONFIG" not in os.environ:
        started.append(("CUDA", "CUBLAS_WORKSPACE_CONFIG"))
    grouped = dist.is_available() and dist.is_initialized()
    if grouped and "nccl" in dist.get_backend() and "NCCL_ALGO" not in os.environ:
        started.append(("NCCL's process group", "NCCL_ALGO"))
    for what, name in started:
        raise NotDeterministicError(
            f"{what} was started in this process before the run, without {name}="
            f"{ENVIRONMENT[name]}. Export it first, or start the run in a process of its own."
        )


def verify(config: TrainConfig) -> None:
    """Check every switch as torch reports it.

    Raises:
        NotDeterministicError: names the switch that is off.
    """
    tf32 = _allows_tf32(config)
    facts = {
        "torch.use_deterministic_algorithms(True)": (
            torch.are_deterministic_algorithms_enabled()
            and not torch.is_deterministic_algorithms_warn_only_enabled()
        ),
        "torch.backends.cudnn.benchmark = False": not torch.backends.cudnn.benchmark,
        "torch.backends.cudnn.deterministic = True": torch.backends.cudnn.deterministic,
        f"torch.backends.cudnn.allow_tf32 = {tf32}": torch.backends.cudnn.allow_tf32 == tf32,
        "torch.backends.cuda.matmul.allow_tf32 = False": (
            not torch.backends.cuda.matmul.allow_tf32
        ),
        f"{config.run.threads} CPU threads": torch.get_num_threads() == config.run.threads,
        f"CUBLAS_WORKSPACE_CONFIG = {' or '.join(CUBLAS_WORKSPACES)}": (
            os.environ.get("CUBLAS_WORKSPACE_CONFIG") in CUBLAS_WORKSPACES
        ),
    }
    missing = [name for name, holds in facts.items() if not holds]
    if missing:
        raise NotDeterministicError(
            f"Not deterministic: {'; '.join(missing)} does not hold. Something changed it before "
            "or in this process; start the run in a process of its own, and unset such variables."
        )


_WORDS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
_WORDS_AT_ONCE = 2**22


def checksums(tensors: Mapping[str, Tensor]) -> Tensor:
    """One number per tensor, int64 (N,), by which ranks compare their copies of it.

    Computed where the tensors are, without waiting for the device. Words count by their place, so
    that rows in another order make another number. Whole numbers wrap, so the order of the sum is
    free.
    """
    return torch.stack([_checksum(tensor) for tensor in tensors.values()])


def _checksum(tensor: Tensor) -> Tensor:
    flat = tensor.detach().contiguous().view(-1).view(_WORDS[tensor.element_size()])
    total = torch.zeros((), dtype=torch.int64, device=flat.device)
    place = torch.arange(1, min(len(flat), _WORDS_AT_ONCE) + 1, device=flat.device)
    for number, first in enumerate(range(0, len(flat), _WORDS_AT_ONCE)):
        part = flat[first : first + _WORDS_AT_ONCE]
        total += (part * place[: len(part)]).sum() * (2 * number + 1)
    return total


def digest(tensors: Mapping[str, Tensor]) -> str:
    """Sha256 over names, types, shapes and bytes of tensors, in order of name.

    Equal digests mean equal weights to the last bit; tests and results compare runs by it.
    """
    sha256 = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        sha256.update(f"{name}|{tensor.dtype}|{tuple(tensor.shape)}|".encode())
        sha256.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return sha256.hexdigest()
