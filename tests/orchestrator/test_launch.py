"""A launch in one process: what runs, what stays, and what the exit code says."""

import os
import shutil
import signal
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch

from datasets.dataset import open_dataset
from orchestrator.__main__ import main
from orchestrator.launch import check_parts_of_cards
from orchestrator.options import LaunchOptions
from orchestrator.planning.plan import PlannedCell, State
from tests.support.lab import KL, SUPERVISED, UNIMATCH, Lab, kill_all
from trainer.config.compose import compose
from trainer.inference import export, load_trained, predict_folder

INLINE = "backend=inline"
DIVERGES = ("optim.lr=1000", "optim.epochs=8")
Weights = dict[str, tuple[str | None, float | None]]


def test_a_grid_runs_once_and_is_then_done(lab: Lab) -> None:
    lab.write_grid(("supervised_star", "none"), ("unimatch_star", "kl"))

    text = lab.run("launch", INLINE)
    again = lab.run("launch", INLINE)

    assert "2 done of 2 cells" in text
    assert "start" not in again
    assert lab.attempts(KL) == 1
    row = lab.rows()[KL]
    assert (row.status, row.backend, row.attempt, row.world_size) == ("done", "inline", 1, 1)
    assert row.error_class is None
    assert row.git_commit is not None
    assert row.torch is not None
    assert len(row.class_names) == len(row.best_iou_percent)
    assert "tiny: 2 cells: 2 done" in lab.run("status")


def test_a_cell_of_three_trainings_is_one_row_and_its_network_predicts_and_is_exported(
    lab: Lab,
) -> None:
    lab.write_grid(("st_plusplus", "cr"))
    key = KL.replace("unimatch_star.kl", "st_plusplus.cr")

    lab.run("launch", INLINE)

    row, folder = lab.rows()[key], lab.opened.run(key).folder
    assert (row.status, row.epochs, row.last_epoch) == ("done", 3, 3)
    # Twelve labelled images twice; with 6 others; with 12 others: eight in each step.
    assert row.steps == 24 // 8 + 18 // 8 + 24 // 8
    trained, images = load_trained(folder), folder.parent / "images"
    images.mkdir()
    dataset = open_dataset(trained.config.data)
    dataset.tree.image(dataset.split.validation[0]).save(images / "a.png")
    list(predict_folder(trained, images, folder.parent / "masks", "cpu"))
    export(folder, folder.parent / "network.safetensors")
    again = load_trained(folder.parent / "network.safetensors")
    weights = again.network.state_dict()
    assert (folder.parent / "masks" / "a.png").exists()
    for name, value in trained.network.state_dict().items():
        assert torch.equal(weights[name], value)


def test_a_gpu_that_torch_cannot_use_ends_the_launch_and_leaves_no_run_and_no_row(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lab.write_grid(("supervised_star", "none"), ("unimatch_star", "kl"))
    monkeypatch.setenv("SLURM_JOB_GPUS", "99")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "99")

    code = main(["launch", str(lab.grid), *lab.words, INLINE])

    text = capsys.readouterr().out
    assert code == 11
    assert text.count("start ") == 1  # the second would fare no better
    assert "no_device: " in text
    assert "SLURM_JOB_GPUS=99 asks for a GPU, which torch cannot use: " in text
    assert not (lab.root / "runs").exists()
    assert not lab.rows()
    monkeypatch.undo()
    assert lab.states() == {SUPERVISED: "missing", KL: "missing"}


def test_gpus_beside_run_device_cpu_are_refused(lab: Lab) -> None:
    lab.write_grid(("supervised_star", "none"))

    text = lab.run("launch", INLINE, "run.device=cpu", "gpus_per_rank=1", code=2)

    assert "gpus_per_rank=1 reserves GPUs that run.device=cpu never uses" in text


def planned(recipe: str) -> PlannedCell:
    config = compose([f"recipe={recipe}", "model=resnet50"])
    return PlannedCell(config.key, State.missing, "", config, "")


