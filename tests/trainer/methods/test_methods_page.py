"""The method of the page on writing one, taken from it, trains, resumes and is scored."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from tests.support.tiny_config import tiny_config
from tests.trainer.test_resume import in_pieces, straight
from trainer.inference import load_trained
from trainer.method_registry import METHODS, MethodFacts
from trainer.run import train

PAGE = Path(__file__).resolve().parents[3] / "docs" / "developing" / "writing_a_method.md"


def leaves(values: dict[str, Any], prefix: str = "") -> list[str]:
    """Nested values as overrides."""
    words = []
    for name, value in values.items():
        inner = isinstance(value, dict)
        words += leaves(value, f"{prefix}{name}.") if inner else [f"{prefix}{name}={value}"]
    return words


@pytest.fixture
def overrides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The file, the line and the YAML of the page, brought into place."""
    blocks = re.findall(r"```(python|yaml)\n(.*?)```", PAGE.read_text(), re.DOTALL)
    (_, source), (_, line), (_, preset) = blocks
    (tmp_path / "class_thresholds.py").write_text(source)
    monkeypatch.syspath_prepend(str(tmp_path))
    line = line.replace("trainer.methods.class_thresholds.", "class_thresholds.")
    for name, facts in eval(f"{{{line}}}", {"MethodFacts": MethodFacts}).items():
        monkeypatch.setitem(METHODS, name, facts)
    return [*leaves(yaml.safe_load(preset)), "loss=kl", "optim.epochs=2", "method.confidence=0.3"]


def test_the_method_of_the_page_trains_resumes_and_is_deployed(
    drawn_root: Path, tmp_path: Path, overrides: list[str]
) -> None:
    expected = straight(drawn_root, tmp_path / "straight", overrides)

    assert in_pieces(drawn_root, tmp_path / "pieces", overrides, [1, 2, 1]) == expected
    path = tmp_path / "straight" / "checkpoints" / "step-00000006.pt"
    tensors = torch.load(path, weights_only=True)["tensors"]
    assert 0.0 < tensors["memory.sureness"].min() < tensors["memory.sureness"].max() <= 1.0
    weights = load_trained(path).network.state_dict()
    assert torch.equal(weights["classifier.weight"], tensors["network.teacher.classifier.weight"])
    assert not torch.equal(
        weights["classifier.weight"], tensors["network.student.classifier.weight"]
    )


def test_the_terms_of_the_page_are_logged(
    drawn_root: Path, tmp_path: Path, overrides: list[str]
) -> None:
    train(tiny_config(drawn_root, *overrides, "run.log_steps=1"), tmp_path / "run")

    assert '"loss_strong"' in (tmp_path / "run" / "metrics.jsonl").read_text()
