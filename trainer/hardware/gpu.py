"""Whether torch can use a GPU here, and if it cannot, why: facts are collected, then judged.

A card that is here, or that Slurm or Ray reserved, is never replaced by the CPU without a word: a
cell would then train for weeks on one core beside an idle card. Who wants the CPU says so.
"""

import os
import shutil
import socket
import subprocess
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from trainer.environment import ENVIRONMENT

# Oldest driver for each major version of CUDA:
# https://docs.nvidia.com/deploy/cuda-compatibility/minor-version-compatibility.html
DRIVER_OF_CUDA = {11: 450, 12: 525, 13: 580}
_ON_PYPI = (
    "the wheel on PyPI is built for CUDA 13 and needs driver 580 or newer and compute capability "
    "7.5 or newer"
)
_HIDING = ("", "-1", "NoDevFiles")  # values of CUDA_VISIBLE_DEVICES that leave no card
_SECONDS = 60.0  # for nvidia-smi; it takes several where the driver has to start first


class DeviceError(ValueError):
    """A GPU is here or was asked for, and torch cannot use it; or none is here that was asked for.

    Every run on this machine meets it; another machine may be sound.
    """


@dataclass(frozen=True)
class Card:
    """A GPU and its compute capability, such as (9, 0)."""

    name: str
    capability: tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class GpuFacts:
    """What is known of the GPUs of this process.

    Attributes:
        device_files: such as /dev/nvidia0, as far as this process may open them.
        driver: its version, such as 580.65.06; empty where none is loaded.
        cards: as torch describes those it uses, else as nvidia-smi does.
        num_usable: how many cards torch counts.
        torch: version of torch.
        torch_cuda: version of CUDA that it was built for; empty in a wheel without CUDA.
        architectures: those it has code for, such as sm_90; empty in a wheel without CUDA.
        requested: what asked for a card, such as SLURM_JOB_GPUS=0; empty if nothing did.
        is_hidden: whether CUDA_VISIBLE_DEVICES hides every card.
        complaint: what torch said when it looked for cards and failed.
    """

    device_files: tuple[str, ...] = ()
    driver: str = ""
    cards: tuple[Card, ...] = ()
    num_usable: int = 0
    torch: str = ""
    torch_cuda: str = ""
    architectures: tuple[str, ...] = ()
    requested: str = ""
    is_hidden: bool = False
    complaint: str = ""


State = Literal[
    "works",
    "no card",
    "hidden",
    "wheel without CUDA",
    "driver too old",
    "no driver",
    "card too old",
    "card too new",
    "broken",
]


@dataclass(frozen=True)
class Verdict:
    """What the facts mean.

    Attributes:
        state: the cause, for programs.
        text: the same for a person, with the versions that it follows from.
        advice: what to do; empty where it works.
        is_fault: a card is here or was asked for, so the CPU is no answer.
    """

    state: State
    text: str
    advice: str = ""
    is_fault: bool = False


def judge(facts: GpuFacts) -> Verdict:
    """Whether torch can use the cards, and the first cause that forbids it."""
    is_here = bool(facts.device_files or facts.cards or facts.num_usable)
    is_fault = bool(facts.requested) or (is_here and not facts.is_hidden)
    state = _state_of(facts, is_here=is_here)
    if state == "works":
        return Verdict(state, f"{_wheel(facts)}: {_names(facts.cards)}")
    text, advice = {
        "no card": (
            f"no card is here; {_wheel(facts) if facts.torch_cuda else _ON_PYPI}",
            "In a container, pass the cards on (docker --gpus all, apptainer --nv).",
        ),
        "hidden": ("CUDA_VISIBLE_DEVICES hides every card", "Unset it to use them."),
        "wheel without CUDA": (
            f"torch {facts.torch} is a wheel without CUDA",
            f"Install the same version with CUDA; {_ON_PYPI}, others: https://pytorch.org.",
        ),
        "driver too old": (
            f"driver {facts.driver} is too old for {_wheel(facts)}",
            f"Install driver {_oldest_driver(facts)} or newer, or the same torch built for an "
            "older CUDA.",
        ),
        "no driver": (
            f"{', '.join(facts.device_files) or 'a card'} without a driver that answers",
            "Start the driver (nvidia-smi must list the card), or ask the site.",
        ),
        "card too old": (
            f"{_wheel(facts)} has no code for {_names(_unsupported(facts))}",
            "Use another card (CUDA_VISIBLE_DEVICES chooses), or the same torch built for an older "
            "CUDA.",
        ),
        "card too new": (
            f"{_wheel(facts)} has no code for {_names(_unsupported(facts))}",
            "Install torch built for a newer CUDA, or a newer torch.",
        ),
        "broken": (
            f"{_wheel(facts)}, driver {facts.driver}: {facts.complaint or 'CUDA does not start'}",
            "Try nvidia-smi; the card may be lost or taken, CUDA_VISIBLE_DEVICES may name one that "
            "is not here, or the container lacks libcuda (apptainer --nv).",
        ),
    }[state]
    return Verdict(state, text, advice, is_fault)