@pytest.mark.parametrize(
    ("recipe", "options", "message"),
    [
        ("voc", LaunchOptions(gpus_per_rank=0.5), "cuDNN silently takes another algorithm"),
        ("cityscapes", LaunchOptions(gpus_per_rank=0.25), "Use gpus_per_rank=1; parts of a card"),
        ("synthetic", LaunchOptions(gpus_per_rank=0.5, ranks=2), "NCCL refuses two ranks on one"),
        ("synthetic", LaunchOptions(gpus_per_rank=0.5), ""),
        ("voc", LaunchOptions(gpus_per_rank=1.0), ""),
        ("voc", LaunchOptions(), ""),
    ],
)
def test_a_part_of_a_card_is_refused_for_published_data(
    recipe: str, options: LaunchOptions, message: str
) -> None:
    refusal = pytest.raises(ValueError, match=message) if message else nullcontext()

    with refusal:
        check_parts_of_cards(options, [planned(recipe)])


def test_a_grid_grown_by_one_cell_runs_one_cell(lab: Lab) -> None:
    lab.write_grid(("supervised_star", "none"))
    lab.run("launch", INLINE)

    lab.write_grid(("supervised_star", "none"), ("unimatch_star", "none"))
    text = lab.run("launch", INLINE)

    assert text.count("start ") == 1
    assert (lab.attempts(SUPERVISED), lab.attempts(UNIMATCH)) == (1, 1)


def test_drifted_cells_are_left_alone_until_asked_and_nothing_is_deleted(lab: Lab) -> None:
    lab.write_grid(("supervised_star", "none"))
    lab.run("launch", INLINE)
    before = lab.weights()

    text = lab.run("launch", INLINE, "optim.momentum=0.8", code=10)
    assert "rerun=drifted" in text
    assert lab.weights() == before

    lab.run("launch", INLINE, "optim.momentum=0.8", "rerun=drifted")
    assert lab.states("optim.momentum=0.8") == {SUPERVISED: "done"}
    row = lab.rows()[SUPERVISED]
    assert row.attempt == 2
    (aside,) = (lab.root / "runs").glob(f"{SUPERVISED}~*")
    assert (aside / "checkpoints" / "best.pt").exists()


def test_a_diverged_cell_fails_for_good_with_its_traceback_and_the_others_run(lab: Lab) -> None:
    lab.write_grid(("supervised_star", "none"))

    text = lab.run("launch", INLINE, *DIVERGES, code=11)

    assert "failed" in text
    assert "Lower optim.lr" in text
    row = lab.rows()[SUPERVISED]
    assert (row.status, row.error_class) == ("failed", "diverged")
    assert "Traceback" in (row.error_text or "")
    log = lab.opened.run(SUPERVISED).log(1)
    assert "Diverged" in log.read_text()
    assert lab.run("status", *DIVERGES, code=11)


@pytest.mark.parametrize("broken", ["SegmentationClass", "JPEGImages"])
def test_missing_data_ends_a_launch_before_anything_is_written(lab: Lab, broken: str) -> None:
    lab.write_grid(("supervised_star", "none"))
    own = Lab(lab.folder, lab.folder / "data")
    own.run("launch", INLINE)
    shutil.rmtree(own.root)
    victim = sorted((own.data / broken).iterdir())[-1]  # of the validation list
    victim.unlink()

    text = own.run("launch", INLINE, code=2)

    assert victim.name in text
    assert not (own.root / "runs").exists()
    assert not (own.root / "results").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["optim.epoch=3"], "Did you mean optim.epochs"),
        (["optim.epochs=three"], "optim.epochs"),
        (["method=unimatch"], "would change what every cell of the grid says itself"),
        (["only=voc*"], "fits none"),
        (["root=gs://bucket/x"], "is no place for runs"),
        (["root=s3://key:secret@bucket/x"], "credentials in its URL"),
    ],
)
def test_a_mistake_in_words_is_exit_code_2_and_leaves_nothing(
    lab: Lab, words: list[str], message: str
) -> None:
    lab.write_grid(("supervised_star", "none"))

    text = lab.run("launch", INLINE, *words, code=2)

    assert message in text
    assert "Traceback" not in text
    assert not lab.root.exists()


