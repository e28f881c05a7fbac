import subprocess
import sys

import pytest

from datasets.config import DataConfig, SyntheticConfig
from datasets.known.registry import KNOWN
from datasets.known.synthetic import MAX_DRAWN_CLASSES, drawn_parts
from datasets.location import data_root, num_classes, spec_of


def test_voc_and_cityscapes_have_their_classes_and_colours() -> None:
    voc, cityscapes = KNOWN["voc"].spec, KNOWN["cityscapes"].spec

    assert (len(voc.class_names), len(cityscapes.class_names)) == (21, 19)
    assert dict(zip(voc.class_names, voc.palette, strict=True))["person"] == (192, 128, 128)
    assert voc.palette[1] == (128, 0, 0)
    assert cityscapes.palette[13] == (0, 0, 142)  # car


@pytest.mark.parametrize("name", KNOWN)
def test_names_and_colours_of_a_dataset_are_distinct(name) -> None:
    spec = KNOWN[name].spec

    assert len(set(spec.class_names)) == len(spec.class_names) == len(set(spec.palette))


def test_no_two_drawn_classes_share_shape_and_texture() -> None:
    parts = {drawn_parts(label) for label in range(1, MAX_DRAWN_CLASSES)}

    assert len(parts) == MAX_DRAWN_CLASSES - 1


def test_drawn_classes_are_counted_by_the_configuration() -> None:
    config = DataConfig(drawn=SyntheticConfig(num_classes=9))

    assert num_classes(config) == 9 == len(spec_of(config).class_names)
    assert num_classes(DataConfig()) == SyntheticConfig().num_classes


@pytest.mark.parametrize("count", [0, 1, MAX_DRAWN_CLASSES + 1])
def test_a_number_of_classes_that_cannot_be_drawn_is_refused(count) -> None:
    with pytest.raises(ValueError, match=f"num_classes is {count}; between 2 and"):
        num_classes(DataConfig(drawn=SyntheticConfig(num_classes=count)))


def test_an_unknown_dataset_lists_the_known() -> None:
    with pytest.raises(ValueError, match="'coco'; known: cityscapes, earth, folder, synth"):
        spec_of(DataConfig(dataset="coco"))


def test_other_scenes_lie_in_other_folders() -> None:
    drawn = [
        SyntheticConfig(),
        SyntheticConfig(seed=1),
        SyntheticConfig(width=128),
        SyntheticConfig(num_val=9),
    ]

    assert len({data_root(DataConfig(drawn=entry)) for entry in drawn}) == 4


@pytest.mark.parametrize(
    "module", ["location", "splits.lists", "splits.published", "randomness", "config"]
)
def test_planning_needs_neither_torch_nor_pillow(module) -> None:
    probe = f"import sys, datasets.{module}; print(*({{'torch', 'PIL'}} & set(sys.modules)))"

    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == ""
