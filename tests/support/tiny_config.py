"""The smallest run that is still real: drawn images, a narrow network, a few steps."""

from functools import cache
from pathlib import Path

from trainer.config.compose import compose
from trainer.config.schema import TrainConfig

TINY = (
    "model.width=4",
    "model.head_channels=8",
    "model.low_level_channels=4",
    "model.dilations=[1,2,3]",
    "data.crop=32",
    "data.drawn.num_train=20",
    "data.drawn.num_val=4",
    "data.drawn.width=48",
    "data.drawn.height=40",
    "data.split=1of4",
    "method.confidence=0.2",
    "loss.threshold=0.25",
    "loss.warmup_epochs=1",
    "optim.epochs=4",
    "optim.lr=0.01",
    "evaluation.every_epochs=1",
    "run.device=cpu",
    "run.checkpoint_minutes=1000",
)


def tiny_config(data_root: Path, *overrides: str) -> TrainConfig:
    """A run of 4 epochs of 3 steps on 5 labelled and 15 unlabelled images."""
    return _composed((*TINY, f"data.root={data_root}", *overrides))


@cache
def _composed(overrides: tuple[str, ...]) -> TrainConfig:
    """Composed once: a configuration is a constant, and Hydra takes longer than a step."""
    return compose(overrides)
