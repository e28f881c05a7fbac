"""The design of a grid whose seeds run until its comparisons are settled, stored beside the rows.

It is written before the first seed runs and is never written again, so that nobody can choose the
looks, the number of seeds or the comparisons after seeing results.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from hashlib import sha256

from orchestrator.results.counted import Today
from orchestrator.storage.root import Root
from sweeps.grid import Grid


@dataclass(frozen=True)
class Look:
    """A planned look at the results.

    Attributes:
        seeds: how many of the design's seeds every open comparison has by then.
        share: part of the error level that this look spends; 0 where it can only give up.
    """

    seeds: int
    share: float


@dataclass(frozen=True)
class TableDesign:
    """What is stated about one table.

    Attributes:
        comparisons: names of all comparisons that share the error level.
        looks: in the order in which they happen.
    """

    comparisons: tuple[str, ...]
    looks: tuple[Look, ...]


@dataclass(frozen=True)
class SeedDesign:
    """All that decides how many seeds a grid runs, stated before the first of them.

    Attributes:
        alpha: probability of any false decision in a table, at most.
        futile_p: from half of the seeds on, a comparison stops as futile where the p of a look is
            above this.
        epoch: whose mIoU is compared, "best" or "last".
        seeds: all that may run, in their order.
        configuration: sha256 of the fingerprints of the grid's cells with the first seed.
        tables: by name.
    """

    alpha: float
    futile_p: float
    epoch: str
    seeds: tuple[int, ...]
    configuration: str
    tables: dict[str, TableDesign] = field(default_factory=dict)


def configuration_of(grid: Grid, first_seed: int, today: Mapping[str, Today]) -> str:
    """Sha256 of the fingerprints of a grid's cells with one seed; of None where one is not known.

    Args:
        grid: whatever its seeds are.
        first_seed: of the design.
        today: what a row of today has, by key.
    """
    keys = sorted({replace(cell, seed=first_seed).key for cell in grid.cells})
    prints = [[key, today[key].fingerprint if key in today else None] for key in keys]
    return sha256(json.dumps(prints).encode()).hexdigest()


def stated_design(root: Root, grid_name: str) -> SeedDesign | None:
    """The design that was stated for a grid under a root; None without one.

    Raises:
        ValueError: the file is broken.
    """
    folder = root.results("designs")
    try:
        content = folder.read([_name(grid_name)])[_name(grid_name)]
    except FileNotFoundError:
        return None
    try:
        spec = json.loads(content)
        tables = {
            name: TableDesign(
                tuple(table["comparisons"]), tuple(Look(**look) for look in table["looks"])
            )
            for name, table in spec["tables"].items()
        }
        return SeedDesign(**(spec | {"seeds": tuple(spec["seeds"]), "tables": tables}))
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(
            f"{folder.address}/{_name(grid_name)} is no design of seeds ({error!r}); restore it "
            "from a copy, or choose another root=DIR."
        ) from error


def design_for(root: Root, grid: Grid, today: Mapping[str, Today], epoch: str) -> SeedDesign | None:
    """The stated design as far as it covers what is printed; None where none was stated.

    It states nothing about other settings of the training, or about the other epoch: it has no
    table then, and so allows no test.
    """
    design = stated_design(root, grid.name)
    if design is None:
        return None
    now = configuration_of(grid, design.seeds[0], today)
    is_covered = (design.epoch, design.configuration) == (epoch, now)
    return design if is_covered else replace(design, tables={})


def state_design(root: Root, grid_name: str, design: SeedDesign) -> None:
    """Store a design; the caller owns the grid, and has seen that there is none yet."""
    content = json.dumps(asdict(design), indent=1)
    root.results("designs").put(_name(grid_name), content.encode() + b"\n")


def design_changes(stated: SeedDesign, now: SeedDesign) -> list[str]:
    """In what the design that a command asks for differs from the stated one."""
    lines = []
    for item in fields(SeedDesign):
        before, after = getattr(stated, item.name), getattr(now, item.name)
        if before != after and item.name == "seeds":
            lines.append(f"max_seeds or seeds: {_listed(before)} -> {_listed(after)}")
        elif before != after:
            is_short = isinstance(before, float) or item.name == "epoch"
            lines.append(f"{item.name}: {before} -> {after}" if is_short else item.name)
    return lines


def _listed(seeds: tuple[int, ...]) -> str:
    return f"{len(seeds)} ({', '.join(map(str, seeds))})"


def _name(grid_name: str) -> str:
    return f"{grid_name}.json"
