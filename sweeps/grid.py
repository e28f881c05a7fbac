"""A grid: the cells of some tables, or of lists, over one or more seeds. Reads `sweeps/grids`."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

from sweeps.cell import Cell
from sweeps.table import load_table
from sweeps.yaml_spec import (
    Spec,
    cell_of,
    check_axes,
    check_axis,
    check_keys,
    find,
    mapping,
    names,
    read,
    sequence,
    text,
    texts,
)

GRID_FOLDER = Path(__file__).parent / "grids"
DEFAULT_SEEDS = (12345,)  # the paper's, Sec. IV-B

_KEYS = ("title", "tables", "cells", "seeds", "overrides", "core_minutes")
_GROUP_KEYS = ("base", "product", "zip", "exclude")


@dataclass(frozen=True)
class Grid:
    """Distinct cells in the order they are to run.

    Attributes:
        cells: all cells for the first seed in the order of the tables, then for the next seed.
        tables: names or paths for `sweeps.table.load_table`.
        seeds: each cell runs once per seed.
        overrides: Hydra settings for every cell, such as ``optim.epochs=2``.
        core_minutes: of one CPU core that a launch of all cells took, measured; None: unknown.
        word: the argument it was loaded by: its name, or the path of its file.
    """

    name: str
    title: str
    cells: tuple[Cell, ...]
    tables: tuple[str, ...]
    seeds: tuple[int, ...] = DEFAULT_SEEDS
    overrides: tuple[str, ...] = ()
    core_minutes: float | None = None
    word: str = ""


def grid_names() -> list[str]:
    """Names of the grids in ``sweeps/grids``."""
    return names(GRID_FOLDER)


def load_grid(name_or_path: str) -> Grid:
    """A grid by name, or from a YAML file of one's own.

    Raises:
        ValueError: no such grid (lists the known ones), or a mistake in the file.
    """
    path = find(name_or_path, GRID_FOLDER, "grid")
    spec = read(path)
    if "blocks" in spec or "extends" in spec:
        raise ValueError(
            f"{path} is a table; a grid names it under `tables: [{path.name}]`, beside a `title`."
        )
    check_keys(spec, str(path), _KEYS, needed=("title",))
    if not spec.get("tables") and not spec.get("cells"):
        raise ValueError(f"{path}: a grid without cells; give it `tables` or `cells`.")
    tables = tuple(
        _table_place(name, path) for name in texts(spec.get("tables", []), f"{path}: tables")
    )
    _refuse_repeats(tables, f"{path}: tables")
    cells = [cell for table in tables for cell in load_table(table).cells]
    overrides = texts(spec.get("overrides", []), f"{path}: overrides")
    settings = [override.partition("=")[0].strip().lstrip("+~") for override in overrides]
    _refuse_repeats(settings, f"{path}: overrides")
    seeds = check_seeds(spec.get("seeds", list(DEFAULT_SEEDS)), f"{path}: seeds")
    return with_seeds(
        Grid(
            name=path.stem,
            title=text(spec["title"], f"{path}: title"),
            cells=tuple(dict.fromkeys([*cells, *_listed(spec.get("cells", []), path)])),
            tables=tables,
            overrides=overrides,
            core_minutes=_minutes(spec.get("core_minutes"), f"{path}: core_minutes"),
            word=name_or_path,
        ),
        seeds,
    )


def with_seeds(grid: Grid, seeds: Sequence[int]) -> Grid:
    """The same grid over other seeds.

    Cells are ordered by seed first, so that every table is complete for one seed before the next
    seed begins.
    """
    once = dict.fromkeys(cell.with_seed(0) for cell in grid.cells)
    cells = tuple(cell.with_seed(seed) for seed in seeds for cell in once)
    return replace(grid, cells=cells, seeds=tuple(seeds))


def check_seeds(value: Any, where: str) -> tuple[int, ...]:
    """A list of distinct seeds.

    Raises:
        ValueError: something else was given.
    """
    seeds = sequence(value, where)
    for seed in seeds:
        if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
            raise ValueError(f"{where}: a seed is a whole number from 0 on, not {seed!r}.")
    _refuse_repeats(seeds, where)
    return tuple(seeds)


def _minutes(value: Any, where: str) -> float | None:
    """A time above zero; None where nothing stands."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        raise ValueError(f"{where}: expected minutes above 0, found {value!r}.")
    return float(value)


def _table_place(name: str, grid: Path) -> str:
    """A table's name, or its path, which is relative to the folder of the grid's file."""
    is_path = name.endswith((".yaml", ".yml"))
    return str((grid.parent / Path(name).expanduser()).resolve()) if is_path else name


def _listed(value: Any, path: Path) -> Iterator[Cell]:
    """Cells of the `cells` list, each written once."""
    where = f"{path}: cells"
    if not isinstance(value, list):
        raise ValueError(f"{where}: expected a list of `- base: ...` entries.")
    owner: dict[Cell, int] = {}
    for number, group in enumerate(value, start=1):
        for cell in _group(mapping(group, f"{where}, entry {number}"), f"{where}, entry {number}"):
            if cell in owner:
                raise ValueError(
                    f"{where}, entry {number}: {cell.key} is already in entry {owner[cell]}; "
                    "leave it out of one of them, for instance with `exclude`."
                )
            owner[cell] = number
    yield from owner


def _group(spec: Spec, where: str) -> list[Cell]:
    """The cells of one entry: `base`, with all combinations of `product` and all steps of `zip`."""
    check_keys(spec, where, _GROUP_KEYS)
    base = check_axes(mapping(spec.get("base", {}), f"{where}: base"), f"{where}: base")
    crossed = _lists(spec.get("product", {}), f"{where}: product")
    zipped = _lists(spec.get("zip", {}), f"{where}: zip")
    _refuse_repeats([*base, *crossed, *zipped], where)
    if len({len(values) for values in zipped.values()}) > 1:
        counts = ", ".join(f"{axis} {len(values)}" for axis, values in zipped.items())
        raise ValueError(f"{where}: the lists of `zip` have different lengths ({counts}).")
    steps = [dict(zip(zipped, step, strict=True)) for step in zip(*zipped.values(), strict=True)]
    points = [
        base | dict(zip(crossed, values, strict=True)) | step
        for values in product(*crossed.values())
        for step in steps or [{}]
    ]
    points = _without(points, spec.get("exclude", []), f"{where}: exclude")
    return [cell_of(point, where) for point in points]


def _without(points: list[Spec], patterns: Any, where: str) -> list[Spec]:
    """The points without those that fit a pattern; raises where a pattern fits none."""
    if not isinstance(patterns, list):
        raise ValueError(f"{where}: expected a list such as [{{loss: kl, split: p2_92}}].")
    for pattern in patterns:
        axes = check_axes(mapping(pattern, where), where)
        kept = [point for point in points if any(point.get(a) != axes[a] for a in axes)]
        if len(kept) == len(points):
            raise ValueError(f"{where}: {pattern} fits no cell here; correct or remove it.")
        points = kept
    return points


def _lists(value: Any, where: str) -> dict[str, list[Any]]:
    """A list of values per axis."""
    axes = mapping(value, where)
    for axis, values in axes.items():
        for item in sequence(values, f"{where}: {axis}"):
            check_axis(axis, item, where)
    return axes


def _refuse_repeats(values: Sequence[Any], where: str) -> None:
    repeated = [value for value in dict.fromkeys(values) if values.count(value) > 1]
    if repeated:
        raise ValueError(f"{where}: {repeated[0]!r} stands twice; keep one.")