def test_an_unknown_verb_a_missing_grid_and_help_answer_in_words(lab: Lab) -> None:
    assert "Verbs: plan, launch" in lab.run("lunch", code=2)
    assert "--json" in lab.run("plan", "--help")
    assert "demo" in lab.run("plan", "--help")
    assert str(lab.grid) in lab.run("plan", code=2)


def test_a_second_launch_of_a_running_grid_names_the_first(long_lab: Lab) -> None:
    first = long_lab.start("launch", INLINE)
    worker = long_lab.worker_at(UNIMATCH, step=1)
    os.kill(worker, signal.SIGSTOP)  # it shall not be done before we have looked

    text = long_lab.run("launch", INLINE, code=10)

    assert f"process {first.pid} on " in text
    assert long_lab.states()[UNIMATCH] == "running"
    kill_all(first)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_checkpoints_and_the_next_launch_goes_on_to_the_same_weights(
    long_lab: Lab, undisturbed: Weights, number: signal.Signals
) -> None:
    process = long_lab.start("launch", INLINE)
    long_lab.worker_at(UNIMATCH, step=3)

    os.killpg(process.pid, number)
    text, _ = process.communicate(timeout=60)

    assert process.returncode == 10, text
    assert "once more to leave at once" in text
    assert long_lab.states()[UNIMATCH] == "interrupted"
    diary = long_lab.events(UNIMATCH)
    assert [entry["event"] for entry in diary] == ["started", "stopped"]
    assert not list((long_lab.root / "grids" / "tiny").glob("stop-*"))
    long_lab.run("launch", INLINE)
    assert long_lab.weights() == undisturbed


def test_a_killed_launch_is_launched_again_to_the_same_weights(
    long_lab: Lab, undisturbed: Weights
) -> None:
    for step in (2, 7):
        process = long_lab.start("launch", INLINE)
        long_lab.worker_at(UNIMATCH, step=step)
        kill_all(process)

    long_lab.run("resume", INLINE, code=10)
    assert long_lab.attempts(KL) == 0
    long_lab.run("launch", INLINE)

    assert long_lab.weights() == undisturbed
    assert long_lab.attempts(UNIMATCH) == 3


def test_a_full_disk_ends_the_launch_in_words_and_half_writes_nothing(lab: Lab) -> None:
    lab.write_grid(("supervised_star", "none"), ("unimatch_star", "none"))
    for key in (SUPERVISED, UNIMATCH):
        run = lab.opened.run(key)
        run.folder.mkdir(parents=True)
        # The kernel's own full disk: every write below this name fails with ENOSPC.
        run.progress.with_name("progress.json.tmp").symlink_to(Path("/dev/full"))

    text = lab.run("launch", INLINE, code=11)

    assert "disk_full" in text
    assert "Make room on the disk" in text
    assert text.count("start ") == 1
    assert [row.error_class for row in lab.rows().values()] == ["disk_full"]
    assert not list(lab.root.rglob("*.tmp.*"))
    for key in (SUPERVISED, UNIMATCH):
        lab.opened.run(key).progress.with_name("progress.json.tmp").unlink(missing_ok=True)
    lab.run("launch", INLINE)
    assert len(lab.weights()) == 2


def test_a_checkpoint_of_another_configuration_is_never_mixed_in(lab: Lab) -> None:
    lab.write_grid(("unimatch_star", "kl"), epochs=20)
    process = lab.start("launch", INLINE)
    lab.worker_at(KL, step=2)
    kill_all(process)

    lab.write_grid(("unimatch_star", "kl"), epochs=1)
    text = lab.run("launch", INLINE, code=10)
    assert "optim.epochs" in lab.run("plan")
    assert "rerun=drifted" in text

    lab.run("launch", INLINE, "rerun=drifted")
    fresh = Lab(lab.folder / "fresh", lab.data)
    fresh.folder.mkdir()
    fresh.write_grid(("unimatch_star", "kl"), epochs=1)
    fresh.run("launch", INLINE)
    assert lab.weights() == fresh.weights()
