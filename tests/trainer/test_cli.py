"""`python -m trainer` as a stranger uses it."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from datasets.dataset import open_dataset
from datasets.loading.loader import BatchPlan, batches
from tests.support.process_groups import run_trainer, start_trainer
from tests.support.tiny_config import TINY, tiny_config
from tests.support.wait_for import wait_until
from tests.trainer.test_resume import final_digest
from trainer.cli import VERB_HELP, VERBS, run_command_line, run_lock
from trainer.config.compose import choices
from trainer.run import train

TRAINER = [sys.executable, "-m", "trainer"]


def words(drawn_root: Path, folder: Path, *more: str) -> list[str]:
    return [*TINY, f"data.root={drawn_root}", f"run.folder={folder}", *more]


def run(command: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_a_run_ends_with_its_score_and_its_files(drawn_root: Path, tmp_path: Path) -> None:
    done = run([*TRAINER, *words(drawn_root, tmp_path, "loss=kl", "run.log_steps=1")])

    assert done.returncode == 0, done.stderr
    assert "done: mIoU" in done.stdout
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    steps = [line for line in lines if "loss" in line]
    assert [line["step"] for line in steps] == list(range(1, 13))
    assert {
        "lr",
        "loss_labelled",
        "loss_strong",
        "loss_features",
        "loss_inter_pixel",
        "mask_ratio",
    } <= set(steps[0])
    assert [len(line["iou_percent"]) for line in lines if "iou_percent" in line] == [6] * 4
    progress = json.loads((tmp_path / "progress.json").read_text())
    assert (progress["step"], progress["total_steps"]) == (12, 12)
    assert json.loads((tmp_path / "config.json").read_text())["loss"]["name"] == "kl"


LONG = ("optim.epochs=16", "evaluation.every_epochs=16", "run.log_steps=1")


@pytest.fixture(scope="module")
def digest_of_straight_run(drawn_root: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("straight")
    train(tiny_config(drawn_root, *LONG), folder)
    return final_digest(folder)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_the_step_and_the_same_command_goes_on(
    drawn_root: Path, tmp_path: Path, number: signal.Signals, digest_of_straight_run: str
) -> None:
    arguments = words(drawn_root, tmp_path / "stopped", *LONG)
    command = start_trainer(arguments, tmp_path)
    wait_until((tmp_path / "stopped" / "metrics.jsonl").exists)
    os.kill(command.process.pid, number)
    stopped = command.wait()

    assert stopped.returncode == 10
    assert "the same command continues" in stopped.stdout
    done = run_trainer(arguments)
    assert done.returncode == 0
    assert final_digest(tmp_path / "stopped") == digest_of_straight_run


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["optim.eopchs=3"], "Did you mean optim.epochs"),
        (["data.split=1of3"], "1of3"),
        (["data.split=full"], "has no unlabelled images"),
        (
            ["method=ael", "method.u2pl.negatives=10"],
            "method.u2pl.negatives=10 is read by method.algorithm=u2pl, and this run has ael",
        ),
    ],
)
def test_a_wrong_argument_is_exit_code_2_and_leaves_no_folder(
    drawn_root: Path, tmp_path: Path, arguments: list[str], message: str
) -> None:
    done = run_trainer(words(drawn_root, tmp_path / "run", *arguments))

    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run").exists()


def test_help_lists_groups_and_settings() -> None:
    done = run([*TRAINER, "--help"])

    assert done.returncode == 0
    assert f"method: {', '.join(choices('method'))}" in done.stdout
    assert "loss.temperature" in done.stdout


@pytest.mark.parametrize("verb", VERBS)
def test_help_of_a_verb_is_of_that_verb_alone(verb: str, capsys: pytest.CaptureFixture) -> None:
    assert run_command_line([verb, "--help"]) == 0

    text, entry = capsys.readouterr().out, VERB_HELP[verb]
    assert text.startswith(f"usage: python -m trainer {verb}")
    examples = [f"python -m trainer {example}" for example in entry.examples]
    said = [*(form for form, _ in entry.forms), *(name for name, _ in entry.settings), *examples]
    assert [piece for piece in said if piece not in text] == []


def test_a_diverging_run_stops_and_names_its_samples(drawn_root: Path, tmp_path: Path) -> None:
    done = run_trainer(words(drawn_root, tmp_path, "optim.lr=1000", "optim.head_lr_factor=1000"))

    assert done.returncode == 11
    message = re.search(r"step (\d+) is not a number; samples on rank 0: (.*)\. Lower", done.stderr)
    assert message is not None, done.stderr
    config = tiny_config(drawn_root)
    step, dataset = int(message[1]), open_dataset(config.data)
    plan = BatchPlan(batch=4, start=step, stop=step + 1, num_channel_bits=8)
    ((labelled, unlabelled),) = batches(dataset, config.data, seed=config.seed, plan=plan)
    assert unlabelled is not None
    assert set(message[2].split(", ")) == {*labelled.ids, *unlabelled.ids, *unlabelled.mix_ids}
    assert "Lower optim.lr" in done.stderr


def test_an_unexpected_error_is_a_sentence_and_its_traceback_lies_in_the_run_folder(
    drawn_root: Path, tmp_path: Path
) -> None:
    arguments = words(drawn_root, tmp_path, "model.width=-4")
    failed, again = run_trainer(arguments), run_trainer([*arguments, "--traceback"])

    assert (failed.returncode, again.returncode) == (11, 11)
    (line,) = failed.stderr.splitlines()
    assert line.startswith("trainer: RuntimeError at trainer/network/resnet.py:")
    assert f"The traceback is in {tmp_path}/errors.log" in line
    assert (tmp_path / "errors.log").read_text().count("Traceback (most recent call last)") == 2
    assert "Traceback (most recent call last)" in again.stderr


def test_two_commands_never_train_in_one_folder(drawn_root: Path, tmp_path: Path) -> None:
    with run_lock(tmp_path):
        second = run_trainer(words(drawn_root, tmp_path))
        assert [path.name for path in tmp_path.iterdir()] == ["train.lock"]

    assert second.returncode == 2
    assert f"Another process trains in {tmp_path} (pid {os.getpid()} of" in second.stderr
    assert not tmp_path.exists()  # nothing came of it, so nothing is left


@pytest.mark.long
def test_torchrun_starts_the_ranks_of_one_run(drawn_root: Path, tmp_path: Path) -> None:
    torchrun = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--nproc-per-node",
        "2",
        "--master-port",
        "0",
        "--rdzv-backend",
        "c10d",
        "--rdzv-endpoint",
        "localhost:0",
    ]
    arguments = words(drawn_root, tmp_path / "run", "optim.epochs=1")

    done = subprocess.run(
        [*torchrun, "-m", "trainer", *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )

    assert done.returncode == 0, done.stderr
    assert (
        json.loads((tmp_path / "run" / "checkpoints" / "step-00000003.json").read_text())["guards"][
            "world_size"
        ]
        == 2
    )
    assert done.stdout.count("done: mIoU") == 1


def test_a_foreign_datasets_package_is_named_with_the_cure(tmp_path: Path) -> None:
    (tmp_path / "datasets").mkdir()
    (tmp_path / "datasets" / "__init__.py").write_text("")
    checkout = Path(__file__).resolve().parents[2]

    done = subprocess.run(
        TRAINER,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(checkout)},
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 2
    assert "Start from the checkout" in done.stderr
    assert "Traceback" not in done.stderr
