"""Seeds until settled, against every pattern of signs, sums by hand, and drawn tables."""

from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from benchmarks.seeds import __main__ as program
from benchmarks.seeds.simulation import Scenario, simulate
from orchestrator.results.seed_design import Look, SeedDesign, TableDesign
from orchestrator.statistics.compare import comparisons
from orchestrator.statistics.sequential import Decision, decisions, table_design, wanted_seeds
from orchestrator.statistics.significance import sign_flip
from orchestrator.statistics.text import comparisons_csv, sentences
from orchestrator.tables.fill import fill
from orchestrator.tables.filled import FilledTable
from sweeps.table import Table, load_table
from tests.support.result_rows import row_of

TABLE = """
title: Two rivals
cell: {recipe: synthetic, backbone: resnet14_w8, crop: 64, method: unimatch_star}
columns: {split: [SPLITS]}
blocks:
  - rows:
      - {label: Alone, cell: {loss: none}}
      - {label: Never compared, cell: {method: supervised_star, loss: none}}
      - {label: CR, cell: {loss: cr}}
      - {label: KL, cell: {loss: kl}}
      - {label: Over Alone, minus: [KL, Alone]}
"""
SECOND = "      - {label: Over CR, minus: [KL, CR]}\n"
OVER_ALONE = "block 1: KL - Alone"


def a_table(folder: Path, splits: str = "1of16", more: str = "") -> Table:
    path = folder / "rivals.yaml"
    path.write_text(TABLE.replace("SPLITS", splits) + more)
    return load_table(str(path))


def design_of(table: Table, max_seeds: int) -> SeedDesign:
    planned = table_design(fill(table, []), max_seeds)
    assert planned is not None
    seeds = tuple(range(1, max_seeds + 1))
    return SeedDesign(0.05, 0.5, "best", seeds, "", {table.name: planned})


def filled_with(
    table: Table, gains: list[float], design: SeedDesign, gains_over_cr: list[float] | None = None
) -> FilledTable:
    """KL above Alone, and CR where given, by so much with the first seeds; equal in all columns."""
    rows = []
    for seed, gain in enumerate(gains, start=1):
        over_cr = gain if gains_over_cr is None else gains_over_cr[seed - 1]
        for cell in table.cells:
            value = {"none": 50.0 - gain, "cr": 50.0 - over_cr, "kl": 50.0}[cell.loss]
            rows.append(row_of(replace(cell, seed=seed), value))
    return fill(table, rows, design=design)


def only(filled: FilledTable) -> Decision:
    assert filled.design is not None
    (decision,) = decisions(filled, filled.design)
    return decision


@pytest.mark.parametrize(("splits", "max_seeds"), [("1of16", 8), ("1of16, 1of8", 4)])
def test_of_all_patterns_of_signs_at_most_five_percent_are_ever_settled(
    splits: str, max_seeds: int, tmp_path: Path
) -> None:
    table = a_table(tmp_path, splits)
    design = design_of(table, max_seeds)
    filled = filled_with(table, [1.0] * max_seeds, design)
    template = filled.blocks[0].rows
    alone = next(row for row in template if row.row.label == "Alone")
    columns = len(table.columns)
    sizes = np.arange(1.0, columns * max_seeds + 1) ** 1.5 / 10
    settled = 0
    for signs in product((1.0, -1.0), repeat=columns * max_seeds):
        values = (50.0 + sizes * signs).reshape(columns, max_seeds)
        entries = tuple(
            replace(entry, values=tuple(map(float, column)))
            for entry, column in zip(alone.entries, values, strict=True)
        )
        rows = tuple(replace(r, entries=entries) if r is alone else r for r in template)
        block = replace(filled.blocks[0], rows=rows)
        settled += only(replace(filled, blocks=(block,))).state == "settled"

    assert 0 < settled <= 0.05 * 2 ** (columns * max_seeds)


def test_shares_sum_to_one_and_none_is_spent_where_nothing_can_be_settled(tmp_path: Path) -> None:
    table = a_table(tmp_path, more=SECOND)
    planned = table_design(fill(table, []), 12)

    assert planned is not None
    assert sum(look.share for look in planned.looks) == pytest.approx(1.0)
    # Two comparisons: 2 * 2^-7 is at most 5 % of (8 / 12)^2, and 2 * 2^-6 is not of (7 / 12)^2.
    assert planned.looks[:3] == (Look(6, 0.0), Look(7, 0.0), Look(8, pytest.approx(64 / 144)))
    assert planned.comparisons == (OVER_ALONE, "block 1: KL - CR")


def test_too_few_seeds_for_any_answer_are_refused_with_what_would_do(tmp_path: Path) -> None:
    table = fill(a_table(tmp_path), [])

    with pytest.raises(ValueError, match="5 seeds cannot settle any of its 1 comp") as error:
        table_design(table, 5)

    assert "max_seeds=6" in str(error.value)
    assert table_design(table, 6) is not None


