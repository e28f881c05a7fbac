"""A grid under root=s3:// on a real server: the same weights, whatever happens to whom."""

import json
import os
import shutil
import signal
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from orchestrator.__main__ import main
from orchestrator.failures import StaleAttempt
from orchestrator.storage.file_lock import FRESH_VARIABLE
from orchestrator.storage.open import open_root
from orchestrator.storage.root import Root, RunOwner
from orchestrator.storage.s3_lock import LockRecord
from orchestrator.storage.s3_storage import PATIENCE_VARIABLE, storage_of
from orchestrator.storage.sync import MARKER, RunUploader
from tests.orchestrator.storage.test_s3_lock import ELSEWHERE
from tests.support.lab import KL, SUPERVISED, UNIMATCH, Lab, kill_all, wait_until
from tests.support.s3.ceph import SECRET
from tests.support.s3.session import Store
from trainer.checkpoint_manifest import CHECKPOINTS

INLINE = "backend=inline"
Weights = dict[str, tuple[str | None, float | None]]


@pytest.fixture
def far(lab: Lab, store: Store) -> Lab:
    """A lab whose root is in the object store; None where there is none."""
    return Lab(lab.folder, lab.data, store.url) if store is not None else None


def on_another_host(lab: Lab) -> Lab:
    return Lab(lab.folder, lab.data, lab.url, host="another")


@pytest.fixture
def root(store: Store, tmp_path: Path) -> Iterator[Root]:
    """A root whose owners look around every half second."""
    os.environ[FRESH_VARIABLE] = "3"
    yield open_root(store.url, str(tmp_path / "host"))
    del os.environ[FRESH_VARIABLE]


def owned(root: Root) -> AbstractContextManager[RunOwner]:
    stop = "/on/another/host/grids/tiny/stop-1"
    return root.own_run(KL, "a start", wait_seconds=0.0, stop_file=stop)


def test_a_grid_is_done_once_and_all_of_it_lies_in_the_store(far: Lab, lab: Lab) -> None:
    far.write_grid(("supervised_star", "none"))
    far.run("launch", INLINE)
    text = far.run("launch", INLINE)
    lab.run("launch", INLINE)

    assert "start" not in text
    assert far.weights() == lab.weights()
    storage = storage_of(far.url)
    names = [entry.name for entry in storage.entries()]
    assert any("best.pt" in name for name in names)
    assert not any(SECRET.encode() in storage.read(name) for name in names)
    left = [path for path in (far.folder / far.host).rglob("*") if path.is_file()]
    assert {path.name for path in left} == {"lock"}
    assert [line["event"] for line in far.events(SUPERVISED)] == ["started", "done"]


def test_a_number_of_the_store_comes_out_again_on_another_host(
    far: Lab, capsys: pytest.CaptureFixture[str]
) -> None:
    far.write_grid(("supervised_star", "none"))
    far.run("launch", INLINE)
    before = storage_of(far.url).entries()
    out = Path("outputs") / far.url.removeprefix("s3://")
    try:
        words = [*on_another_host(far).words, "code=now"]
        assert main(["reproduce", str(far.grid), "tiny/supervised-star/miou", *words]) == 0

        assert "same bits: final weights" in capsys.readouterr().out
        assert (out / f"reproductions/{SUPERVISED}.a0001/verdict.json").is_file()
        assert storage_of(far.url).entries() == before
    finally:
        shutil.rmtree(out.parents[1], ignore_errors=True)


def test_seeds_run_until_settled_by_a_design_in_the_store(far: Lab) -> None:
    far.write_grid(("unimatch_star", "none"), ("unimatch_star", "kl"))
    words = ("seeds=auto", "max_seeds=6", INLINE)

    text = far.run("launch", *words)
    again = on_another_host(far).run("launch", *words)

    assert "6 done of 6 cells" in text
    assert "3 of 6 planned seeds; stopped as futile at look 1" in text
    assert "start " not in again
    assert "stopped as futile at look 1" in again


