"""What one does with a trained run: predict, export, look at it in TensorBoard."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from datasets.opening import open_dataset
from tests.tiny import tiny_config
from trainer.config import TrainConfig
from trainer.evaluate import predict
from trainer.loading import NetworkError, load_trained
from trainer.run import train


@pytest.fixture(scope="module")
def run(drawn_root: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[TrainConfig, Path]:
    folder = tmp_path_factory.mktemp("runs") / "one"
    config = tiny_config(drawn_root, "loss=kl", "run.tensorboard=true")
    train(config, folder)
    return config, folder


def trainer(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "trainer", *words], capture_output=True, text=True, check=False
    )


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

    done = trainer("predict", f"checkpoint={folder}", f"images={images}", f"out={tmp_path / 'out'}")

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


def test_an_export_is_the_same_network_alone_in_one_file(
    run: tuple[TrainConfig, Path], tmp_path: Path
) -> None:
    config, folder = run

    for name in ("a", "b"):
        done = trainer("export", f"run={folder}", f"out={tmp_path / name}.safetensors")
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
        (["weights", "fetch"], "usage: python -m trainer weights fetch BACKBONE"),
    ],
)
def test_a_verb_given_wrong_words_says_what_it_takes(words: list[str], message: str) -> None:
    done = trainer(*words)

    assert done.returncode == 2
    assert message in done.stderr


def test_tensorboard_events_carry_the_terms(run: tuple[TrainConfig, Path]) -> None:
    files = list((run[1] / "tensorboard").rglob("events.out.tfevents.*"))

    assert files
    assert any(b"loss_inter_pixel" in path.read_bytes() for path in files)
