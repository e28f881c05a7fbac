"""A GPU that is here or reserved is used, or refused in words; never replaced by the CPU."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.support.tiny_config import TINY
from trainer.cli import run_command_line
from trainer.hardware import gpu
from trainer.hardware.gpu import (
    Card,
    GpuFacts,
    check_device,
    gpu_facts,
    judge,
    requested_by,
    supports,
)

# As torch 2.13 of PyPI says of itself, on Linux.
CU130 = ("sm_75", "sm_80", "sm_86", "sm_90", "sm_100", "sm_120", "compute_120")
V100, A100, L40 = Card("Tesla V100", (7, 0)), Card("A100", (8, 0)), Card("L40", (8, 9))
SOUND = GpuFacts(
    device_files=("/dev/nvidia0",),
    driver="580.65.06",
    cards=(A100,),
    num_usable=1,
    torch="2.13.0",
    torch_cuda="13.0",
    architectures=CU130,
)
NEEDS = "torch 2.13.0 (CUDA 13.0, driver 580 or newer, compute capability 7.5 or newer)"
WITHOUT_CUDA = {"torch": "2.13.0+cpu", "torch_cuda": "", "architectures": (), "num_usable": 0}
NO_CARD = {"device_files": (), "cards": (), "num_usable": 0, "driver": ""}


@pytest.mark.parametrize(
    ("changes", "state", "is_fault", "text"),
    [
        ({}, "works", False, f"{NEEDS}: A100 (8.0)"),
        ({"requested": "gpus_per_rank=1"}, "works", False, "A100"),
        ({"cards": (V100,)}, "card too old", True, f"{NEEDS} has no code for Tesla V100 (7.0)"),
        ({"num_usable": 0, "cards": (V100,)}, "card too old", True, "Tesla V100 (7.0)"),
        (
            {"cards": (Card("R100", (13, 0)),), "architectures": CU130[:-1]},
            "card too new",
            True,
            "has no code for R100 (13.0)",
        ),
        (WITHOUT_CUDA, "wheel without CUDA", True, "torch 2.13.0+cpu is a wheel without CUDA"),
        (
            {"num_usable": 0, "driver": "535.129.03"},
            "driver too old",
            True,
            f"driver 535.129.03 is too old for {NEEDS}",
        ),
        ({"num_usable": 0, "driver": ""}, "no driver", True, "/dev/nvidia0 without a driver"),
        ({"num_usable": 0, "complaint": "Error 802"}, "broken", True, "Error 802"),
        (NO_CARD, "no card", False, NEEDS),
        ({**NO_CARD, "requested": "SLURM_JOB_GPUS=0"}, "no card", True, "no card is here"),
        ({**NO_CARD, **WITHOUT_CUDA}, "no card", False, "driver 580 or newer"),
        (
            {**NO_CARD, **WITHOUT_CUDA, "requested": "gpus_per_rank=1"},
            "wheel without CUDA",
            True,
            "without CUDA",
        ),
        ({"num_usable": 0, "is_hidden": True}, "hidden", False, "hides every card"),
        (
            {"num_usable": 0, "is_hidden": True, "requested": "SLURM_JOB_GPUS=0"},
            "hidden",
            True,
            "hides every card",
        ),
        ({"torch_cuda": "6.2", "architectures": ("gfx90a",)}, "works", False, "(CUDA 6.2): A100"),
    ],
)
def test_the_verdict_names_the_cause(
    changes: dict[str, object], state: str, is_fault: bool, text: str
) -> None:
    verdict = judge(replace(SOUND, **changes))

    assert (verdict.state, verdict.is_fault) == (state, is_fault)
    assert text in verdict.text
    assert bool(verdict.advice) is (state != "works")


@pytest.mark.parametrize(
    ("capability", "architectures", "runs"),
    [
        ((7, 0), CU130, False),
        ((7, 5), CU130, True),
        ((8, 9), CU130, True),  # sm_86 of the same major version
        ((12, 1), CU130, True),
        ((13, 0), CU130, True),  # compiled from compute_120
        ((13, 0), CU130[:-1], False),
        ((8, 0), ("sm_86",), False),  # newer code of the same major version
        ((9, 0), ("sm_90a",), True),
        ((9, 1), ("sm_90a",), False),
        ((7, 0), (), True),
    ],
)
def test_code_runs_where_cuda_says_it_does(
    capability: tuple[int, int], architectures: tuple[str, ...], runs: bool
) -> None:
    assert supports(capability, architectures) is runs


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, ""),
        ({"SLURM_JOB_GPUS": "0", "CUDA_VISIBLE_DEVICES": "0"}, "SLURM_JOB_GPUS=0"),
        ({"SLURM_STEP_GPUS": "3"}, "SLURM_STEP_GPUS=3"),
        ({"SLURM_GPUS_ON_NODE": "2"}, "SLURM_GPUS_ON_NODE=2"),
        ({"SLURM_GPUS_ON_NODE": "0"}, ""),
        ({"CUDA_VISIBLE_DEVICES": "0"}, "CUDA_VISIBLE_DEVICES=0"),
        ({"CUDA_VISIBLE_DEVICES": "GPU-8932f937"}, "CUDA_VISIBLE_DEVICES=GPU-8932f937"),
        ({"CUDA_VISIBLE_DEVICES": ""}, ""),
        ({"CUDA_VISIBLE_DEVICES": "-1"}, ""),
        ({"CUDA_VISIBLE_DEVICES": "NoDevFiles"}, ""),
    ],
)
def test_a_reservation_is_read_from_the_environment(
    environment: dict[str, str], expected: str
) -> None:
    assert requested_by(environment) == expected


def test_the_facts_of_this_process_are_torch_s() -> None:
    facts = gpu_facts()

    assert facts.torch == torch.__version__
    assert (facts.num_usable > 0) == torch.cuda.is_available()
    assert (judge(facts).state == "works") == torch.cuda.is_available()


@pytest.mark.parametrize(
    "launcher", [{}, {"RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "2"}], ids=["alone", "torchrun"]
)
def test_a_reserved_gpu_that_torch_cannot_use_is_refused_and_leaves_nothing(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    launcher: dict[str, str],
) -> None:
    reserved = {"SLURM_JOB_GPUS": "99", "CUDA_VISIBLE_DEVICES": "99"}  # unknown to any driver
    for name, value in {**reserved, **launcher}.items():
        monkeypatch.setenv(name, value)
    settings = [word for word in TINY if not word.startswith("run.device")]

    code = run_command_line([*settings, f"run.folder={tmp_path}/outputs/run"])

    (line,) = capsys.readouterr().err.splitlines()
    assert code == 2
    assert "SLURM_JOB_GPUS=99 asks for a GPU, which torch cannot use: " in line
    assert "run.device=cpu (and gpus_per_rank=0)" in line
    assert list(tmp_path.iterdir()) == []


def test_who_wants_the_cpu_gets_it_beside_a_reserved_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_GPUS", "0")

    assert check_device("cpu", requested="gpus_per_rank=1") == "cpu"


def test_a_refusal_names_the_setting_that_the_user_wrote(monkeypatch: pytest.MonkeyPatch) -> None:
    def facts(*, requested: str, index: int | None) -> GpuFacts:
        return replace(SOUND, requested=requested, num_usable=0, cards=(V100,))

    monkeypatch.setattr(gpu, "gpu_facts", facts)

    with pytest.raises(gpu.DeviceError, match=r"device=cuda asks .* use the CPU: device=cpu\.$"):
        check_device("cuda", setting="device")
    with pytest.raises(gpu.DeviceError, match=r"run.device=cuda asks .* CPU: run\.device=cpu \("):
        check_device("cuda")
