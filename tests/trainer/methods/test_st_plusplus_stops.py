"""ST++ interrupted at any step and in its work between trainings, on any number of ranks."""

import json
import os
import shutil
import time
from pathlib import Path

import pytest

from datasets.files import file_sha256
from tests.support.process_groups import run_ranks, start_trainer
from tests.support.recording_ranks import Run
from tests.support.tiny_config import TINY, tiny_config
from tests.trainer.test_resume import in_pieces, stop_after, straight
from trainer.checkpoint import CheckpointError
from trainer.run import train

# Steps: 1 of labelled images, 2 with 7 predicted masks, 3 with all 15.
SHORT = ("method=st_plusplus", "loss=kl", "loss.threshold=0.1", "optim.epochs=1")
Result = tuple[tuple[str, str], dict[str, str]]


def masks(folder: Path) -> dict[str, str]:
    """Sha256 of the predicted masks of a run."""
    paths = sorted((folder / "stages").rglob("*.png"))
    return {path.relative_to(folder).as_posix(): file_sha256(path) for path in paths}


@pytest.fixture(scope="module")
def expected(drawn_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Result:
    """Digests of the run that nobody stops, and its masks."""
    folder = tmp_path_factory.mktemp("straight")
    return straight(drawn_root, folder, [*SHORT]), masks(folder)


@pytest.mark.long
def test_stopped_at_every_step_and_within_all_work_between_it_ends_with_the_same_bits(
    drawn_root: Path, tmp_path: Path, expected: Result
) -> None:
    # A step; 5 images of the ranking; the ranking and 3 masks; 2 more masks; the last 2 masks. Two
    # steps; 3 masks of the last training, 5 more; two steps, with the last one done at the end.
    stops = [1, 5, 15 + 3, 2, 2, 1, 1, 3, 5, 1, 1]
    overrides = [*SHORT, "run.loader_workers=2", "run.augment=device"]

    result = in_pieces(drawn_root, tmp_path, overrides, stops)

    assert (result, masks(tmp_path)) == expected
    assert len(expected[1]) == 15


@pytest.mark.long
def test_kill_9_while_masks_are_written_changes_no_bit(
    drawn_root: Path, tmp_path: Path, expected: Result
) -> None:
    folder = tmp_path / "run"
    words = [*TINY, *SHORT, f"data.root={drawn_root}", f"run.folder={folder}"]
    command = start_trainer(words, tmp_path)
    while command.process.is_alive() and len(masks(folder)) < 3:
        time.sleep(0.001)
    command.process.kill()
    command.wait()
    written = sorted(folder.glob("stages/reliable/masks/*.png"))
    assert 3 <= len(written) < 7
    # What a power cut may leave besides: half a file under its name, and a temporary one.
    written[0].write_bytes(written[0].read_bytes()[:60])
    written[0].with_name(f".{written[0].name}.0.tmp").write_bytes(b"half")

    assert straight(drawn_root, folder, [*SHORT]) == expected[0]
    assert masks(folder) == expected[1]


def damage_mask(folder: Path) -> None:
    first, second, *_ = sorted(folder.glob("stages/reliable/masks/*.png"))
    first.write_bytes(b"\x89PNG no more")
    shutil.copy(sorted(folder.glob("stages/reliable/masks/*.png"))[2], second)  # whole, another's


def damage_records(folder: Path) -> None:
    path = folder / "stages" / "reliable" / "reliability.json"
    path.write_text(path.read_text().replace("1", "2"))
    (folder / "stages" / "reliable" / "masks.json").unlink()


def test_what_is_damaged_is_made_again_or_refused(
    drawn_root: Path, tmp_path: Path, expected: Result
) -> None:
    folder, config = tmp_path / "run", tiny_config(drawn_root, *SHORT)
    asked = [0]

    def in_the_second_training() -> bool:
        asked[0] += 1
        return asked[0] > 15 + 7 + 1

    train(config, folder, should_stop=in_the_second_training)
    assert json.loads((folder / "progress.json").read_text())["step"] == 2
    damage_mask(folder)
    train(config, folder, should_stop=stop_after(2))
    assert masks(folder) == {k: v for k, v in expected[1].items() if "/all/" not in k}
    damage_records(folder)
    damage_mask(folder)
    for path in folder.glob("checkpoints/supervised-*.pt"):
        path.rename(path.with_suffix(".aside"))

    with pytest.raises(CheckpointError, match="a network of an earlier stage, is missing"):
        train(config, folder)
    for path in folder.glob("checkpoints/*.aside"):
        path.rename(path.with_suffix(".pt"))

    assert straight(drawn_root, folder, [*SHORT]) == expected[0]
    assert masks(folder) == expected[1]


def train_apart(root: str, folder: str) -> tuple[str | None, dict[str, str]]:
    """One rank with a folder of its own, as on another machine, of which one is replaced."""
    own, config = Path(folder) / os.environ["RANK"], tiny_config(Path(root), *SHORT)
    train(config, own, should_stop=stop_after(1 + 8 + 2))  # a step, the ranking, four masks
    if os.environ["RANK"] == "1":
        shutil.rmtree(own)
        shutil.copytree(Path(folder) / "0" / "checkpoints", own / "checkpoints")
    summary = train(config, own)
    return summary.weights_sha256, masks(own)


def test_ranks_that_share_no_folder_have_all_masks_each(drawn_root: Path, tmp_path: Path) -> None:
    first, second = run_ranks(train_apart, 2, str(drawn_root), str(tmp_path))

    assert first == second
    assert len(first[1]) == 15


@pytest.mark.long
def test_in_double_precision_one_two_and_three_ranks_have_one_objective_and_the_same_masks(
    drawn_root: Path, tmp_path: Path
) -> None:
    one, two, three = (
        Run(drawn_root, tmp_path / f"{size}", size, SHORT, is_double=True).finish()
        for size in (1, 2, 3)
    )

    networks = one.newest("network.")
    for other in (two, three):
        assert masks(other.folder) == masks(one.folder)
        assert other.samples() == one.samples()
        assert other.losses() == pytest.approx(one.losses(), rel=1e-11)
        for name, value in other.newest("network.").items():
            assert (networks[name] - value).abs().max() <= 1e-9, name