def test_readers_work_on_the_store_with_few_requests(
    far: Lab, store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    far.write_grid(("supervised_star", "none"), ("unimatch_star", "none"))
    far.run("launch", INLINE, f"only={SUPERVISED}")

    def ask(verb: str, *words: str, code: int = 0) -> str:
        assert main([verb, str(far.grid), *far.words[:2], *words]) == code
        return capsys.readouterr().out

    store.proxy.heal()
    found = json.loads(ask("status", "--json", code=10))
    states = {cell["key"]: (cell["state"], cell["epoch"]) for cell in found["cells"]}
    assert states == {SUPERVISED: ("done", 1), UNIMATCH: ("missing", 0)}
    assert store.proxy.count("GET") <= 6  # knock, rows twice, one row, runs

    out = Path("outputs") / far.url.removeprefix("s3://")
    try:
        assert f"also under {far.url}" in ask("report")
        assert "supervised_star" in (out / "reports/tiny.html").read_text()
        assert storage_of(far.url).read("reports/tiny.html")
        ask("export", "to=csv")
        assert storage_of(far.url).read("exports/tiny/csv/rows.csv")
        ask("compact")
        assert '"done"' in ask("query", "SELECT status FROM rows", "--json")
        assert main(["logs", SUPERVISED, f"root={far.url}"]) == 0
        assert "miou_percent" in capsys.readouterr().out
    finally:
        shutil.rmtree(out.parents[1], ignore_errors=True)


def test_a_drifted_cell_is_set_aside_in_the_store(far: Lab) -> None:
    far.write_grid(("supervised_star", "none"))
    far.run("launch", INLINE)
    far.run("launch", INLINE, "optim.momentum=0.8", "rerun=drifted")

    assert far.rows()[SUPERVISED].attempt == 2
    names = [entry.name for entry in storage_of(far.url).entries(f"runs/{SUPERVISED}~")]
    assert any("best.pt" in name for name in names)
    aside = names[0].partition("/files/")[0]
    assert far.opened.places(SUPERVISED) == {1: aside, 2: f"runs/{SUPERVISED}"}
    assert far.states("optim.momentum=0.8") == {SUPERVISED: "done"}


def test_another_host_goes_on_from_what_a_killed_one_had_pushed(
    long_lab: Lab, far: Lab, undisturbed: Weights
) -> None:
    first = far.start("launch", INLINE)
    far.worker_at(KL, step=4)
    kill_all(first)
    step = far.opened.newest_step(KL)

    far = on_another_host(far)
    assert far.states()[KL] == "interrupted"
    far.run("launch", "backend=ray")

    assert step is not None
    assert step >= 4
    assert far.weights() == undisturbed
    assert far.attempts(KL) == 2


def test_another_host_goes_on_in_the_work_between_two_trainings(lab: Lab, far: Lab) -> None:
    lab.write_grid(("st_plusplus", "kl"))
    lab.run("launch", INLINE)
    launch, scratch = far.start("launch", INLINE), far.folder / far.host
    # Not below .KEY.push, which vanishes while one looks.
    masks = "*/*/runs/[!.]*/stages/reliable/masks/*.png"
    wait_until(lambda: len(list(scratch.glob(masks))) >= 2)
    kill_all(launch)
    shutil.rmtree(scratch)

    far = on_another_host(far)
    far.run("launch", INLINE)

    assert [row.attempt for row in far.rows().values()] == [2]
    assert far.weights() == lab.weights()


def test_a_run_that_is_stopped_and_goes_on_under_faults_gives_the_same_weights(
    long_lab: Lab, far: Lab, store: Store, undisturbed: Weights
) -> None:
    first = far.start("launch", INLINE)
    far.worker_at(KL, step=2)
    first.send_signal(signal.SIGINT)
    text, _ = first.communicate(timeout=100)
    assert first.returncode == 10, text
    assert far.states()[KL] == "interrupted"

    for pattern in (r"PUT .*\.pt", "PUT .*folder.json", "PUT .*/lock", "GET .*folder.json"):
        store.proxy.harm(pattern, "status", times=3)
        store.proxy.harm(pattern, "lose_answer", times=2)
        store.proxy.harm(pattern, "cut_request", times=2, count=100)
    for pattern in ("PUT .*results", "GET .*results"):
        store.proxy.harm(pattern, "status", times=2)
        store.proxy.harm(pattern, "lose_answer", times=1)
    far.run("launch", INLINE)

    assert far.weights() == undisturbed
    assert all(rule.hits for rule in store.proxy.rules[:9])  # those on PUT


def test_a_row_that_could_not_be_published_is_published_by_the_next_launch(
    far: Lab, store: Store
) -> None:
    far.write_grid(("supervised_star", "none"))
    os.environ[PATIENCE_VARIABLE] = "1"
    store.proxy.harm("PUT .*results/rows", "status")

    text = far.run("launch", INLINE, "retries=0", code=11)
    del os.environ[PATIENCE_VARIABLE]
    assert "store_lost" in text
    store.proxy.heal()
    far.run("launch", INLINE)

    assert far.rows()[SUPERVISED].status == "done"
    assert far.rows()[SUPERVISED].attempt == 2
    assert not store.proxy.count(rf"GET .*{CHECKPOINTS}/step.*\.pt")  # it went on from the scratch


def test_mistakes_about_the_store_are_words_before_anything_runs(
    far: Lab, store: Store, lab: Lab
) -> None:
    far.write_grid(("supervised_star", "none"))
    assert "does not exist" in far.run("launch", INLINE, "root=s3://no-such-bucket/x", code=2)

    before = os.environ["AWS_SECRET_ACCESS_KEY"]
    os.environ["AWS_SECRET_ACCESS_KEY"] = "wrong-and-never-shown"
    text = far.run("launch", INLINE, code=2)
    os.environ["AWS_SECRET_ACCESS_KEY"] = before
    assert "refuses" in text
    assert "never-shown" not in text

    store.proxy.harm(".*", "status")
    assert "Check that it is up" in far.run("plan", code=20)
    store.proxy.heal()
    assert not storage_of(far.url).entries()


def test_an_overtaken_attempt_cannot_publish(root: Root) -> None:
    run = root.run(KL)
    with owned(root) as owner:
        assert owner.begin(0) == 1
        (run.folder / "metrics.jsonl").write_text("first")
        owner.start()
        storage = storage_of(root.address)
        storage.write(f"{run.name}/lock", ELSEWHERE.text())  # another host has attempt 4

        wait_until(owner.must_end, seconds=10.0)
        with pytest.raises(StaleAttempt, match="taken over by attempt 4"):
            owner.save()
        assert root.newest_attempt(KL) == 4


def test_the_first_push_of_an_attempt_shuts_the_older_one_out(root: Root) -> None:
    run = root.run(KL)
    with owned(root) as owner:
        owner.begin(0)
        (run.folder / "metrics.jsonl").write_text("first")
        owner.start()
        storage = storage_of(root.address)
        RunUploader(run, 2, storage=storage, quick_storage=storage).push()

        with pytest.raises(StaleAttempt, match="belongs to attempt 2"):
            owner.save()


def test_a_stop_object_is_seen_by_the_worker_of_another_host(root: Root) -> None:
    with owned(root) as owner:
        owner.begin(0)
        assert not owner.must_end()
        storage_of(root.address).write("grids/tiny/stop-1", b"")

        wait_until(owner.must_end, seconds=10.0)


def test_scratch_of_an_older_attempt_is_replaced_and_of_the_newest_is_kept(
    root: Root,
) -> None:
    run = root.run(KL)
    for number in (1, 2):
        with owned(root) as owner:
            assert owner.begin(0) == number
            (run.folder / "metrics.jsonl").write_text("pushed")
            owner.start()
    (run.folder / "metrics.jsonl").write_text("pushed, and more that was not")
    assert (run.folder / MARKER).read_text() == "2"
    with owned(root) as owner:
        owner.begin(0)
        assert (run.folder / "metrics.jsonl").read_text().endswith("was not")

    storage_of(root.address).write(f"{run.name}/lock", LockRecord(attempt=9).text())
    with owned(root) as owner:
        assert owner.begin(0) == 10
        assert (run.folder / "metrics.jsonl").read_text() == "pushed"


def test_masks_made_between_trainings_reach_the_next_host_but_no_screen(
    root: Root, tmp_path: Path
) -> None:
    mask = Path("stages") / "all" / "masks" / "a" / "b.png"
    with owned(root) as owner:
        owner.begin(0)
        written = root.run(KL).folder / mask
        written.parent.mkdir(parents=True)
        written.write_bytes(b"mask")
        written.with_name(".b.png.0.tmp").write_bytes(b"half")
        owner.start()
    other = open_root(root.address, str(tmp_path / "other"))

    with owned(other) as owner:
        owner.begin(0)

    assert (other.run(KL).folder / mask).read_bytes() == b"mask"
    assert len(list((other.run(KL).folder / mask).parent.iterdir())) == 1
    viewer = open_root(root.address, str(tmp_path / "viewer"))
    assert not (viewer.local_copy(KL).folder / mask).exists()


def test_workers_of_two_hosts_share_a_grid_in_the_store(far: Lab, lab: Lab) -> None:
    far.write_grid(("supervised_star", "none"), ("unimatch_star", "none"))

    workers = [host.start("work", "while_idle=5m") for host in (far, on_another_host(far))]
    texts = [worker.communicate(timeout=300)[0] for worker in workers]

    assert [worker.returncode for worker in workers] == [0, 0], texts
    for key in (SUPERVISED, UNIMATCH):
        assert [entry["event"] for entry in far.events(key)] == ["started", "done"]
    lab.run("launch", INLINE)
    assert far.weights() == lab.weights()
