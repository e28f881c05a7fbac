"""A printed number is trained again elsewhere, with the code and on the data of its row."""

import hashlib
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.__main__ import main
from orchestrator.execution.code_snapshot import CODE_PACKAGES, snapshot_code
from orchestrator.reproduction.retrain import ProgressLines
from orchestrator.reproduction.row_code import code_of, earlier_code
from orchestrator.reproduction.verdict import Trace, compare
from orchestrator.storage.local_root import LocalRoot
from orchestrator.storage.run_state import append_event
from orchestrator.storage.s3_root import S3Root
from sweeps.cell import Cell
from tests.support.lab import SUPERVISED, Lab, committed
from tests.support.result_rows import row_of


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    """A root with one run of two epochs, and the checkout that made it, edited since."""
    folder = tmp_path_factory.mktemp("done")
    lab = Lab(folder, folder / "tree").with_own_checkout()
    committed(lab.checkout)
    lab.write_grid(("supervised_star", "none"), epochs=2)
    lab.run("launch", "backend=inline")
    edited = lab.checkout / "trainer/schedule.py"
    plain = edited.read_text().replace("def learning_rate(", "def _plain_rate(")
    assert plain != edited.read_text()
    edited.write_text(f"{plain}\n\ndef learning_rate(*_):\n    return 0.0\n")
    return lab


def contents(*folders: Path) -> dict[Path, str]:
    """Sha256 of every file."""
    files = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    return {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.mark.long
def test_a_number_comes_out_again_by_the_code_of_its_row_and_touches_nothing(done: Lab) -> None:
    before = contents(done.root / "runs", done.root / "results")

    text = done.run("reproduce", "tiny/supervised-star/miou")

    assert "same bits: final weights" in text
    assert "1 run to train again, about " in text
    assert text.index("1 run to train again") < text.index("epoch 1 of 2, step")
    assert re.search(r"epoch 2 of 2, step \d+, mIoU \d+\.\d\d, 0:00:0\d left\n", text)
    assert "None" not in text
    assert "differs" not in text
    assert contents(done.root / "runs", done.root / "results") == before
    place = done.root / "reproductions" / f"{SUPERVISED}.a0001"
    assert (place / "verdict.json").is_file()


@pytest.mark.long
def test_todays_code_parts_at_a_step_that_is_said(done: Lab) -> None:
    text = done.run("reproduce", SUPERVISED, "code=now", code=1)

    assert re.search(r"different: best mIoU [\d.]+ then, [\d.]+ now", text)
    assert re.search(r"different from step \d on: loss [\d.]+ -> [\d.]+ \(by ", text)
    assert re.search(r"differs: code: (\w{12}) -> \1 with uncommitted changes", text)


def test_data_that_changed_are_refused_with_their_names(
    done: Lab, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "tree"
    shutil.copytree(done.data, data)
    mask = sorted(path for path in data.rglob("*.png"))[0]
    mask.write_bytes(mask.read_bytes() + b"\0")
    words = [f"root={done.root}", f"data.root={data}", "code=now"]

    assert main(["reproduce", str(done.grid), SUPERVISED, *words]) == 2

    error = capsys.readouterr().err
    assert "its data are no longer those of attempt 1" in error
    assert mask.name in error


@pytest.mark.parametrize(
    ("words", "error"),
    [
        ([], "reproduce takes one number"),
        ([SUPERVISED, "optim.lr=1"], "optim.lr=1 would change what is trained"),
        ([SUPERVISED, "code=old"], "code=old: known are row, now"),
        (["tiny/nothing"], "of this grid are tiny/supervised-star/miou; the cells with a result, "),
        (["nothing"], SUPERVISED),
    ],
)
def test_words_that_do_not_fit_are_refused(
    done: Lab, capsys: pytest.CaptureFixture[str], words: list[str], error: str
) -> None:
    own = [f"root={done.root}", f"data.root={done.data}"]
    assert main(["reproduce", str(done.grid), *own, *words]) == 2
    assert error in capsys.readouterr().err


@pytest.mark.parametrize(
    ("number", "error"),
    [
        ("table3/321/cac/resnet50-p1-1of16", "quoted, not run here; source: "),
        ("table1/p2-92/none", "has no run to train again: nothing yet"),
        ("table1", "entries; choose one of them: table1/"),
    ],
)
def test_a_number_without_a_run_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], number: str, error: str
) -> None:
    assert main(["reproduce", number.partition("/")[0], number, f"root={tmp_path}"]) == 2
    assert error in capsys.readouterr().err


