"""How large a card is, by its name and by nvidia-smi."""

from pathlib import Path

import pytest

from trainer.hardware.card_memory import memory_here, memory_of


@pytest.mark.parametrize(
    ("name", "gib"),
    [
        ("a100", 80.0),  # of 40 and 80 the larger
        ("nvidia_a100-sxm4-40gb", 40.0),
        ("A100-40G", 40.0),
        ("a100_3g.20gb", 20.0),  # a part of a card
        ("A10G", 24.0),
        ("tesla_v100", 32.0),
        ("nvidia_geforce_rtx_3090", 24.0),
        ("NVIDIA H100 80GB HBM3", 80.0),
        ("l40s", 48.0),
        ("L4", 24.0),
        ("big", None),
        ("a1000", None),
        ("", None),
    ],
)
def test_a_name_says_how_large_a_card_is(name: str, gib: float | None) -> None:
    assert memory_of(name) == gib


@pytest.mark.parametrize(
    ("answer", "gib"), [("echo 40960; echo 81920", 80.0), ("echo no devices; exit 9", None)]
)
def test_nvidia_smi_is_asked_for_the_largest_card_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: str, gib: float | None
) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text(f"#!/bin/sh\n{answer}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))

    assert memory_here() == gib


def test_without_nvidia_smi_nothing_is_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))

    assert memory_here() is None