def test_p_is_the_least_of_the_looks_by_their_share(tmp_path: Path) -> None:
    table = a_table(tmp_path)
    design = design_of(table, 10)
    gains = [1.0, 2.0, -0.5, 1.0, 2.0, 1.0, -0.1, -1.0, 1.0, 1.0]
    looks = [look for look in design.tables[table.name].looks if look.share]

    decision = only(filled_with(table, gains, design))

    assert [look.seeds for look in looks] == [7, 9, 10]  # 2^-7 is above 5 % of 0.15
    expected = min(sign_flip(gains[: look.seeds]).p / look.share for look in looks)
    assert decision.p == decision.p_holm == pytest.approx(expected)
    assert (decision.state, decision.seeds) == ("ended", 10)


def test_a_settled_comparison_is_never_looked_at_again(tmp_path: Path) -> None:
    table = a_table(tmp_path)
    design = design_of(table, 8)

    settled = only(filled_with(table, [1.0] * 7, design))
    later = only(filled_with(table, [1.0] * 7 + [-50.0], design))

    assert (settled.state, settled.seeds, settled.look) == ("settled", 7, 4)
    assert later == replace(settled, pair=later.pair)


def test_between_two_looks_nothing_is_decided(tmp_path: Path) -> None:
    table = a_table(tmp_path)
    design = design_of(table, 8)

    waits = only(filled_with(table, [1.0] * 3, design))
    looked = only(filled_with(table, [1.0] * 6, design))

    assert (waits.state, waits.look, waits.seeds) == ("open", 0, 0)
    assert (looked.state, looked.look) == ("open", 3)
    wanted = wanted_seeds([looked], design, table.name)
    assert set(wanted.values()) == {7}
    assert not any("supervised" in group for group in wanted)


def test_only_cells_of_open_comparisons_get_another_seed(tmp_path: Path) -> None:
    table = a_table(tmp_path, more=SECOND)
    design = design_of(table, 10)
    futile = [1.0, -1.0, 1.0, -1.0, 0.5]

    filled = filled_with(table, [1.0] * 5, design, gains_over_cr=futile)
    made = decisions(filled, design)

    assert [one.state for one in made] == ["open", "futile"]
    assert {
        group.split(".")[-1]: n for group, n in wanted_seeds(made, design, "rivals").items()
    } == {
        "none": 6,
        "kl": 6,
        "cr": 5,
    }
    assert sentences(filled)[1].endswith(
        "not significant, p = 1 after Holm over 2 comparisons; 5 of 10 planned seeds; stopped as "
        "futile at look 1."
    )


def test_tables_print_the_sequential_test_and_no_other(tmp_path: Path) -> None:
    table = a_table(tmp_path)
    design = design_of(table, 8)
    filled = filled_with(table, [1.0] * 7, design)

    (comparison,) = comparisons(filled)

    assert comparison.interval is None
    assert comparisons(filled, by_column=True) == ()
    assert sentences(filled) == [
        "KL against Alone: +1.0 over n = 7 (1 split x 7 seeds); better, p = 0.02; 7 of 8 planned "
        "seeds; settled at look 4."
    ]
    assert len(comparisons_csv(filled).splitlines()) == 2
    assert any("planned looks after 4, 5, 6, 7, 8" in note.text for note in filled.notes)


def test_a_design_for_other_settings_tests_nothing_and_says_so(tmp_path: Path) -> None:
    table = a_table(tmp_path)
    design = replace(design_of(table, 8), tables={})

    filled = filled_with(table, [1.0] * 8, design)

    assert sentences(filled) == []
    assert any("so nothing is tested here" in note.text for note in filled.notes)


def test_a_comparison_that_the_table_lost_still_counts_for_holm(tmp_path: Path) -> None:
    table = a_table(tmp_path)
    design = design_of(table, 8)
    looks = design.tables[table.name].looks
    stated = TableDesign((OVER_ALONE, "block 1: KL - Gone"), looks)

    gains = [1.0] * 7
    alone = only(filled_with(table, gains, design))
    both = only(filled_with(table, gains, replace(design, tables={table.name: stated})))

    assert both.p_holm == pytest.approx(2 * alone.p_holm)


@pytest.mark.parametrize("draw", ["normal", "heavy tails"])
def test_drawn_tables_without_effect_are_decided_falsely_in_at_most_five_percent(draw: str) -> None:
    outcome = simulate(Scenario(3, (0.0,) * 3, draw), 150, seed=3)

    assert outcome.false[0] <= 0.05
    assert outcome.runs[0] < outcome.runs[2]


def test_large_effects_are_settled_with_fewer_runs_than_five_seeds() -> None:
    outcome = simulate(Scenario(3, (2.0,) * 3), 40, seed=3)

    assert outcome.power[0] > 0.9
    assert outcome.runs[0] < outcome.runs[1] < outcome.runs[2]


def test_the_program_prints_a_line_for_each_case(capsys: pytest.CaptureFixture[str]) -> None:
    assert program.main(["repetitions=1"]) == 0

    assert len(capsys.readouterr().out.splitlines()) == 2 + len(program.CASES)
