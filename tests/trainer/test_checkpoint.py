"""Checkpoints: whole or absent, refused when foreign, small in number."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event

import pytest
import torch

from datasets.files import file_sha256
from tests.support.process_groups import run_trainer
from tests.support.tiny_config import TINY, tiny_config
from tests.trainer.test_resume import final_digest, stop_after
from trainer.checkpoint import CheckpointError, Checkpoints, Snapshot
from trainer.checkpoint_manifest import newest_step
from trainer.distributed import Ranks
from trainer.run import train
from trainer.schedule import Schedule, Stage


def names(folder: Path) -> set[str]:
    return {path.name for path in (folder / "checkpoints").iterdir()}


def test_the_newest_two_and_the_best_are_kept(drawn_root: Path, tmp_path: Path) -> None:
    train(tiny_config(drawn_root, "run.checkpoint_steps=1"), tmp_path)

    stems = {"step-00000011", "step-00000012", "best"}
    assert names(tmp_path) == {stem + end for stem in stems for end in (".pt", ".json")}


@pytest.mark.parametrize("harm", ["truncate", "flip", "delete"])
def test_a_broken_newest_checkpoint_falls_back_to_the_one_before(
    drawn_root: Path, tmp_path: Path, harm: str
) -> None:
    config = tiny_config(drawn_root, "loss=kl", "run.checkpoint_steps=1")
    train(config, tmp_path / "whole")
    train(config, tmp_path / "harmed", should_stop=stop_after(7))
    path = tmp_path / "harmed" / "checkpoints" / "step-00000007.pt"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    {
        "truncate": lambda: path.write_bytes(data[:1000]),
        "flip": lambda: path.write_bytes(data),
        "delete": path.unlink,
    }[harm]()

    summary = train(config, tmp_path / "harmed")

    assert summary.status == "done"
    assert final_digest(tmp_path / "harmed") == final_digest(tmp_path / "whole")


@dataclass
class Copies:
    """A device that has not copied yet when it is asked, as a card whose step still runs."""

    done: Event = field(default_factory=Event)
    devices: list[torch.device] = field(default_factory=list)

    def mark(self, device: torch.device) -> "Copies":
        self.devices.append(device)
        return self

    def synchronize(self) -> None:
        assert self.done.wait(60)


ONE = Schedule((Stage("", epoch_steps=3, epochs=4),))


def test_the_writer_waits_for_the_copies_and_training_does_not(
    drawn_root: Path, tmp_path: Path
) -> None:
    copies, weight = Copies(), torch.zeros(3)
    ranks = Ranks(0, 1, torch.device("cpu"))
    checkpoints = Checkpoints(
        tmp_path, tiny_config(drawn_root), ranks, ONE, snapshot=Snapshot(copies.mark)
    )

    checkpoints.save({"step": 1, "tensors": {"weight": weight, "bias": weight}})
    weight.fill_(7.0)  # the next step

    assert copies.devices == [torch.device("cpu")]  # one mark, of all copies
    assert not checkpoints.folder.exists()
    copies.done.set()
    checkpoints.finish()
    packed = torch.load(checkpoints.folder / "step-00000001.pt", weights_only=True)
    assert torch.equal(packed["tensors"]["weight"], torch.zeros(3))


def test_a_file_without_its_manifest_was_never_written(drawn_root: Path, tmp_path: Path) -> None:
    train(tiny_config(drawn_root), tmp_path, should_stop=stop_after(5))

    (tmp_path / "checkpoints" / "step-00000005.json").unlink()

    assert newest_step(tmp_path) is None


def test_leftovers_of_a_dead_writer_are_swept(drawn_root: Path, tmp_path: Path) -> None:
    config = tiny_config(drawn_root)
    train(config, tmp_path, should_stop=stop_after(2))
    (tmp_path / "checkpoints" / "step-00000003.pt.tmp").write_bytes(b"half")

    train(config, tmp_path)

    assert not [name for name in names(tmp_path) if name.endswith(".tmp")]


def test_another_configuration_is_refused_with_the_changed_key(
    drawn_root: Path, tmp_path: Path
) -> None:
    train(tiny_config(drawn_root), tmp_path, should_stop=stop_after(2))

    with pytest.raises(CheckpointError, match=r"optim\.lr: 0\.01 -> 0\.5\. Choose another folder"):
        train(tiny_config(drawn_root, "optim.lr=0.5"), tmp_path)


def test_another_number_of_threads_is_refused(drawn_root: Path, tmp_path: Path) -> None:
    train(tiny_config(drawn_root), tmp_path, should_stop=stop_after(2))

    with pytest.raises(CheckpointError, match="threads was 1 and is 2"):
        train(tiny_config(drawn_root, "run.threads=2"), tmp_path)


def test_another_world_size_is_refused(drawn_root: Path, tmp_path: Path) -> None:
    train(tiny_config(drawn_root), tmp_path, should_stop=stop_after(2))
    path = tmp_path / "checkpoints" / "step-00000002.json"
    manifest = json.loads(path.read_text())
    manifest["guards"]["world_size"] = 3
    path.write_text(json.dumps(manifest))

    with pytest.raises(CheckpointError, match="world_size was 3 and is 1"):
        train(tiny_config(drawn_root), tmp_path)


def test_a_processor_of_another_kind_is_refused(drawn_root: Path, tmp_path: Path) -> None:
    train(tiny_config(drawn_root), tmp_path, should_stop=stop_after(2))
    path = tmp_path / "checkpoints" / "step-00000002.json"
    manifest = json.loads(path.read_text())
    manifest["guards"]["capability"] = "ABACUS"
    path.write_text(json.dumps(manifest))

    with pytest.raises(CheckpointError, match="capability was ABACUS and is"):
        train(tiny_config(drawn_root), tmp_path)


def rewritten(path: Path, number: int) -> None:
    """Make a checkpoint look as format 1 was, under some format number."""
    packed = torch.load(path, weights_only=True)
    old = {"network.": "", "momentum.student.": "momentum."}
    for start, was in old.items():
        packed["tensors"] = {
            was + name.removeprefix(start) if name.startswith(start) else name: value
            for name, value in packed["tensors"].items()
        }
    torch.save(packed, path)
    manifest = json.loads(path.with_suffix(".json").read_text())
    manifest["guards"]["format"] = number
    manifest["sha256"] = file_sha256(path)
    path.with_suffix(".json").write_text(json.dumps(manifest))


def test_a_checkpoint_of_one_student_and_one_average_goes_on(
    drawn_root: Path, tmp_path: Path
) -> None:
    config = tiny_config(drawn_root, "loss=kl", "method.teacher=ema", "optim.epochs=2")
    train(config, tmp_path / "whole")
    train(config, tmp_path / "old", should_stop=stop_after(4))
    path = tmp_path / "old" / "checkpoints" / "step-00000004.pt"

    rewritten(path, number=1)
    names = torch.load(path, weights_only=True)["tensors"]
    train(config, tmp_path / "old")

    assert {name.split(".")[0] for name in names} == {"student", "ema", "momentum"}
    assert "momentum.backbone.bn1.weight" in names
    assert final_digest(tmp_path / "old") == final_digest(tmp_path / "whole")


def test_a_checkpoint_of_an_unknown_format_is_refused(drawn_root: Path, tmp_path: Path) -> None:
    train(tiny_config(drawn_root), tmp_path, should_stop=stop_after(1))
    rewritten(tmp_path / "checkpoints" / "step-00000001.pt", number=99)

    with pytest.raises(CheckpointError, match="format was 99 and is 2"):
        train(tiny_config(drawn_root), tmp_path)


def test_a_full_disk_leaves_the_older_checkpoint_whole(drawn_root: Path, tmp_path: Path) -> None:
    config = tiny_config(drawn_root, "loss=kl")
    train(config, tmp_path, should_stop=stop_after(5))
    words = [*TINY, "loss=kl", f"data.root={drawn_root}", f"run.folder={tmp_path}"]

    done = run_trainer(words, max_file_bytes=65536)

    assert done.returncode == 11
    assert "Could not write a checkpoint" in done.stderr
    assert "The older checkpoint is whole" in done.stderr
    assert newest_step(tmp_path) == 5
    assert not [name for name in names(tmp_path) if name.endswith(".tmp")]
    assert train(config, tmp_path).status == "done"
