"""The datasets we know: classes, colours, where their files lie. Needs neither torch nor Pillow."""

import hashlib
import os
from dataclasses import dataclass, replace
from pathlib import Path

from datasets.config import DataConfig, DrawnConfig
from datasets.description import read_description
from datasets.home import home
from datasets.storage import is_url

Colour = tuple[int, int, int]
IGNORED = 255  # mask value of a pixel that counts nowhere
DRAWING_VERSION = 1  # of the drawn scenes; raise it when a change moves their pixels

SHAPES = ("disc", "box", "triangle", "ring", "cross", "diamond", "crescent", "bar")
TEXTURES = ("striped", "checked", "dotted", "speckled", "blotched", "latticed")
MAX_DRAWN_CLASSES = 1 + len(SHAPES) * len(TEXTURES)


@dataclass(frozen=True)
class DatasetSpec:
    """What is known about a dataset without reading it.

    Attributes:
        name: entry of `CATALOG`.
        class_names: by class index; their number is the number of classes.
        palette: a colour per class, RGB of 0 to 255.
        image_pattern: path of an image below the root, with {id}.
        mask_pattern: path of a mask of class indices below the root, with {id}, or with {stem}
            where ids have a suffix.
        mask_values: mask value by class index; empty when the values are the classes themselves.
        ignored_value: mask value of a pixel that counts nowhere; None when there is none.
    """

    name: str
    class_names: tuple[str, ...]
    palette: tuple[Colour, ...]
    image_pattern: str
    mask_pattern: str
    mask_values: tuple[int, ...] = ()
    ignored_value: int | None = IGNORED

    def image_file(self, name: str) -> str:
        """Path below the root of the image of an id."""
        return self.image_pattern.format(id=name)

    def mask_file(self, name: str) -> str:
        """Path below the root of the mask of an id."""
        return mask_file(self.mask_pattern, name)


def mask_file(pattern: str, name: str) -> str:
    """The path of a mask by pattern and id."""
    return pattern.format(id=name, stem=name.rpartition(".")[0] or name)


def spec_of(config: DataConfig) -> DatasetSpec:
    """The spec of a configured dataset; that of drawn scenes has the configured classes.

    Raises:
        ValueError: unknown dataset, or a number of classes that cannot be drawn.
        DataError: the description of somebody's own folder is missing or wrong.
    """
    if config.dataset not in CATALOG:
        raise ValueError(
            f"Unknown dataset {config.dataset!r}; known: {', '.join(sorted(CATALOG))}."
        )
    spec = CATALOG[config.dataset]
    if config.dataset == "folder":
        return _described(spec, data_root(config))
    if config.dataset != "synthetic":
        return spec
    count = drawn_of(config).num_classes
    if not 2 <= count <= MAX_DRAWN_CLASSES:
        raise ValueError(
            f"data.drawn.num_classes is {count}; between 2 and {MAX_DRAWN_CLASSES} can be drawn."
        )
    return replace(spec, class_names=spec.class_names[:count], palette=spec.palette[:count])


def num_classes(config: DataConfig) -> int:
    """Number of classes, background included."""
    return len(spec_of(config).class_names)


def drawn_of(config: DataConfig) -> DrawnConfig:
    """How the scenes of a synthetic dataset are drawn; the defaults where nothing is said."""
    return config.drawn or DrawnConfig()


def data_root(config: DataConfig) -> Path:
    """Folder of the dataset's tree; by default below `data/` of the checkout.

    Drawn scenes of different sizes, counts or seeds get different default folders. Of a packed
    dataset in an object store it is a folder of this machine with the small files.

    Raises:
        DataError: nothing is packed at a URL.
        Unreachable: its server does not answer.
    """
    if is_url(config.root):
        from datasets.packed import brought_near  # pyarrow: only those who need it wait for it

        place = hashlib.sha256(config.root.encode()).hexdigest()[:16]
        return brought_near(config.root, cache_root(config) / "roots" / place)
    if config.root:
        return Path(config.root)
    default = home() / "data" / config.dataset
    if config.dataset != "synthetic":
        return default
    drawn = drawn_of(config)
    counts = f"{drawn.num_train}+{drawn.num_val}"
    name = f"{counts}-{drawn.width}x{drawn.height}-c{drawn.num_classes}-s{drawn.seed}"
    return default / f"{name}-v{DRAWING_VERSION}"