@pytest.fixture
def repository(tmp_path: Path) -> tuple[Path, str]:
    """A checkout with a file per package, and its only commit."""
    checkout = tmp_path / "checkout"
    for package in CODE_PACKAGES:
        (checkout / package).mkdir(parents=True)
        (checkout / package / "file.py").write_text(f"# {package}\n")
    return checkout, committed(checkout)


ROW = row_of(Cell.parse(SUPERVISED), 50.0, git_dirty=False)


def test_the_code_of_a_commit_is_stored_once(tmp_path: Path, repository: tuple[Path, str]) -> None:
    checkout, commit = repository
    root, row = LocalRoot(tmp_path / "root"), replace(ROW, git_commit=commit)

    code = code_of(row, root, None, checkout)
    shutil.rmtree(checkout)

    assert (code / "trainer/file.py").read_text() == "# trainer\n"
    assert code.parent == root.code
    with pytest.raises(ValueError, match=f"of commit {commit[:10]}, of which there is no copy"):
        code_of(row, root, None, checkout)


def test_uncommitted_code_is_found_by_the_copy_that_its_launch_made(tmp_path: Path) -> None:
    root, row = LocalRoot(tmp_path), replace(ROW, git_dirty=True)
    run = root.run(row.key)
    run.folder.mkdir(parents=True)
    copy = snapshot_code(root.code)
    append_event(run, "started", attempt=1, code=copy.name)

    assert code_of(row, root, run.folder) == copy
    (copy / "trainer/loop.py").write_text("edited")
    with pytest.raises(ValueError, match=r"not committed.* is gone or was edited.* code=now"):
        code_of(row, root, run.folder)


def test_the_copy_of_a_launch_into_a_bucket_lies_where_it_was_launched(tmp_path: Path) -> None:
    root, row = S3Root("s3://b/p", str(tmp_path / "scratch")), replace(ROW, git_dirty=True)
    run = LocalRoot(tmp_path).run(row.key)
    run.folder.mkdir(parents=True)
    append_event(run, "started", attempt=1, code="1" * 64)

    with pytest.raises(ValueError, match=r"lies on the machine that launched it, in code/1{64} of"):
        code_of(row, root, run.folder)


def test_attempts_of_other_code_before_a_row_are_said_in_a_sentence(tmp_path: Path) -> None:
    run = LocalRoot(tmp_path).run(SUPERVISED)
    run.folder.mkdir(parents=True)
    failed = replace(ROW, attempt=2, status="failed", git_commit="b" * 40)  # has no event here
    row = replace(ROW, attempt=5, git_commit="e" * 40)
    done = replace(ROW, attempt=1, git_commit="a" * 40)  # what came before it was finished
    for attempt, commit, is_dirty in ((3, "c", True), (4, "e", False), (5, "e", False)):
        facts = {"git_commit": commit * 40, "git_dirty": is_dirty}
        append_event(run, "started", attempt=attempt, code="", **facts)

    text = earlier_code(row, [done, failed, row], run.folder)

    assert text == (
        "attempt 5 (commit eeeeeeeeee) went on from attempts of other code (attempt 2 commit "
        "bbbbbbbbbb, attempt 3 commit cccccccccc with changes), whose part is trained here by its "
        "code as well"
    )
    assert earlier_code(replace(row, attempt=2, git_commit="b" * 40), [done, failed], None) == ""


