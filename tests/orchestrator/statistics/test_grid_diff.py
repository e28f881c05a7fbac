"""Two sets of results of one grid are compared cell by cell, and what changed is said."""

import json
from dataclasses import replace

import pytest

from orchestrator.__main__ import main
from orchestrator.results.store import publish
from orchestrator.statistics.grid_diff import grid_diff, paper_diff
from orchestrator.storage.local_root import LocalRoot
from orchestrator.tables.fill import fill
from sweeps.cell import Cell
from sweeps.cell_configs import cell_configs
from sweeps.grid import load_grid
from sweeps.table import load_table
from tests.support.result_rows import row_of
from trainer.config.fingerprint import config_json, fingerprint

TABLE = load_table("table3")
GROUPS = {cell.key.rpartition(".s")[0] for cell in TABLE.cells}
FIRST, SECOND = TABLE.cells[:2]


def row(cell, seed, miou_percent, **fields):
    cell = replace(cell, seed=seed)
    config = json.dumps(fields.pop("config", {}) | {"seed": seed}, separators=(",", ":"))
    return row_of(cell, miou_percent, config_json=config, **fields)


def diff(here, there):
    return grid_diff([fill(TABLE, here)], [fill(TABLE, there)], GROUPS)


def test_cells_are_paired_by_seed_and_the_largest_difference_comes_first():
    here = [row(FIRST, seed, 70.0 + seed) for seed in (1, 2, 3)]
    there = [row(FIRST, seed, 69.0 + seed) for seed in (1, 2, 3)]

    small, large = [row(SECOND, 1, 50.5)], [row(SECOND, 1, 54.0)]
    answer = diff(here + small, there + large)

    assert [d.group for d in answer.differences] == [small[0].group, here[0].group]
    second, first = answer.differences
    assert (second.mean, second.interval, second.p) == (-3.5, None, 1.0)
    assert first.by_seed == {1: 1.0, 2: 1.0, 3: 1.0}
    assert (first.here, first.there, first.interval) == (72.0, 71.0, None)
    # All three of one sign: 2 of the 8 sign patterns lie as far from zero; two cells are tested.
    assert (first.p, first.p_holm) == (0.25, 0.5)
    assert answer.overall is not None
    assert (answer.overall.n, answer.overall.mean) == (4, (3 * 1.0 - 3.5) / 4)


def test_seeds_and_cells_of_one_side_are_named():
    answer = diff(
        [row(FIRST, 1, 70.0), row(FIRST, 2, 71.0)], [row(FIRST, 1, 70.0), row(SECOND, 1, 60.0)]
    )

    assert answer.only_here == (replace(FIRST, seed=2).key,)
    assert answer.only_there == (replace(SECOND, seed=1).key,)
    assert [len(d.by_seed) for d in answer.differences] == [1]


def test_settings_data_code_and_machine_that_changed_are_said():
    here = row(FIRST, 1, 70.0, config={"lr": 2}, git_commit="b" * 40, data_fingerprint="1" * 64)
    there = row(FIRST, 1, 69.0, config={"lr": 1}, device="H200", data_fingerprint="2" * 64)

    (difference,) = diff([here], [there]).differences

    assert difference.changed == (
        "lr: 1 -> 2",
        "images or masks: 22222222 -> 11111111",
        "commit: 0123456789 -> bbbbbbbbbb",
        "device: H200 -> cpu",
    )
    assert difference.has_same_bits
    assert diff([here], [there]).overall is None  # of other images, so no part of any mean


def test_the_same_settings_under_other_threads_are_no_change():
    here = row(FIRST, 1, 70.0, config={"run": {"threads": 1}})
    there = row(FIRST, 1, 69.0, config={"run": {"threads": 8}}, weights_sha256="c" * 64)

    (difference,) = diff([here], [there]).differences

    assert (difference.changed, difference.has_same_bits) == ((), False)


def test_a_seed_of_other_settings_than_the_others_is_left_out():
    here = [row(FIRST, 1, 70.0), row(FIRST, 2, 71.0), row(FIRST, 3, 99.0, config={"lr": 9})]

    answer = diff(here, [row(FIRST, seed, 70.0) for seed in (1, 2, 3)])

    assert answer.left_out == (here[2].key,)
    assert answer.differences[0].by_seed == {1: 0.0, 2: 1.0}


