"""Takes the place of `trainer/run.py` in a copy of the code: every cell is done at once."""

from pathlib import Path

from trainer.config.schema import TrainConfig
from trainer.run_log import Summary


def train(config: TrainConfig, folder: Path, **_: object) -> Summary:
    """The numbers of a run that trained nothing."""
    return Summary(
        status="done",
        epochs=config.optim.epochs,
        steps=1,
        best_miou_percent=0.0,
        best_epoch=1,
        last_miou_percent=0.0,
        last_epoch=1,
        best_iou_percent=(),
        last_iou_percent=(),
        best_confusion=(),
        last_confusion=(),
        seconds=0.0,
        peak_memory_bytes=0,
        weights_sha256="0" * 64,
        best_weights_sha256="0" * 64,
        data_fingerprint="",
        split_checksum="",
        pretrained_sha256=None,
        world_size=1,
        device="cpu",
    )
