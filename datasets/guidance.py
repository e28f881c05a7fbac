"""What a dataset still lacks at its root, and what to get where."""

from dataclasses import replace
from pathlib import Path

from datasets.catalog import DatasetSpec
from datasets.config import DataConfig
from datasets.lists import list_defects
from datasets.location import data_root
from datasets.manifest import read_manifest
from datasets.opening import missing_files, opened_tree
from datasets.splits import load_split, present_splits


def missing_parts(config: DataConfig) -> list[str]:
    """What a real dataset still lacks at its root, by names alone; empty when it is complete."""
    present = present_splits(config)
    if not present:
        lists = list_defects(config)
        if read_manifest(data_root(config)) is None:
            return [f"{data_root(config)}: no images and masks were brought yet", *lists]
        return lists
    tree, parts = opened_tree(config), []
    for name in present:
        absent = missing_files(tree, load_split(replace(config, split=name)))
        if absent:
            parts.append(f"{len(absent)} files of split {name}, the first is {absent[0]}")
    return parts


def guidance(spec: DatasetSpec, root: Path) -> str:
    """Which files of a real dataset go where."""
    return _GUIDANCE[spec.name].format(root=root)


_GUIDANCE = {
    "voc": """PASCAL VOC 2012 with the masks of SBD: 10582 training images, 1449 for validation.
1. Download both archives, or have them downloaded (3.4 GB in all; a cut download goes on):
     http://host.robots.ox.ac.uk/pascal/VOC/voc2012/VOCtrainval_11-May-2012.tar
     https://www2.eecs.berkeley.edu/Research/Projects/CS/vision/grouping/semantic_contours/benchmark.tgz
     python -m datasets download voc to=DIR
2. python -m datasets prepare voc DIR/VOCtrainval_11-May-2012.tar DIR/benchmark.tgz root={root}
   Unpacked folders (VOCdevkit, benchmark_RELEASE) will do, and so will the pre-processed
   JPEGImages and SegmentationClass of the UniMatch repository's README.
3. python -m datasets splits fetch dataset=voc root={root}
What lies at the root then: JPEGImages/ID.jpg, SegmentationClass/ID.png, splits/.""",
    "cityscapes": """Cityscapes: 2975 training images, 500 for validation. Its licence is
personal, so nobody may hand it on:
1. Register at https://www.cityscapes-dataset.com/register/ and download
     leftImg8bit_trainvaltest.zip (11 GB) and gtFine_trainvaltest.zip (241 MB)
2. python -m datasets prepare cityscapes DIR/leftImg8bit_trainvaltest.zip \\
     DIR/gtFine_trainvaltest.zip root={root}
   Unpacked folders will do, with labelIds or with labelTrainIds.
3. python -m datasets splits fetch dataset=cityscapes root={root}
What lies at the root then: leftImg8bit/train/CITY/ID_leftImg8bit.png,
gtFine/train/CITY/ID_gtFine_labelTrainIds.png, the same for val/, and splits/.""",
}