def _state_of(facts: GpuFacts, *, is_here: bool) -> State:
    """The first of the causes that holds; each makes the later ones meaningless."""
    causes: tuple[tuple[bool, State], ...] = (
        (bool(facts.num_usable and not _unsupported(facts)), "works"),
        (bool(facts.num_usable), _fault_of_cards(facts)),
        (facts.is_hidden, "hidden"),
        (not is_here and not facts.requested, "no card"),
        (not facts.torch_cuda, "wheel without CUDA"),
        (not is_here, "no card"),
        (not facts.driver, "no driver"),
        (_major(facts.driver) < _oldest_driver(facts), "driver too old"),
        (bool(_unsupported(facts)), _fault_of_cards(facts)),
    )
    return next((state for holds, state in causes if holds), "broken")


def _fault_of_cards(facts: GpuFacts) -> State:
    """On which side of torch's code the cards without code lie."""
    newest = max(map(_capability_of, _cuda_code(facts.architectures)), default=(0, 0))
    is_newer = all(card.capability > newest for card in _unsupported(facts))
    return "card too new" if is_newer else "card too old"


def supports(capability: tuple[int, int], architectures: Sequence[str]) -> bool:
    """Whether code for these architectures runs on a card.

    Compiled code (sm_86) runs on the same major version from its minor version on; sm_90a on that
    one alone. Intermediate code (compute_120) is compiled for any later card. Other names, such as
    AMD's gfx90a, are not judged.
    """
    judged = _cuda_code(architectures)
    return not judged or any(_runs_on(capability, name) for name in judged)


def _cuda_code(architectures: Sequence[str]) -> list[str]:
    return [name for name in architectures if name.startswith(("sm_", "compute_"))]


def _runs_on(capability: tuple[int, int], architecture: str) -> bool:
    version = _capability_of(architecture)
    if architecture.startswith("compute_"):
        return version <= capability
    if architecture.endswith("a"):
        return version == capability
    return version[0] == capability[0] and version <= capability


def _unsupported(facts: GpuFacts) -> tuple[Card, ...]:
    return tuple(card for card in facts.cards if not supports(card.capability, facts.architectures))


def _oldest_driver(facts: GpuFacts) -> int:
    """The oldest driver branch for torch's CUDA; of an unknown one none is too old."""
    return DRIVER_OF_CUDA.get(_major(facts.torch_cuda), 0)


def _major(version: str) -> int:
    head = version.partition(".")[0]
    return int(head) if head.isdecimal() else 0


def _wheel(facts: GpuFacts) -> str:
    """Torch with what it needs of a machine."""
    if not facts.torch_cuda:
        return f"torch {facts.torch} without CUDA"
    needs = [f"CUDA {facts.torch_cuda}"]
    if _oldest_driver(facts):
        needs.append(f"driver {_oldest_driver(facts)} or newer")
    codes = _cuda_code(facts.architectures)
    if codes:
        major, minor = min(map(_capability_of, codes))
        needs.append(f"compute capability {major}.{minor} or newer")
    return f"torch {facts.torch} ({', '.join(needs)})"


def _capability_of(architecture: str) -> tuple[int, int]:
    """The compute capability in a name: (9, 0) of sm_90a."""
    return divmod(int(architecture.partition("_")[2].rstrip("af")), 10)


def _names(cards: Sequence[Card]) -> str:
    return ", ".join(f"{card.name} ({card.capability[0]}.{card.capability[1]})" for card in cards)


