"""What one does with a trained run: predict, export, look at it in TensorBoard."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from datasets.dataset import open_dataset
from tests.support.process_groups import run_trainer
from tests.support.tiny_config import tiny_config
from trainer.config.schema import TrainConfig
from trainer.evaluate import predict
from trainer.inference import NetworkError, load_trained, predict_folder
from trainer.run import train


@pytest.fixture(scope="module")
def run(drawn_root: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[TrainConfig, Path]:
    folder = tmp_path_factory.mktemp("runs") / "one"
    config = tiny_config(drawn_root, "loss=kl", "run.tensorboard=true")
    train(config, folder)
    return config, folder


def test_predict_writes_masks_of_class_ids_and_overlays(
    run: tuple[TrainConfig, Path], tmp_path: Path
) -> None:
    config, folder = run
    dataset = open_dataset(config.data)
    images = tmp_path / "images"
    images.mkdir()
    name = dataset.split.validation[0]
    dataset.tree.image(name).save(images / "scene.png")
    (images / "notes.txt").write_text("not an image")
    (images / "torn.jpg").write_bytes(b"\xff\xd8\xff")

    done = run_trainer(
        ["predict", f"checkpoint={folder}", f"images={images}", f"out={tmp_path / 'out'}"]
    )

    assert done.returncode == 0, done.stderr
    assert "torn.jpg: not read" in done.stdout
    with Image.open(tmp_path / "out" / "scene.png") as mask:
        mask.load()
    with Image.open(tmp_path / "out" / "scene_overlay.png") as overlay:
        assert overlay.size == mask.size
    trained = load_trained(folder)
    pixels = torch.from_numpy(np.array(dataset.tree.image(name))).permute(2, 0, 1)[None]
    with torch.no_grad():
        expected = predict(trained.network, pixels, config)[0]
    assert mask.mode == "P"
    assert (np.array(mask) == expected.numpy()).all()


def test_odd_images_are_read_as_in_training_or_refused_with_words(
    run: tuple[TrainConfig, Path], tmp_path: Path
) -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    image, exif = Image.fromarray(rgb), Image.Exif()
    exif[0x0112] = 6  # the camera lay on its side
    images, out = tmp_path / "images", tmp_path / "out"
    images.mkdir()
    image.save(images / "turned.jpg", exif=exif)
    image.convert("L").save(images / "grey.png")
    image.crop((0, 0, 1, 1)).save(images / "pixel.png")
    Image.fromarray(rgb[..., 0].astype(np.uint16) * 257).save(images / "deep.png")
    image.convert("RGBA").save(images / "opaque.png")
    for name in ("same.jpg", "same.png", "other.png", "other_overlay.png"):
        image.save(images / name)
    (images / "folder.png").mkdir()

    lines = list(predict_folder(load_trained(run[1]), images, out, "cpu"))

    said = {line.split(":")[0].split("/")[-1]: line for line in lines}
    assert "not read" in said.pop("deep.png")
    assert not [line for line in said.values() if "not read" in line]
    assert "turned upright" in said["turned.jpg"]
    with Image.open(out / "turned.png") as mask:
        assert mask.size == (20, 30)
    masks = {path.name for path in out.iterdir()}
    assert len(masks) == 2 * len(said) == 16
    assert {"same.jpg.png", "same.png.png", "other_overlay.png.png", "grey.png"} <= masks


def test_masks_never_overwrite_the_images(run: tuple[TrainConfig, Path], tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")

    with pytest.raises(ValueError, match="masks would overwrite"):
        list(predict_folder(load_trained(run[1]), tmp_path, tmp_path / ".." / tmp_path.name, "cpu"))


def test_a_folder_without_a_readable_image_is_an_error(
    run: tuple[TrainConfig, Path], tmp_path: Path
) -> None:
    (tmp_path / "a.png").write_bytes(b"")
    trained = load_trained(run[1])

    for folder, message in ((tmp_path, "could be read"), (tmp_path / "no", "is no folder")):
        with pytest.raises(ValueError, match=message):
            list(predict_folder(trained, folder, tmp_path / "out", "cpu"))


def test_an_export_is_the_same_network_alone_in_one_file(
    run: tuple[TrainConfig, Path], tmp_path: Path
) -> None:
    config, folder = run

    for name in ("a", "b"):
        done = run_trainer(["export", f"run={folder}", f"out={tmp_path / name}.safetensors"])
        assert done.returncode == 0, done.stderr

    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()
    alone, original = load_trained(tmp_path / "a.safetensors"), load_trained(folder)
    assert alone.config == config
    for key, value in original.network.state_dict().items():
        assert torch.equal(alone.network.state_dict()[key], value)


def test_a_checkpoint_that_lost_a_byte_is_not_used(
    run: tuple[TrainConfig, Path], tmp_path: Path
) -> None:
    for suffix in (".pt", ".json"):
        source = run[1] / "checkpoints" / f"best{suffix}"
        (tmp_path / f"best{suffix}").write_bytes(source.read_bytes())
    torn = (tmp_path / "best.pt").read_bytes()[:-1]
    (tmp_path / "best.pt").write_bytes(torn)

    with pytest.raises(NetworkError, match="not what its manifest"):
        load_trained(tmp_path / "best.pt")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["predict", "images=x", "out=y"], "checkpoint must be given"),
        (["predict", "checkpoint=nowhere", "images=x", "out=y"], "nowhere does not exist"),
        (["export", "run=x", "too=y"], "'too=y' is no setting here; known: run, out"),
        (["export", "run=x", "out=y.pt"], "must end in .safetensors"),
        (["weights", "fetch"], "usage: python -m trainer weights fetch BACKBONE"),
    ],
)
def test_a_verb_given_wrong_words_says_what_it_takes(words: list[str], message: str) -> None:
    done = run_trainer(words)

    assert done.returncode == 2
    assert message in done.stderr


def test_tensorboard_events_carry_the_terms(run: tuple[TrainConfig, Path]) -> None:
    files = list((run[1] / "tensorboard").rglob("events.out.tfevents.*"))

    assert files
    assert any(b"loss_inter_pixel" in path.read_bytes() for path in files)
