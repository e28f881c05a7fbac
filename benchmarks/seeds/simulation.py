"""Tables with drawn scores, decided by the design of `orchestrator/statistics/sequential.py`.

A table has one method and some rivals, which share its block as in Table III: every comparison has
the method's own scores in it, so that they depend on each other. Scores are drawn, trainings are
not run; tables, looks and tests are those of a launch.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from orchestrator.results.row import Row
from orchestrator.results.seed_design import SeedDesign
from orchestrator.statistics.sequential import (
    FUTILE_P,
    decisions,
    row_pairs,
    table_design,
    wanted_seeds,
)
from orchestrator.statistics.significance import ALPHA, holm, sign_flip
from orchestrator.tables.fill import fill
from orchestrator.tables.filled import FilledTable
from sweeps.cell import Cell
from sweeps.table import Block, Table, TableRow

FIXED_SEEDS = 5

Draw = Callable[[np.random.Generator, tuple[int, ...]], NDArray[np.float64]]
DRAWS: dict[str, Draw] = {
    "normal": lambda rng, shape: rng.standard_normal(shape),
    "heavy tails": lambda rng, shape: rng.standard_t(2, shape),
    "in steps": lambda rng, shape: np.round(rng.standard_normal(shape)),
    # What is assumed away: half of the variance is common to all columns of a seed.
    "columns depend": lambda rng, shape: (
        (rng.standard_normal(shape) + rng.standard_normal((*shape[:-1], 1))) / np.sqrt(2)
    ),
}


@dataclass(frozen=True)
class Scenario:
    """A table and the truth behind it.

    Attributes:
        columns: of the table.
        effects: of the method over each rival, in standard deviations of a paired difference.
        draw: name of the noise.
        max_seeds: of the design.
    """

    columns: int
    effects: tuple[float, ...]
    draw: str = "normal"
    max_seeds: int = 8


@dataclass(frozen=True)
class Outcome:
    """What some repetitions of a scenario gave, each for the design, five seeds and all seeds.

    Attributes:
        false: part of the repetitions with any false decision: of no effect, or of the wrong sign.
        power: part of the true effects that were settled; 0 where there is none.
        runs: mean number of trainings.
    """

    false: tuple[float, float, float]
    power: tuple[float, float, float]
    runs: tuple[float, float, float]


def simulate(scenario: Scenario, repetitions: int, seed: int) -> Outcome:
    """Repeat a scenario.

    Args:
        scenario: what is drawn.
        repetitions: how often.
        seed: of the generator.
    """
    rng = np.random.default_rng(seed)
    filled = _template(scenario)
    table = table_design(filled, scenario.max_seeds)
    assert table is not None
    design = SeedDesign(
        alpha=ALPHA,
        futile_p=FUTILE_P,
        epoch="best",
        seeds=filled.seeds,
        configuration="",
        tables={filled.table.name: table},
    )
    sums = np.zeros((3, 3))
    for _ in range(repetitions):
        scores = _scores(scenario, rng)
        counted = _with_scores(filled, scores)
        sums += [
            _by_design(scenario, counted, design),
            _by_fixed(scenario, counted, FIXED_SEEDS),
            _by_fixed(scenario, counted, scenario.max_seeds),
        ]
    false, power, runs = (tuple(float(x) for x in part) for part in (sums / repetitions).T)
    return Outcome(false, power, runs)  # type: ignore[arg-type]


def _scores(scenario: Scenario, rng: np.random.Generator) -> NDArray[np.float64]:
    """Of each row, column and seed, (1 + rivals, columns, max_seeds); the method is the first."""
    shape = (1 + len(scenario.effects), scenario.max_seeds, scenario.columns)
    scores = DRAWS[scenario.draw](rng, shape).transpose(0, 2, 1)
    scores[1:] -= np.sqrt(2) * np.array(scenario.effects)[:, None, None]
    return scores


def _by_design(
    scenario: Scenario, filled: FilledTable, design: SeedDesign
) -> tuple[float, float, float]:
    """Whether anything was false, the part of effects settled, and the number of runs."""
    made = decisions(filled, design)
    settled = [one.state == "settled" for one in made]
    signs = [np.sign(np.mean(one.differences)) for one in made]
    runs = sum(wanted_seeds(made, design, filled.table.name).values())
    return (*_judged(scenario, settled, signs), runs)


def _by_fixed(scenario: Scenario, filled: FilledTable, seeds: int) -> tuple[float, float, float]:
    """The same for one test of a fixed number of seeds, corrected after Holm."""
    groups = [pair.differences(filled.seeds[:seeds]) or () for pair in row_pairs(filled).values()]
    p = holm([sign_flip([x for group in some for x in group]).p for some in groups])
    signs = [np.sign(np.mean(some)) for some in groups]
    runs = seeds * scenario.columns * (1 + len(scenario.effects))
    return (*_judged(scenario, [value <= ALPHA for value in p], signs), runs)


def _judged(
    scenario: Scenario, settled: Sequence[bool], signs: Sequence[float]
) -> tuple[float, float]:
    """Whether any decision was false, and the part of the effects that were settled."""
    truth = np.sign(scenario.effects)
    is_false = any(s and sign != t for s, sign, t in zip(settled, signs, truth, strict=True))
    real = [s for s, t in zip(settled, truth, strict=True) if t]
    return float(is_false), float(np.mean(real)) if real else 0.0


def _template(scenario: Scenario) -> FilledTable:
    """The table with a row of results for each score to come."""
    names = [f"rival{number}" for number in range(len(scenario.effects))]
    columns = tuple({"split": f"n{number}"} for number in range(scenario.columns))
    rows = []
    for name in ("new", *names):
        cells = tuple(Cell("drawn", c["split"], "none", 1, name, "none") for c in columns)
        rows.append(TableRow(name, "ours", cells, (None,) * len(columns)))
    for name in names:
        empty = (None,) * len(columns)
        rows.append(TableRow(f"over {name}", "difference", (), empty, minus=("new", name)))
    table = Table("drawn", "Drawn", columns, (Block("", tuple(rows)),))
    seeds = range(1, scenario.max_seeds + 1)
    return fill(table, [_row(replace(cell, seed=s)) for cell in table.cells for s in seeds])


def _row(cell: Cell) -> Row:
    now = np.datetime64(0, "s").item()
    axes = {name: getattr(cell, name) for name in ("recipe", "split", "backbone", "crop")}
    return Row(
        **axes,
        method=cell.method,
        loss=cell.loss,
        seed=cell.seed,
        attempt=1,
        status="done",
        fingerprint="",
        config_json="{}",
        started=now,
        finished=now,
        best_miou_percent=0.0,
    )


def _with_scores(filled: FilledTable, scores: NDArray[np.float64]) -> FilledTable:
    """The table with other values behind the same rows."""
    block = filled.blocks[0]
    rows = list(block.rows)
    for index, of_row in enumerate(scores):
        entries = zip(rows[index].entries, of_row, strict=True)
        changed = tuple(replace(e, values=tuple(map(float, values))) for e, values in entries)
        rows[index] = replace(rows[index], entries=changed)
    return replace(filled, blocks=(replace(block, rows=tuple(rows)),))
