"""How long a cell takes, for methods that exist today and for those to come."""

import pytest

from orchestrator.planning.estimate import work
from tests.support.tiny_config import tiny_config
from trainer.config.compose import compose
from trainer.method_registry import METHODS, MethodFacts


def test_a_new_method_is_estimated_by_its_own_number_of_passes(
    tmp_path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(METHODS, "twice", MethodFacts("nowhere.Twice", passes=8.0))

    twice, once = (
        work(tiny_config(tmp_path, f"method.algorithm={name}")) for name in ("twice", "unimatch")
    )

    assert twice == 2 * once


def test_a_network_of_fixed_size_is_estimated_by_its_measured_cost() -> None:
    small, light, deep = (
        work(compose([f"model={name}"]))
        for name in ("resnet14_w16", "efficientnet_lite0", "resnet50")
    )

    assert 2 * small < light < deep
