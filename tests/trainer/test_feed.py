from pathlib import Path

import pytest

from tests.tiny import tiny_config
from trainer.config.fingerprint import fingerprint
from trainer.config.schema import Augment
from trainer.feed import augments_on_device, cache_folder
from trainer.run import train


def test_neither_the_device_s_augmentation_nor_the_cache_changes_a_bit(
    drawn_root: Path, tmp_path: Path
) -> None:
    def weights(name: str, *overrides: str) -> str | None:
        config = tiny_config(drawn_root, "loss=kl", "optim.epochs=2", *overrides)
        return train(config, tmp_path / name).weights_sha256

    expected = weights("host", "run.augment=host")

    cache = ["run.cache=decoded", f"run.cache_folder={tmp_path / 'cache'}"]
    assert weights("device", "run.augment=device") == expected
    assert weights("cached", *cache) == expected
    assert weights("both", "run.augment=device", "run.loader_workers=2", *cache) == expected


@pytest.mark.parametrize(
    ("augment", "device", "expected"),
    [
        (Augment.auto, "cpu", False),
        (Augment.auto, "cuda", True),
        (Augment.host, "cuda", False),
        (Augment.device, "cpu", True),
    ],
)
def test_only_a_card_augments_by_itself(augment: Augment, device: str, expected: bool) -> None:
    assert augments_on_device(augment, device) is expected


def test_how_batches_are_made_is_no_part_of_the_fingerprint(drawn_root: Path) -> None:
    plain = tiny_config(drawn_root)
    other = tiny_config(drawn_root, "run.augment=device", "run.cache=decoded")

    assert fingerprint(plain) == fingerprint(other)


def test_the_cache_lies_beside_the_dataset(drawn_root: Path) -> None:
    assert cache_folder(tiny_config(drawn_root)) == drawn_root.with_name("drawn.decoded")
    assert cache_folder(tiny_config(drawn_root, "run.cache_folder=/x")) == Path("/x")