def test_ours_is_compared_with_what_the_paper_prints():
    (published,) = (
        e.published for e in fill(TABLE, []).entries if e.cell is not None and e.cell == FIRST
    )

    answer = paper_diff([fill(TABLE, [row(FIRST, s, published + 1.0) for s in (1, 2)])], GROUPS)

    (difference,) = answer.differences
    assert difference.there == published
    assert difference.mean == pytest.approx(1.0)
    assert SECOND.key in answer.only_there


@pytest.fixture(scope="module")
def planned():
    """The configuration of a cell of the demo grid as it would run today."""
    grid = load_grid("demo")
    (config,) = cell_configs(grid.cells[:1], grid.overrides).values()
    return config


def published(root, planned, miou_percent, **fields):
    """Publish a row of today's configuration, or of another one where the fields say so."""
    own = {"fingerprint": fingerprint(planned), "config_json": config_json(planned)} | fields
    publish(LocalRoot(root), row_of(Cell.parse(planned.key), miou_percent, **own))


def test_two_commits_of_one_root_are_compared(tmp_path, planned, capsys):
    published(tmp_path, planned, 50.0, git_commit="a" * 40)
    published(tmp_path, planned, 53.0, git_commit="b" * 40, attempt=2)

    words = ["diff", "demo", f"root={tmp_path}", "with=commit:aaaa"]
    assert main([*words, "--json"]) == 0

    (difference,) = json.loads(capsys.readouterr().out)["differences"]
    assert (difference["here"], difference["there"], difference["n"]) == (53.0, 50.0, 1)
    assert difference["changed"] == ["commit: aaaaaaaaaa -> bbbbbbbbbb"]


def test_the_row_of_todays_settings_counts_as_in_a_table(tmp_path, planned, capsys):
    drifted = config_json(planned).replace('"epochs":', '"epochs":1')
    assert drifted != config_json(planned)
    published(tmp_path / "here", planned, 50.0)
    published(
        tmp_path / "here", planned, 99.0, attempt=2, fingerprint="0" * 64, config_json=drifted
    )
    published(tmp_path / "there", planned, 49.0)

    words = ["diff", "demo", f"root={tmp_path / 'here'}", f"with={tmp_path / 'there'}"]
    assert main(words) == 0

    text = capsys.readouterr().out
    assert "+1.00" in text
    assert "same bits" in text
    assert "Cells compared: 1; with a significant difference at 5 % after Holm (bold): 0;" in text


def test_results_without_a_pair_are_refused_with_their_cells(tmp_path, planned, capsys):
    grid = load_grid("demo")
    only_here, only_there = planned.key, grid.cells[1].key
    published(tmp_path / "here", planned, 50.0)
    publish(LocalRoot(tmp_path / "there"), row_of(grid.cells[1], 60.0))
    words = ["diff", "demo", f"root={tmp_path / 'here'}"]

    assert main([*words, f"with={tmp_path / 'there'}", "--json"]) == 2

    error = json.loads(capsys.readouterr().out)["error"]
    assert error["code"] == "usage"
    assert error["text"] == (
        "Nothing can be compared, as no cell has a result of the same seed on both sides (only "
        f"here, root={tmp_path / 'here'}: {only_here}; there, {tmp_path / 'there'}: "
        f"{only_there}). Launch what one side lacks, or name other results by root= and with=."
    )
    assert main(["diff", "demo", f"root={tmp_path / 'empty'}", "with=paper"]) == 2
    assert "only here, root=" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("word", "error"),
    [
        ("", "diff needs with=ROOT, with=commit:HASH, or with=paper"),
        ("with=commit:", "diff needs with=ROOT, with=commit:HASH, or with=paper"),
        ("with=commit:beef", "of commit beef; those there are of 0123456789"),
        ("with=/nowhere/at/all", "no result of demo under /nowhere/at/all; name another root"),
    ],
)
def test_what_cannot_be_compared_is_said(tmp_path, planned, capsys, word, error):
    published(tmp_path, planned, 50.0)

    assert main(["diff", "demo", f"root={tmp_path}", *([word] if word else [])]) == 2
    assert error in capsys.readouterr().err
