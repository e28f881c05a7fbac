"""How long a cell takes, for methods that exist today and for those to come."""

import pytest

from orchestrator.planning.estimate import work
from tests.support.tiny_config import tiny_config
from trainer.method_registry import METHODS, MethodFacts


def test_a_new_method_is_estimated_by_its_own_number_of_passes(
    tmp_path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(METHODS, "twice", MethodFacts("nowhere.Twice", passes=8.0))

    twice, once = (
        work(tiny_config(tmp_path, f"method.algorithm={name}")) for name in ("twice", "unimatch")
    )

    assert twice == 2 * once
