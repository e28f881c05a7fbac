"""The switches, and what happens when somebody turned one off."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests.support.process_groups import in_fresh_process, run_ranks, run_trainer
from tests.support.tiny_config import tiny_config
from trainer import determinism
from trainer.config.compose import compose
from trainer.config.fingerprint import fingerprint
from trainer.config.schema import TrainConfig
from trainer.distributed import Ranks
from trainer.run import train


def switches_after_enabling() -> list[object]:
    torch.set_num_threads(1)
    determinism.enable_determinism(compose(["run.threads=2"]))
    return [
        torch.are_deterministic_algorithms_enabled(),
        torch.backends.cudnn.deterministic,
        torch.backends.cudnn.benchmark,
        torch.backends.cudnn.allow_tf32,
        torch.utils.deterministic.fill_uninitialized_memory,
        torch.get_num_threads(),
    ]


def test_every_switch_is_set() -> None:
    assert in_fresh_process(switches_after_enabling) == [True, True, False, False, False, 2]


UNDONE: list[tuple[Callable[[], object], str]] = [
    (lambda: torch.set_deterministic_debug_mode("default"), "use_deterministic_algorithms"),
    (lambda: torch.use_deterministic_algorithms(True, warn_only=True), "use_deterministic"),
    (lambda: setattr(torch.backends.cudnn, "benchmark", True), "cudnn.benchmark"),
    (lambda: setattr(torch.backends.cudnn, "deterministic", False), "cudnn.deterministic"),
    (lambda: setattr(torch.backends.cudnn, "allow_tf32", True), "cudnn.allow_tf32"),
    (lambda: setattr(torch.backends.cuda.matmul, "allow_tf32", True), "matmul.allow_tf32"),
    (lambda: torch.set_num_threads(2), "1 CPU threads"),
    (lambda: os.environ.update(CUBLAS_WORKSPACE_CONFIG=":0:0"), "CUBLAS_WORKSPACE_CONFIG"),
]


def messages_of_switches_that_are_off() -> list[str]:
    config = compose([])
    messages = []
    for undo, _ in UNDONE:
        os.environ.pop("CUBLAS_WORKSPACE_CONFIG", None)
        determinism.enable_determinism(config)
        undo()
        with pytest.raises(determinism.NotDeterministicError) as refused:
            determinism.verify(config)
        messages.append(str(refused.value))
    return messages


def test_a_switch_that_is_off_is_named() -> None:
    messages = in_fresh_process(messages_of_switches_that_are_off)

    for message, (_, name) in zip(messages, UNDONE, strict=True):
        assert message.startswith("Not deterministic:")
        assert name in message


HARMFUL = [
    ("OMP_DYNAMIC", "true"),
    ("NCCL_ALGO", "NVLS"),
    ("NCCL_ALGO", "Ring,NVLS"),
    ("CUBLAS_WORKSPACE_CONFIG", ":0:0"),
]


def messages_of_harmful_environments() -> list[str]:
    messages = []
    for name, value in HARMFUL:
        os.environ[name] = value
        with pytest.raises(determinism.NotDeterministicError) as refused:
            determinism.enable_determinism(compose([]))
        messages.append(str(refused.value))
        del os.environ[name]
    return messages


def test_an_environment_that_cannot_repeat_itself_is_refused() -> None:
    messages = in_fresh_process(messages_of_harmful_environments)

    for message, (name, _) in zip(messages, HARMFUL, strict=True):
        assert name in message
        assert "unset" in message.lower()


def nccl_is_up() -> None:
    torch.distributed.get_backend = lambda *_: "nccl"
    torch.distributed.is_initialized = lambda: True


# No card is needed to look as if CUDA or NCCL had been started: the questions are torch's.
STARTED: list[tuple[Callable[[], object], str, str]] = [
    (
        lambda: setattr(torch.cuda, "is_initialized", lambda: True),
        "CUBLAS_WORKSPACE_CONFIG",
        ":4096:8",
    ),
    (nccl_is_up, "NCCL_ALGO", "Ring"),
]


def messages_when_it_is_too_late() -> list[str]:
    messages = []
    for start, name, value in STARTED:
        os.environ.pop(name, None)
        start()
        with pytest.raises(determinism.NotDeterministicError) as refused:
            determinism.enable_determinism(compose([]))
        messages.append(str(refused.value))
        os.environ[name] = value
        determinism.enable_determinism(compose([]))
    return messages


def test_switches_that_come_too_late_are_refused() -> None:
    messages = in_fresh_process(messages_when_it_is_too_late)

    for message, (_, name, value) in zip(messages, STARTED, strict=True):
        assert f"without {name}={value}" in message


def tf32_of_each_precision() -> list[tuple[bool, bool]]:
    chosen = []
    for precision in ("fp32", "tf32", "bf16"):
        determinism.enable_determinism(compose([f"optim.precision={precision}"]))
        backends = torch.backends
        chosen.append((backends.cudnn.allow_tf32, backends.cuda.matmul.allow_tf32))
    return chosen


def test_tf32_is_chosen_and_never_left_to_torch() -> None:
    strict, as_torch_leaves_it = (False, False), (True, False)

    assert in_fresh_process(tf32_of_each_precision) == [strict, *[as_torch_leaves_it] * 2]


def test_precision_is_part_of_the_fingerprint() -> None:
    fingerprints = [
        fingerprint(compose([f"optim.precision={p}"])) for p in ("fp32", "tf32", "bf16")
    ]

    assert len(set(fingerprints)) == 3


def test_a_digest_sees_names_shapes_types_and_bits() -> None:
    x = torch.arange(6.0)
    variants = [{"a": x}, {"b": x}, {"a": x.view(2, 3)}, {"a": x.double()}, {"a": x + 1e-6}]

    digests = [determinism.digest(v) for v in variants]

    assert len(set(digests)) == len(variants)
    assert determinism.digest({"a": x.clone()}) == digests[0]
    by_columns = x.view(2, 3).t().contiguous().t()
    assert determinism.digest({"a": by_columns}) == digests[2]


def gradients_in_two_orders() -> tuple[list[torch.Tensor], list[torch.Tensor], torch.Tensor]:
    rank = torch.distributed.get_rank()
    ranks = Ranks(rank, 3, torch.device("cpu"))
    draws = [
        torch.randn(n, generator=torch.Generator().manual_seed(10 * n + rank)) for n in (5, 1, 7)
    ]
    found = []
    for order in ((0, 1, 2), (2, 0, 1)):
        parameters = [torch.nn.Parameter(torch.zeros_like(draw)) for draw in draws]
        for parameter, draw in zip(parameters, draws, strict=True):
            parameter.grad = draw.clone()
        ranks.sum_gradients([parameters[i] for i in order])
        found.append([p.grad for p in parameters])
    return found[0], found[1], ranks.sum(draws[2])


def test_the_gradient_sum_does_not_depend_on_where_a_parameter_lies() -> None:
    rows = run_ranks(gradients_in_two_orders, 3)

    parts = [
        torch.randn(7, generator=torch.Generator().manual_seed(70 + rank)) for rank in range(3)
    ]
    expected = (parts[0] + parts[1]) + parts[2]  # rank order, left to right
    for first, second, summed in rows:
        assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
        assert torch.equal(first[2], expected)
        assert torch.equal(summed, expected)


def test_cuda_without_a_card_is_refused_before_anything_starts() -> None:
    if torch.cuda.is_available():
        return  # the GPU tests cover this machine
    done = run_trainer(["run.device=cuda"])

    assert done.returncode == 2
    assert "run.device=cuda asks for a GPU, which torch cannot use" in done.stderr


def weights_with_memory_filled(folder: Path, fill: bool) -> str | None:
    enable = determinism.enable_determinism

    def enable_and_fill(config: TrainConfig) -> None:
        enable(config)
        torch.utils.deterministic.fill_uninitialized_memory = fill

    determinism.enable_determinism = enable_and_fill
    config = tiny_config(folder / "data", "loss=kl", "optim.epochs=1")
    return train(config, folder / f"{fill}").weights_sha256


def test_bits_are_the_same_whatever_uninitialised_memory_holds(tmp_path: Path) -> None:
    # Filled with NaN, memory that somebody reads before writing would spoil the loss.
    filled, left = (
        in_fresh_process(weights_with_memory_filled, tmp_path, fill) for fill in (True, False)
    )

    assert len(filled) == 64
    assert filled == left


def test_the_environment_for_workers_leaves_out_nvls() -> None:
    assert "NVLS" not in determinism.ENVIRONMENT["NCCL_ALGO"]
    determinism.enable_determinism(compose([]))
