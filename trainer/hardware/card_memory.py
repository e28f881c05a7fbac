"""How much memory a card has: as nvidia-smi says here, or by the name that a cluster gives it."""

import re
import subprocess

_SECONDS = 60.0  # for nvidia-smi; it takes several where the driver has to start first


def memory_here() -> float | None:
    """GiB of the largest card of this machine; None without a card or without an answer."""
    query = ["nvidia-smi", "--query-gpu=memory.total", "--format=csv,noheader,nounits"]
    try:
        answer = subprocess.run(
            query, capture_output=True, text=True, check=False, timeout=_SECONDS
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    sizes = [float(line) for line in answer.stdout.split() if line.isdecimal()]  # MiB
    return max(sizes) / 2**10 if sizes else None


def memory_of(name: str) -> float | None:
    """GiB of a card by the name that Slurm or Ray gives it, such as nvidia_a100_80gb or A100-40G.

    A size in the name counts. Of a card that is sold with several sizes the largest is taken.

    Returns:
        None for a name that says nothing.
    """
    text = name.lower()
    # Of a part of a card, a100_3g.20gb, the second number.
    size = re.search(r"(?<![a-z0-9])(\d+)gb?(?![a-z0-9.])", text)
    if size:
        return float(size[1])
    text = re.sub(r"[^a-z0-9]", "", text)
    models = [model for model in _GIB if re.search(rf"{model}(?!\d)", text)]
    return _GIB[max(models, key=len)] if models else None


# Data sheets of NVIDIA, in GB as they are sold, which is what nvidia-smi calls GiB within 10 %.
_GIB = {
    "p100": 16.0,
    "v100": 32.0,
    "t4": 16.0,
    "rtx2080ti": 11.0,
    "rtx3090": 24.0,
    "rtx4090": 24.0,
    "rtx5090": 32.0,
    "a10": 24.0,
    "a10g": 24.0,
    "a30": 24.0,
    "a40": 48.0,
    "a5000": 24.0,
    "a6000": 48.0,
    "a100": 80.0,
    "l4": 24.0,
    "l40": 48.0,
    "l40s": 48.0,
    "h100": 94.0,
    "h200": 141.0,
    "gh200": 141.0,
    "b200": 192.0,
}
