"""`trainer weights fetch` and `import`: put ImageNet weights into the folder `weights`."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from email.message import Message
from pathlib import Path

from datasets.files import file_sha256
from datasets.storage.download import download
from trainer.config.compose import choices, compose
from trainer.network.deeplab import DeepLabV3Plus
from trainer.network.pretrained import WEIGHTS_FOLDER, Pretrained, WeightsError, load_backbone

_CURE = (
    "On a machine with a network, download it, then here: python -m trainer weights import "
    "BACKBONE FILE"
)


@dataclass(frozen=True)
class Source:
    """Where a publisher offers the weights of a backbone.

    Attributes:
        sha256_prefix: first digits of its checksum where the publisher prints them in the name.
        overrides: settings a run needs with this file.
    """

    address: str
    sha256_prefix: str
    overrides: tuple[str, ...]


_TIMM = "https://huggingface.co/timm/{}.gluon_in1k/resolve/main/model.safetensors"
_TORCHVISION = "https://download.pytorch.org/models/{}.pth"
SOURCES = {
    ("resnet50", "timm"): Source(_TIMM.format("resnet50s"), "", ()),
    ("resnet101", "timm"): Source(_TIMM.format("resnet101s"), "", ()),
    ("resnet50", "torchvision"): Source(
        _TORCHVISION.format("resnet50-0676ba61"), "0676ba61", ("model.stem=conv7",)
    ),
    ("resnet101", "torchvision"): Source(
        _TORCHVISION.format("resnet101-63fe2227"), "63fe2227", ("model.stem=conv7",)
    ),
}


def fetch(
    backbone: str, *, source: str = "timm", address: str = "", on_message: Callable[[str], None]
) -> Path:
    """Download the weights of one backbone, check them, and store them in the folder `weights`.

    The checksum is the one the file's name carries (torchvision) or the one the server states for
    the stored object (timm). The keys are matched before the file gets its name.

    Args:
        backbone: a file of sweeps/model.
        source: timm or torchvision.
        address: of a mirror; empty for the publisher's.
        on_message: given a line of progress now and then.

    Raises:
        WeightsError: unknown names, or a file that is not what it should be.
        Unreachable: no answer; says which file to put where.
    """
    if (backbone, source) not in SOURCES:
        known = ", ".join(f"{b} from {s}" for b, s in SOURCES)
        raise WeightsError(f"There is no {backbone} from {source}; known: {known}.")
    entry = SOURCES[backbone, source]
    address = address or entry.address
    suffix = ".safetensors" if address.endswith(".safetensors") else ".pth"
    WEIGHTS_FOLDER.mkdir(parents=True, exist_ok=True)
    part = WEIGHTS_FOLDER / f".{backbone}{suffix}.part{suffix}"
    try:
        part.unlink(missing_ok=True)  # of a run that was killed, perhaps of another address
        headers = download(address, part, cure=_CURE, say=on_message)
        sha256 = file_sha256(part)
        expected = entry.sha256_prefix or _stated_sha256(headers)
        if expected and not sha256.startswith(expected):
            raise WeightsError(
                f"{address} came with sha256 {sha256[:16]}..., not {expected[:16]}...; try again."
            )
        _check(backbone, part, entry.overrides)
        return _place(part, backbone, suffix)
    finally:
        part.unlink(missing_ok=True)


def bring(backbone: str, file: Path) -> tuple[Path, Pretrained]:
    """Check a local file of weights and copy it into the folder `weights`.

    Raises:
        WeightsError: it is missing or of another network.
    """
    if backbone not in choices("model"):
        raise WeightsError(f"Unknown backbone {backbone!r}; known: {', '.join(choices('model'))}.")
    if not file.is_file():
        raise WeightsError(f"{file} does not exist.")
    suffix = ".safetensors" if file.suffix == ".safetensors" else ".pth"
    WEIGHTS_FOLDER.mkdir(parents=True, exist_ok=True)
    part = WEIGHTS_FOLDER / f".{backbone}{suffix}.part{suffix}"
    try:
        shutil.copyfile(file, part)
        weights = _check(backbone, part, ())
        return _place(part, backbone, suffix), weights
    finally:
        part.unlink(missing_ok=True)


def _check(backbone: str, path: Path, overrides: tuple[str, ...]) -> Pretrained:
    """Load the file into a backbone of either stem; raises a WeightsError if it fits neither."""
    attempts = [overrides] if overrides else [("model.stem=deep64",), ("model.stem=conv7",)]
    for number, attempt in enumerate(attempts):
        model = compose([f"model={backbone}", *attempt]).model
        try:
            return load_backbone(DeepLabV3Plus(model, 2), path)
        except WeightsError:
            if number == len(attempts) - 1:
                raise
    raise AssertionError("an attempt returns or raises")


def _place(part: Path, backbone: str, suffix: str) -> Path:
    """Rename the checked file to its final name, which it returns."""
    final = WEIGHTS_FOLDER / f"{backbone}{suffix}"
    part.replace(final)
    return final


def _stated_sha256(headers: Message) -> str:
    """The checksum of the stored object, as Hugging Face's server states it; else nothing."""
    stated = (headers.get("X-Linked-Etag") or "").strip('"W/')
    return stated if len(stated) == 64 else ""