def cache_root(config: DataConfig) -> Path:
    """Folder of this machine for what comes from an object store."""
    if config.cache:
        return Path(config.cache).expanduser()
    home = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(home).expanduser() / "ipixmatch"


def drawn_parts(label: int) -> tuple[int, int]:
    """Indices into `SHAPES` and `TEXTURES` of a drawn class (1 or more); no two classes agree."""
    turn, shape = divmod(label - 1, len(SHAPES))
    return shape, (shape + turn) % len(TEXTURES)


def _described(spec: DatasetSpec, root: Path) -> DatasetSpec:
    """Somebody's own folder, as its `dataset.yaml` has it."""
    described = read_description(root)
    return replace(
        spec,
        class_names=described.class_names,
        palette=tuple(_voc_colour(label) for label in range(len(described.class_names))),
        image_pattern=described.image_pattern,
        mask_pattern=described.mask_pattern,
        mask_values=described.mask_values,
        ignored_value=described.ignored_value,
    )


def _drawn_name(label: int) -> str:
    if label == 0:
        return "background"
    shape, texture = drawn_parts(label)
    return f"{TEXTURES[texture]} {SHAPES[shape]}"


def _voc_colour(label: int) -> Colour:
    """Colour of PASCAL VOC's own palette: the label's bits, dealt to R, G, B from the top."""
    red = green = blue = 0
    for place in range(8):
        red |= (label & 1) << (7 - place)
        green |= (label >> 1 & 1) << (7 - place)
        blue |= (label >> 2 & 1) << (7 - place)
        label >>= 3
    return red, green, blue


_VOC_NAMES = (
    "background aeroplane bicycle bird boat bottle bus car cat chair cow diningtable dog horse "
    "motorbike person pottedplant sheep sofa train tvmonitor"
)
_CITYSCAPES = (
    ("road", (128, 64, 128)),
    ("sidewalk", (244, 35, 232)),
    ("building", (70, 70, 70)),
    ("wall", (102, 102, 156)),
    ("fence", (190, 153, 153)),
    ("pole", (153, 153, 153)),
    ("traffic light", (250, 170, 30)),
    ("traffic sign", (220, 220, 0)),
    ("vegetation", (107, 142, 35)),
    ("terrain", (152, 251, 152)),
    ("sky", (70, 130, 180)),
    ("person", (220, 20, 60)),
    ("rider", (255, 0, 0)),
    ("car", (0, 0, 142)),
    ("truck", (0, 0, 70)),
    ("bus", (0, 60, 100)),
    ("train", (0, 80, 100)),
    ("motorcycle", (0, 0, 230)),
    ("bicycle", (119, 11, 32)),
)

CATALOG = {
    "folder": DatasetSpec(  # what it holds stands in its dataset.yaml
        name="folder",
        class_names=(),
        palette=(),
        image_pattern="images/{id}.jpg",
        mask_pattern="masks/{id}.png",
    ),
    "synthetic": DatasetSpec(
        name="synthetic",
        class_names=tuple(_drawn_name(label) for label in range(MAX_DRAWN_CLASSES)),
        palette=tuple(_voc_colour(label) for label in range(MAX_DRAWN_CLASSES)),
        image_pattern="JPEGImages/{id}.jpg",
        mask_pattern="SegmentationClass/{id}.png",
    ),
    "voc": DatasetSpec(
        name="voc",
        class_names=tuple(_VOC_NAMES.split()),
        palette=tuple(_voc_colour(label) for label in range(21)),
        image_pattern="JPEGImages/{id}.jpg",
        mask_pattern="SegmentationClass/{id}.png",
    ),
    "cityscapes": DatasetSpec(
        name="cityscapes",
        class_names=tuple(name for name, _ in _CITYSCAPES),
        palette=tuple(colour for _, colour in _CITYSCAPES),
        image_pattern="leftImg8bit/{id}_leftImg8bit.png",
        mask_pattern="gtFine/{id}_gtFine_labelTrainIds.png",
    ),
}