def gpu_facts(*, requested: str = "", index: int | None = None) -> GpuFacts:
    """The facts of this process and this machine.

    Args:
        requested: what asks for a card, besides the variables of Slurm and CUDA.
        index: of the card that this rank uses, modulo their number; None for all.
    """
    import torch  # here, so that a verdict on plain facts needs no torch

    # CUDA may start below, and reads these once.
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    is_hidden = os.environ.get("CUDA_VISIBLE_DEVICES") in _HIDING
    with warnings.catch_warnings(record=True) as complaints:  # torch's only way to say why
        warnings.simplefilter("always")
        num_usable = torch.cuda.device_count() if torch.cuda.is_available() else 0
        cards = tuple(
            Card(torch.cuda.get_device_name(i), torch.cuda.get_device_capability(i))
            for i in range(num_usable)
            if index is None or i == index % num_usable
        )
    driver = ""
    if not num_usable and not is_hidden:
        driver, cards = _asked_of_nvidia_smi()
    return GpuFacts(
        device_files=_device_files(),
        driver=driver or _loaded_driver(),
        cards=cards,
        num_usable=num_usable,
        torch=torch.__version__,
        torch_cuda=torch.version.cuda or torch.version.hip or "",
        architectures=tuple(torch.cuda.get_arch_list()),
        requested=requested or requested_by(os.environ),
        is_hidden=is_hidden,
        complaint=str(complaints[0].message).partition("\n")[0] if complaints else "",
    )


def requested_by(environment: Mapping[str, str]) -> str:
    """The variable by which Slurm, Ray or a person gives this process a card; empty without one."""
    for name in ("SLURM_JOB_GPUS", "SLURM_STEP_GPUS", "SLURM_GPUS_ON_NODE", "CUDA_VISIBLE_DEVICES"):
        value = environment.get(name, "")
        is_count = name == "SLURM_GPUS_ON_NODE"
        if value not in _HIDING and not (is_count and value == "0"):
            return f"{name}={value}"
    return ""


def _device_files() -> tuple[str, ...]:
    """The cards' files; not those that a job without a card may not open."""
    names = sorted(str(path) for path in Path("/dev").glob("nvidia[0-9]*"))
    return tuple(name for name in names if _may_open(name))


def _may_open(name: str) -> bool:
    """Whether opening is permitted: Slurm's control groups forbid it, whatever the file's mode."""
    try:
        os.close(os.open(name, os.O_RDWR))
    except PermissionError:
        return False
    except OSError:
        return True  # permitted, and the driver does not answer
    return True


def _loaded_driver() -> str:
    """Version of the loaded kernel module, such as 580.65.06; empty without one."""
    try:
        words = Path("/proc/driver/nvidia/version").read_text().partition("\n")[0].split()
    except OSError:
        return ""
    return next((word for word in words if word.replace(".", "").isdecimal() and "." in word), "")


def _asked_of_nvidia_smi() -> tuple[str, tuple[Card, ...]]:
    """The driver's version and the cards; empty without nvidia-smi or without an answer."""
    if shutil.which("nvidia-smi") is None:
        return "", ()
    query = ["nvidia-smi", "--query-gpu=driver_version,compute_cap,name", "--format=csv,noheader"]
    try:
        answer = subprocess.run(
            query, capture_output=True, text=True, check=False, timeout=_SECONDS
        )
    except (OSError, subprocess.TimeoutExpired):
        return "", ()
    lines = [line.split(", ", 2) for line in answer.stdout.splitlines()]
    rows = [line for line in lines if len(line) == 3 and line[1].replace(".", "").isdecimal()]
    cards = tuple(Card(name, _version(capability)) for _, capability, name in rows)
    return (rows[0][0] if rows else ""), cards


def _version(text: str) -> tuple[int, int]:
    major, _, minor = text.partition(".")
    return int(major), int(minor or 0)


def check_device(
    device: str, *, requested: str = "", index: int | None = None, setting: str = "run.device"
) -> str:
    """The device that `run.device` means here: cpu or cuda.

    Args:
        device: auto, cpu or cuda.
        requested: what asks for a card, besides the variables of Slurm and CUDA.
        index: of the card that this rank uses, modulo their number; None for all.
        setting: by which the user chose the device, for errors.

    Raises:
        DeviceError: a card is here or was asked for, and torch cannot use it.
    """
    if device == "cpu":
        return "cpu"
    asked = f"{setting}=cuda" if device == "cuda" else requested
    facts = gpu_facts(requested=asked, index=index)
    verdict = judge(facts)
    if verdict.is_fault:
        ways_to_cpu = f"use the CPU: {setting}=cpu"
        if setting == "run.device":
            ways_to_cpu = "train on the CPU: run.device=cpu (and gpus_per_rank=0)"
        why = f"{facts.requested} asks for a GPU" if facts.requested else "This machine has a GPU"
        raise DeviceError(
            f"{socket.gethostname()}: {why}, which torch cannot use: {verdict.text}. "
            f"{verdict.advice} Or {ways_to_cpu}."
        )
    return "cuda" if verdict.state == "works" else "cpu"
