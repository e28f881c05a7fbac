"""What one does with a trained run: predict, export, look at it in TensorBoard."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file

from datasets.__main__ import main as datasets_main
from datasets.dataset import open_dataset
from tests.support.process_groups import run_trainer
from tests.support.tiny_config import tiny_config
from trainer import inference
from trainer.cli import run_verb
from trainer.config.compose import compose
from trainer.config.schema import TrainConfig
from trainer.evaluate import predict
from trainer.inference import NetworkError, export, load_trained, predict_folder
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

    assert done.returncode == 2
    assert "torn.jpg: not read" in done.stdout
    assert "1 of 2 images" in done.stderr
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


def lines_of(checkpoint: Path, images: Path, out: Path) -> tuple[list[str], str]:
    """What `predict` says, and its error."""
    lines: list[str] = []
    try:
        for line in predict_folder(load_trained(checkpoint), images, out, "cpu"):
            lines.append(line)
    except ValueError as error:
        return lines, str(error)
    return lines, ""


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

    lines, error = lines_of(run[1], images, out)

    assert error.startswith("1 of 9 images")
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

    for folder, message in ((tmp_path, "1 of 1 image of"), (tmp_path / "no", "is no folder")):
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


def test_a_folder_of_runs_is_answered_with_one_of_them(run: tuple[TrainConfig, Path]) -> None:
    _, folder = run

    with pytest.raises(NetworkError, match="holds 1 run and is none itself") as refused:
        load_trained(folder.parent)

    assert str(refused.value).endswith(f"such as {folder}.")


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
        (["predit", "images=x"], "nor a setting. Did you mean predict?"),
        (["predict", "checkpont=x"], "Did you mean checkpoint?"),
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


def test_folders_below_are_kept_and_links_followed(
    run: tuple[TrainConfig, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images, out = tmp_path / "images (1)", tmp_path / "images (1)" / "masks"
    image = Image.new("RGB", (40, 30))
    for path in (images / "a.png", images / "sub/deep/a.png", tmp_path / "other/b.jpg"):
        path.parent.mkdir(parents=True, exist_ok=True)
        image.save(path)
    (images / "day").symlink_to(tmp_path / "other")
    (images / "sub" / "up").symlink_to(images)
    (images / "c.png").symlink_to(images / "a.png")
    (images / "gone.jpg").symlink_to("nowhere.jpg")
    (images / "empty.jpg").touch()
    (images / "text.png").write_text("hello")
    os.mkfifo(images / "pipe.png")

    for _ in range(2):
        lines, error = lines_of(run[1], images, out)
        masks = {path.relative_to(out).as_posix() for path in out.rglob("*.png")}
        assert {name for name in masks if "_overlay" not in name} == {
            *("a.png", "c.png", "sub/deep/a.png", "day/b.png")
        }
        assert error.startswith("4 of 8 images")
        unread = "\n".join(line for line in lines if "not read" in line)
        assert all(name in unread for name in ("gone.jpg", "is empty", "no image file of a known"))
        assert "pipe.png: not read (it is no regular file)" in unread
        assert "BytesIO" not in unread

    monkeypatch.setattr(inference, "WHOLE_PIXELS", 1000)
    assert "40x30 pixels: too large to be seen whole" in lines_of(run[1], images, out)[0][0]


def test_a_name_that_is_no_text_is_predicted_and_can_be_printed(
    run: tuple[TrainConfig, Path], tmp_path: Path
) -> None:
    images, out, lines = tmp_path / "images", tmp_path / "out", list[str]()
    images.mkdir()
    name = os.fsdecode(b"bad\xff.png")
    Image.new("RGB", (40, 30)).save(images / name)

    words = [f"checkpoint={run[1]}", f"images={images}", f"out={out}", "device=cpu"]
    run_verb("predict", words, lines.append)

    assert (out / name).is_file()
    assert b"bad\xef\xbf\xbd.png" in lines[0].encode()


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A run on a folder of one's own, whose data are gone, and the file exported before."""
    place = tmp_path_factory.mktemp("own")
    rng = np.random.default_rng(0)
    for index in range(8):
        for kind, values, end in (("images", 256, "jpg"), ("masks", 3, "png")):
            (place / "data" / kind).mkdir(parents=True, exist_ok=True)
            shape = (32, 32, 3) if kind == "images" else (32, 32)
            pixels = rng.integers(0, values, shape, dtype=np.uint8)
            Image.fromarray(pixels).save(place / "data" / kind / f"{index}.{end}")
    (place / "data/dataset.yaml").write_text(
        "classes: [sky, tree, house]\nimages: images/{id}.jpg\nmasks: masks/{id}.png\n"
    )
    assert datasets_main(["prepare", "folder", f"root={place / 'data'}"]) == 0
    words = ["recipe=folder", "model=resnet14_w8", "model.init=random", "method=supervised_star"]
    words += ["method.match_iters=false", "loss=none", "data.crop=32", "optim.epochs=1"]
    words += ["optim.batch=2", "run.device=cpu", f"data.root={place / 'data'}"]
    train(compose(words), place / "run")
    export(place / "run", place / "model.safetensors")
    shutil.rmtree(place / "data")
    return place / "run", place / "model.safetensors"


def test_a_model_needs_no_training_data_beside_it(own: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    Image.new("RGB", (40, 30)).save(tmp_path / "images/a.png")

    run_folder, exported = own
    names = {}
    assert not export(run_folder, tmp_path / "late.safetensors")
    for path in (run_folder, exported, tmp_path / "late.safetensors"):
        assert not lines_of(path, tmp_path / "images", tmp_path / "out")[1]
        names[path.name] = load_trained(path).spec.class_names
    assert names["model.safetensors"] == ("sky", "tree", "house")
    assert names["run"] == names["late.safetensors"] == ("class 0", "class 1", "class 2")


def test_a_file_that_is_no_whole_model_is_one_sentence(
    own: tuple[Path, Path], tmp_path: Path
) -> None:
    data, path = own[1].read_bytes(), tmp_path / "model.safetensors"
    for size in (0, 4, 8, 100, 1000, len(data) // 2, len(data) - 1):
        path.write_bytes(data[:size])
        with pytest.raises(NetworkError, match="cut short or damaged"):
            load_trained(path)
    weights = {"a": torch.zeros(1)}
    for metadata in (None, {"format": "pt"}, {"run": "x"}, {"run": "[]"}, {"run": "{}"}):
        save_file(weights, path, metadata)
        with pytest.raises(NetworkError, match="was not written by `python -m trainer export`"):
            load_trained(path)
    with safe_open(own[1], framework="pt") as file:
        save_file(weights, path, file.metadata())
    with pytest.raises(NetworkError, match="does not hold the weights of folder"):
        load_trained(path)
    (tmp_path / "resnet.pth").write_bytes(b"x")
    shutil.copy(own[0] / "checkpoints/best.pt", tmp_path / "best.pt")
    for name in ("resnet.pth", "best.pt"):
        with pytest.raises(NetworkError, match=r"has no \w+\.json beside it"):
            load_trained(tmp_path / name)
