"""A method is known by its line in the registry, and by nothing else."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from datasets.augment.host import BoxRule
from tests.support.tiny_config import tiny_config
from trainer.config.compose import choices, compose
from trainer.method_registry import METHODS, MethodFacts
from trainer.methods.interface import Method, MethodContext, StepInput, StepResult, new_method
from trainer.network.deeplab import normalise
from trainer.run import train


@dataclass(frozen=True)
class MeanLogit(Method):
    """A method that nobody has heard of."""

    context: MethodContext

    def step(self, given: StepInput) -> StepResult:
        assert given.unlabelled is not None
        loss = given.student(normalise(given.unlabelled.weak)).float().square().mean()
        return StepResult(loss, (), {"loss_mean": loss.detach()})


def test_a_method_trains_by_its_file_and_one_line(
    drawn_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(METHODS, "mean_logit", MethodFacts(f"{__name__}.MeanLogit", passes=2.0))
    config = tiny_config(drawn_root, "method.algorithm=mean_logit", "optim.epochs=1")

    summary = train(config, tmp_path)

    assert (summary.status, summary.steps) == ("done", 3)
    assert '"loss_mean"' in (tmp_path / "metrics.jsonl").read_text()


def test_an_unknown_method_is_refused_with_those_that_exist() -> None:
    with pytest.raises(ValueError, match="'meen'; known: supervised, fixmatch, unimatch"):
        compose(["method.algorithm=meen"])


@pytest.mark.parametrize("name", choices("method"))
def test_every_method_of_the_sweeps_has_a_class(name: str) -> None:
    config = compose([f"method={name}"])

    method = new_method(MethodContext(config, None))

    assert config.method.facts.has_own_boxes == (method.views().box_rule is not BoxRule.one)
