import hashlib
from dataclasses import replace
from multiprocessing.synchronize import Barrier
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from datasets.config import DataConfig, SyntheticConfig
from datasets.dataset import open_dataset
from datasets.errors import DataError
from datasets.identity import RECORDS
from datasets.known.synthetic import SYNTHETIC_VERSION
from datasets.location import spec_of
from datasets.manifest import read_manifest
from datasets.synthetic.draw import ensure_drawn
from datasets.synthetic.scene import draw_scene
from tests.support.process_groups import FORKSERVER

PINNED_SCENE = "546bf85d14b491f34d9b608e85f52b55a851b90ddf3bbbbfdadf675e71faab55"


def bytes_of(root: Path) -> dict[str, str]:
    return {
        path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


def test_the_same_seed_draws_the_same_bytes(config, dataset, own_config) -> None:
    own = open_dataset(own_config)

    assert bytes_of(Path(own_config.root)) == bytes_of(Path(config.root))
    assert own.fingerprint == dataset.fingerprint


def test_another_seed_draws_another_dataset(dataset, own_config) -> None:
    other = open_dataset(replace(own_config, drawn=replace(own_config.drawn, seed=99)))

    assert other.fingerprint != dataset.fingerprint


def test_the_tree_is_voc_with_indexed_masks_and_a_proving_manifest(config, dataset) -> None:
    root, spec = Path(config.root), spec_of(config)
    manifest = read_manifest(root)

    assert manifest is not None
    drawn = {k: v for k, v in bytes_of(root).items() if not k.startswith(f"{RECORDS}/")}
    assert manifest.files == {k: v for k, v in drawn.items() if k != "manifest.json"}
    assert (root / "ImageSets/Segmentation/val.txt").read_text().split() == [
        *dataset.split.validation
    ]
    with Image.open(root / "SegmentationClass/scene_00000.png") as mask:
        assert mask.mode == "P"
        assert mask.getpalette()[: 3 * 5] == [value for rgb in spec.palette for value in rgb]
    with Image.open(root / "JPEGImages/scene_00000.jpg") as image:
        assert (image.mode, image.size) == ("RGB", (56, 40))


def test_a_scene_depends_on_seed_and_index_alone() -> None:
    few, many = SyntheticConfig(num_train=3), SyntheticConfig(num_train=300, num_val=2)

    assert np.array_equal(draw_scene(few, 2)[0], draw_scene(many, 2)[0])
    assert not np.array_equal(draw_scene(few, 2)[0], draw_scene(few, 1)[0])


@pytest.mark.parametrize(("width", "height"), [(16, 16), (33, 120), (200, 90)])
@pytest.mark.parametrize("num_classes", [2, 21])
def test_scenes_have_any_size_and_class_count(width, height, num_classes) -> None:
    drawn = SyntheticConfig(width=width, height=height, num_classes=num_classes)
    labels = set()
    for index in range(12):
        image, mask = draw_scene(drawn, index)
        assert image.shape == (height, width, 3)
        assert mask.shape == (height, width)
        labels |= set(np.unique(mask).tolist())

    assert labels <= set(range(num_classes))
    assert len(labels) > min(num_classes, 10) - 1


def test_every_class_and_much_background_is_seen() -> None:
    drawn = SyntheticConfig()
    counts = np.zeros(drawn.num_classes)
    for index in range(60):
        counts += np.bincount(draw_scene(drawn, index)[1].ravel(), minlength=drawn.num_classes)

    shares = counts / counts.sum()

    assert 0.4 < shares[0] < 0.8
    assert shares[1:].min() > 0.02


def test_colour_alone_does_not_tell_the_class() -> None:
    drawn = SyntheticConfig()
    scenes = [draw_scene(drawn, index) for index in range(120)]
    pixels = np.concatenate([image[::3, ::3].reshape(-1, 3) for image, _ in scenes])
    colours = pixels // 16 @ [256, 16, 1]
    classes = np.concatenate([mask[::3, ::3].ravel() for _, mask in scenes])
    half = len(classes) // 2
    table = np.zeros((4096, drawn.num_classes))
    np.add.at(table, (colours[:half], classes[:half]), 1)

    guess, truth = table.argmax(axis=1)[colours[half:]], classes[half:]

    iou = [
        ((guess == label) & (truth == label)).sum() / ((guess == label) | (truth == label)).sum()
        for label in range(drawn.num_classes)
    ]
    assert np.mean(iou) < 0.4  # the smallest network reaches 0.6 in a minute


def test_the_pixels_of_a_version_never_change() -> None:
    """Whoever changes them raises SYNTHETIC_VERSION and pins the new ones."""
    image, mask = draw_scene(SyntheticConfig(num_classes=21), 1)

    assert SYNTHETIC_VERSION == 1
    assert hashlib.sha256(image.tobytes() + mask.tobytes()).hexdigest() == PINNED_SCENE


def test_a_drawn_tree_is_used_and_not_drawn_again(own_config) -> None:
    root = Path(own_config.root)

    assert ensure_drawn(root, own_config.drawn) is True
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
    assert ensure_drawn(root, own_config.drawn) is False
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*")} == before


def test_an_empty_folder_is_filled(own_config) -> None:
    Path(own_config.root).mkdir()

    assert ensure_drawn(Path(own_config.root), own_config.drawn) is True


def test_a_foreign_folder_is_never_touched(own_config) -> None:
    root = Path(own_config.root)
    root.mkdir()
    (root / "thesis.tex").write_text("years of work")

    with pytest.raises(DataError, match=r"not drawn by this program.*another folder"):
        open_dataset(own_config)
    assert [path.name for path in root.parent.rglob("*")] == ["drawn", "thesis.tex"]


def test_a_file_in_the_place_of_the_folder_is_never_touched(own_config) -> None:
    Path(own_config.root).write_text("a file")

    with pytest.raises(DataError, match="not drawn by this program"):
        open_dataset(own_config)
    assert Path(own_config.root).read_text() == "a file"


def test_scenes_of_another_configuration_are_refused_with_the_difference(own_config) -> None:
    open_dataset(own_config)

    with pytest.raises(DataError, match=r"other drawn scenes \(num_val 3 instead of 4\)"):
        open_dataset(replace(own_config, drawn=replace(own_config.drawn, num_val=4)))


@pytest.mark.parametrize("field", ["num_train", "num_val", "width", "height"])
def test_what_cannot_be_drawn_is_refused_before_anything_is_written(own_config, field) -> None:
    drawn = replace(own_config.drawn, **{field: 0})

    with pytest.raises(ValueError, match=r"0|no validation"):
        open_dataset(replace(own_config, drawn=drawn))
    assert not list(Path(own_config.root).parent.iterdir())


def draw_together(start: Barrier, config: DataConfig, path: Path) -> None:
    start.wait()
    path.write_text(open_dataset(config).fingerprint)


def test_processes_that_draw_at_once_agree_and_leave_nothing_behind(
    own_config, dataset, tmp_path_factory
) -> None:
    folder, start = tmp_path_factory.mktemp("fingerprints"), FORKSERVER.Barrier(3)
    paths = [folder / str(number) for number in range(3)]
    processes = [
        FORKSERVER.Process(target=draw_together, args=(start, own_config, path)) for path in paths
    ]

    for process in processes:
        process.start()
    for process in processes:
        process.join()

    assert {path.read_text() for path in paths} == {dataset.fingerprint}
    assert [path.name for path in Path(own_config.root).parent.iterdir()] == ["drawn"]


def test_a_half_drawn_tree_is_never_used(own_config, tmp_path) -> None:
    half = tmp_path / ".drawn.drawing-killed"
    (half / "JPEGImages").mkdir(parents=True)
    (half / "JPEGImages/scene_00000.jpg").write_bytes(b"")

    dataset = open_dataset(own_config)

    assert dataset.tree.image("scene_00000").size == (56, 40)


def test_the_default_configuration_is_drawn_when_none_is_given(tmp_path) -> None:
    dataset = open_dataset(DataConfig(root=str(tmp_path / "x"), split="full", drawn=None))

    assert len(dataset.split.labelled) == SyntheticConfig().num_train
