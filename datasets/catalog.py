"""The known datasets: classes, colours, patterns of file names. Needs neither torch nor Pillow."""

from dataclasses import dataclass

Colour = tuple[int, int, int]
IGNORED = 255  # mask value of a pixel that counts nowhere
SYNTHETIC_VERSION = 1  # of the drawn scenes; raise it when a change moves their pixels

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


def drawn_parts(label: int) -> tuple[int, int]:
    """Indices into `SHAPES` and `TEXTURES` of a drawn class (1 or more); no two classes agree."""
    turn, shape = divmod(label - 1, len(SHAPES))
    return shape, (shape + turn) % len(TEXTURES)


def _drawn_name(label: int) -> str:
    if label == 0:
        return "background"
    shape, texture = drawn_parts(label)
    return f"{TEXTURES[texture]} {SHAPES[shape]}"


def voc_colour(label: int) -> Colour:
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
        palette=tuple(voc_colour(label) for label in range(MAX_DRAWN_CLASSES)),
        image_pattern="JPEGImages/{id}.jpg",
        mask_pattern="SegmentationClass/{id}.png",
    ),
    "voc": DatasetSpec(
        name="voc",
        class_names=tuple(_VOC_NAMES.split()),
        palette=tuple(voc_colour(label) for label in range(21)),
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