def test_two_copies_of_code_in_one_run_are_told_apart(tmp_path: Path) -> None:
    run = LocalRoot(tmp_path).run(SUPERVISED)
    run.folder.mkdir(parents=True)
    for attempt, code in enumerate(("1" * 64, "2" * 64, "2" * 64), start=1):
        append_event(run, "started", attempt=attempt, code=code)

    text = earlier_code(replace(ROW, attempt=3), [], run.folder)

    assert "attempt 3 (copy 2222222222) went on from attempts of other code (attempt 1 copy" in text
    assert "attempt 2" not in text


SUMMARY = {
    "best_miou_percent": 50.0,
    "last_miou_percent": 49.0,
    "weights_sha256": "a" * 64,
    "device": "cpu",
    "world_size": 1,
    "data_fingerprint": None,
    "split_checksum": None,
    "pretrained_sha256": None,
}
FACTS = {"host": None, "python": None, "torch": "2.13.0", "cuda": None, "code": ""}


def verdict(then: Trace, now: Trace, facts: dict[str, object] | None = None, **summary: object):
    values = {"summary": SUMMARY | summary, "facts": FACTS | (facts or {})}
    return compare(ROW, then, now, **values, decimals=1)


def test_equal_weights_and_scores_are_the_same_bits() -> None:
    same = Trace({7: "d"}, {5: {"loss": 1.0}})

    answer = verdict(same, same)

    assert answer.kind == "same bits"
    assert answer.facts == ()
    assert (answer.same_until, answer.different_from) == (7, None)


def test_how_far_and_since_when_is_said() -> None:
    then = Trace({4: "a", 7: "d"}, {3: {"loss": 1.0, "lr": 0.1}, 6: {"loss": 0.5, "lr": 0.1}})
    now = Trace({4: "a", 7: "e"}, {3: {"loss": 1.0, "lr": 0.1}, 6: {"loss": 0.75, "lr": 0.1}})

    answer = verdict(then, now, {"torch": "2.14.0"}, best_miou_percent=50.04, weights_sha256="c")

    assert answer.kind == "same within rounding"
    lines = list(answer.lines())
    assert "best mIoU 50.0000 then, 50.0400 now (+0.0400)" in lines[0]
    assert lines[0].startswith("same within rounding to 1 decimal, with other weights: best")
    assert lines[1:] == [
        "the same up to step 4, different from step 6 on: loss 0.5 -> 0.75 (by +2.5e-01)",
        "differs: torch: 2.13.0 -> 2.14.0",
    ]


def test_a_score_beyond_half_a_printed_digit_is_different_also_without_traces() -> None:
    answer = verdict(Trace(), Trace(), last_miou_percent=49.06, weights_sha256="c", device="H200")

    assert answer.kind == "different"
    assert list(answer.lines())[1:] == [
        "since which step is not known: the first run left no trace that differs",
        "differs: device: cpu -> H200",
    ]


def test_a_score_that_one_run_lacks_has_no_difference() -> None:
    answer = verdict(Trace(), Trace(), last_miou_percent=None, weights_sha256="c")

    assert next(answer.lines()).endswith("last mIoU 49.0000 then, none now")


def test_progress_has_a_line_per_epoch_and_every_half_minute_of_a_long_one() -> None:
    lines, known = ProgressLines(), {"epochs": 2, "miou_percent": None, "seconds_left": None}

    shown = [
        lines.next_line(known | {"epoch": epoch, "step": step}, now=float(second))
        for second, step, epoch in ((0, 1, 0), (1, 2, 0), (31, 3, 0), (32, 4, 1))
    ]
    last = known | {"epoch": 2, "step": 9, "miou_percent": 41.23456, "seconds_left": 3700.4}

    assert shown == [
        "epoch 0 of 2, step 1",
        "",
        "epoch 0 of 2, step 3",
        "epoch 1 of 2, step 4",
    ]
    assert lines.next_line(last, now=33.0) == "epoch 2 of 2, step 9, mIoU 41.23, 1:01:40 left"
