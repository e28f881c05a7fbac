"""How long a grid will take and what it costs, before its first cell ran."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.__main__ import main
from orchestrator.execution.timing import Timing
from orchestrator.forecast.budget import allowance_of
from orchestrator.forecast.forecast import Span, by_table, forecast, line_of, span_of, unit_of
from orchestrator.forecast.probe import kinds_of
from orchestrator.options import LaunchOptions
from orchestrator.planning.plan import make_plan
from orchestrator.storage.local_root import LocalRoot
from tests.support.lab import KL, SUPERVISED, UNIMATCH, Lab
from tests.support.tiny_config import tiny_config

INLINE = "backend=inline"
STEPS = (0.5, 1.0, 1.5, 1.0)
ON_CARD = Timing(10.0, STEPS, evaluation=2.0, image=0.25, peak_bytes=2**30, device="cuda")
Weights = dict[str, tuple[str | None, float | None]]


def test_a_run_is_its_start_its_steps_and_its_evaluations(tmp_path: Path) -> None:
    # 4 epochs of 15 // 5 steps, and after each an evaluation of 4 images.
    config = tiny_config(tmp_path)
    steps = 12

    span = span_of(config, ON_CARD, LaunchOptions())

    apart = 10.0 + 4 * (2.0 + 4 * 0.25)
    assert span == Span(apart + steps * 0.5, apart + steps * 1.0, apart + steps * 1.5)


def test_cpu_time_is_divided_by_the_cores_of_a_cell(tmp_path: Path) -> None:
    config, timing = tiny_config(tmp_path), replace(ON_CARD, device="cpu")

    one, two = (span_of(config, timing, LaunchOptions(cpus_per_rank=n)) for n in ("1", "2"))

    assert one.middle == 2 * two.middle


def test_seeds_splits_and_epochs_are_of_one_kind_and_losses_are_not(lab: Lab) -> None:
    lab.write_grid(("unimatch_star", "none"), ("unimatch_star", "kl"))
    plan = make_plan(str(lab.grid), LocalRoot(lab.root), overrides=[f"data.root={lab.data}"])
    (none, kl) = plan.cells
    other = replace(none, key="b", config=replace(none.config, seed=1))
    longer = replace(none.config, optim=replace(none.config.optim, epochs=7))
    split = replace(longer, data=replace(longer.data, split="1of4"))

    kinds = kinds_of([none, other, replace(none, key="c", config=split), kl])

    assert kinds[none.key] == kinds["b"] == kinds["c"] != kinds[kl.key]


def test_a_card_is_paid_as_long_as_its_ranks_hold_it_and_a_cell_once_in_all(tmp_path: Path) -> None:
    plan = make_plan("demo", LocalRoot(tmp_path))
    timings = {cell.key: ON_CARD for cell in plan.cells}

    cells = forecast(plan, plan.cells, timings, LaunchOptions(gpus_per_rank=1.0, ranks=2))
    (table,) = by_table(plan, cells)
    whole = line_of("all", cells)

    assert whole.seconds is not None
    assert whole.held_seconds == whole.seconds.times(2.0)
    assert (table.seconds, table.gib) == (whole.seconds, 1.0)


def test_a_probe_on_a_card_elsewhere_makes_gpu_hours_of_its_cells(tmp_path: Path) -> None:
    plan = make_plan("demo", LocalRoot(tmp_path))
    timings = {cell.key: ON_CARD for cell in plan.cells}

    cells = forecast(plan, plan.cells, timings, LaunchOptions(backend="slurm", ranks=2))

    assert unit_of(cells) == "GPU-hours"
    assert {cell.held for cell in cells} == {2.0}


def test_a_plan_says_which_entries_a_budget_buys(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # The grid's file says 8 minutes in all: 3:12 of each UniMatch, 1:36 of the supervised cell. The
    # launch begins with a long cell; the second one would pass the budget, and the short one fits.
    assert main(["plan", "demo", f"root={tmp_path}", "budget=5m"]) == 0

    text = capsys.readouterr().out
    assert "demo: 2 of 3 entries complete with budget=5m; left: " in text
    assert text.endswith(".unimatch_star.kl\n")
    assert not list(tmp_path.iterdir())


def test_without_any_measurement_a_plan_gives_the_ratio_and_says_what_is_missing(
    lab: Lab, capsys: pytest.CaptureFixture[str]
) -> None:
    lab.write_grid(("supervised_star", "none"), ("unimatch_star", "none"))

    main(["plan", str(lab.grid), *lab.words, "--json"])
    forecast = json.loads(capsys.readouterr().out)["forecast"]
    main(["plan", str(lab.grid), *lab.words])

    assert [kind["hours"] for kind in forecast["kinds"]] == [None, None]
    assert [kind["work"] for kind in forecast["kinds"]] == pytest.approx([2 / 3, 1 / 3], abs=0.1)
    assert "No comparable cell is done or timed for 2 of 2" in capsys.readouterr().out
    assert not lab.root.exists()


def test_a_probe_times_a_kind_once_and_leaves_no_run(lab: Lab) -> None:
    lab.write_grid(("supervised_star", "none"))

    first = lab.run("plan", "probe=yes", "price=2")
    second = json.loads(lab.run("plan", "probe=yes", "price=2", "--json"))

    assert f"[1/1] timing 20 steps of {SUPERVISED}" in first
    assert "money at 2" in first
    (kind,), whole = second["forecast"]["kinds"], second["forecast"]["all"]
    low, middle, high = whole["hours"]
    assert 0.0 < low <= middle <= high
    assert whole["money"] == pytest.approx([2 * hours for hours in whole["core_hours"]])
    assert (kind["hours"], kind["cells"]) == (whole["hours"], [SUPERVISED])
    assert second["cells"][0]["estimated_seconds"] == pytest.approx(3600 * middle)
    assert [path.name for path in lab.root.iterdir()] == ["probes"]
    (timing,) = (lab.root / "probes").glob("*/*.json")
    timing.rename(timing.with_stem("of-other-code"))
    third = lab.run("plan")
    assert "1 kinds of cells were timed with other code of the training" in third
    assert "No comparable cell is done or timed for 1 of 1" in third


def test_a_kind_that_cannot_be_timed_is_named_with_the_reason(lab: Lab) -> None:
    lab.write_grid(("supervised_star", "none"))

    text = lab.run("plan", "probe=yes", "run.device=cuda")

    assert f"{SUPERVISED} cannot be timed here: " in text
    assert "No comparable cell is done or timed for 1 of 1" in text


def test_a_budget_stops_cells_at_a_checkpoint_and_a_larger_one_goes_on_to_the_same_weights(
    long_lab: Lab, undisturbed: Weights
) -> None:
    text = long_lab.run("launch", INLINE, "budget=1s", code=10)

    assert "budget=1s is reached: running cells checkpoint and end." in text
    assert "tiny: 0 of 2 entries complete; left: " in text
    assert long_lab.states() == {UNIMATCH: "interrupted", KL: "missing"}
    assert [entry["event"] for entry in long_lab.events(UNIMATCH)] == ["started", "stopped"]
    long_lab.run("launch", INLINE, "budget=100h")
    assert long_lab.weights() == undisturbed


def test_what_done_cells_took_counts_against_a_budget(lab: Lab) -> None:
    lab.write_grid(("supervised_star", "none"), ("unimatch_star", "none"))
    lab.run("launch", INLINE, f"only={SUPERVISED}")
    plan = make_plan(str(lab.grid), LocalRoot(lab.root), overrides=[f"data.root={lab.data}"])

    cells = forecast(plan, [plan.cells[1]], {}, LaunchOptions())
    limit = allowance_of(plan, cells, LaunchOptions(budget="2h"))

    assert limit.spent == lab.rows()[SUPERVISED].seconds
    assert limit.budget_seconds == 7200.0


@pytest.mark.parametrize(
    ("verb", "word", "message"),
    [
        ("plan", "probe=maybe", "probe=maybe: known are yes, no"),
        ("plan", "price=cheap", "price=cheap: give the price of a GPU-hour"),
        ("plan", "budget=soon", "budget=soon: give a time such as 300h"),
        ("plan", "until=tomorrow", "until=tomorrow: give a moment such as 2026-12-01T08:00"),
        ("plan", "until=2020-01-01T08:00", "until=2020-01-01T08:00 is over: give a moment to come"),
        ("launch", "until=2020-01-01T08:00", "until=2020-01-01T08:00 is over: give a moment to"),
        ("work", "budget=1h", "a worker does not know what others take"),
    ],
)
def test_a_word_that_cannot_be_is_refused(
    lab: Lab, capsys: pytest.CaptureFixture[str], verb: str, word: str, message: str
) -> None:
    lab.write_grid(("supervised_star", "none"))

    assert main([verb, str(lab.grid), *lab.words, word]) == 2

    assert message in capsys.readouterr().err
