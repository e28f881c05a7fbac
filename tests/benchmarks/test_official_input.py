"""The yardstick of the input benchmark computes what the pipeline computes."""

import pytest
import torch

from benchmarks.input.__main__ import SEED, Baseline, Ours
from benchmarks.input.files import Kind, written
from datasets.images.tree import ImageTree
from datasets.loading.samples import EpochOrder
from datasets.randomness import Stream
from trainer.network.deeplab import normalise

SMALL = Kind("small", (150, 110), "jpg", 9.0, 5, 90, 8)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[ImageTree, list[str]]:
    return written(SMALL, tmp_path_factory.mktemp("files") / "small")


def baseline_of(tree: ImageTree, names: list[str]) -> Baseline:
    orders = (
        EpochOrder(names, seed=SEED, stream=stream)
        for stream in (Stream.LABELLED_ORDER, Stream.UNLABELLED_ORDER)
    )
    sizes = {name: tree.image(name).size for name in names}
    return Baseline(tree, *orders, sizes, SMALL.crop)


@pytest.mark.parametrize("position", range(40))
def test_unimatch_and_we_make_the_same_pair(
    files: tuple[ImageTree, list[str]], position: int
) -> None:
    tree, names = files
    ours = Ours.of(tree, names, SMALL.crop)
    labelled = ours.labelled.batch([position], 8)
    unlabelled = ours.unlabelled.batch([position], 8, batch=1)

    (image, mask), view, partner = baseline_of(tree, names).pair(position)

    assert torch.equal(image, normalise(labelled.images)[0])
    assert torch.equal(mask, labelled.masks[0])
    assert torch.equal(view[0], normalise(unlabelled.weak)[0])
    assert torch.equal(view[3] == 255, unlabelled.padded[0])
    assert torch.equal(partner[0], normalise(unlabelled.mix_weak)[0])
    assert torch.equal(partner[3] == 255, unlabelled.mix_padded[0])
    for strong in (0, 1):
        box = unlabelled.boxes[strong][0]
        assert torch.equal(view[4 + strong] == 1, box)
        assert torch.equal(view[1 + strong], normalise(unlabelled.strong[strong])[0])
        # Where nothing is pasted, the partner's strong view is never looked at.
        if box.any():
            mixed = normalise(unlabelled.mix_strong[strong])[0]
            assert torch.equal(partner[1 + strong], mixed)
