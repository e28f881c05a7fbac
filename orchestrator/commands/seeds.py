"""Seeds until settled: a launch in blocks of seeds, each followed by a planned look at the results.

The design is stated under the root before the first seed. What is wanted next follows from it and
from datasets.wording import quantity
from the rows alone, so that a launch that was killed goes on as if nothing had happened, and any
machine comes to the same decisions.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count, islice

from datasets.wording import quantity
from orchestrator.options import LaunchOptions
from orchestrator.planning.plan import EXIT_DONE, LaunchRequest, Plan, State
from orchestrator.results.seed_design import (
    SeedDesign,
    configuration_of,
    design_changes,
    state_design,
    stated_design,
)
from orchestrator.results.store import counted_rows
from orchestrator.statistics.sequential import (
    FUTILE_P,
    Decision,
    decisions,
    table_design,
    wanted_seeds,
)
from orchestrator.statistics.significance import ALPHA
from orchestrator.statistics.text import sentences
from orchestrator.tables.fill import fill
from orchestrator.tables.filled import FilledTable
from sweeps.cell import Cell
from sweeps.grid import Grid, load_grid
from sweeps.grid_tables import tables_of

_MOST_SEEDS = 8  # of each cell, unless max_seeds or a stated design says another number


@dataclass(frozen=True)
class Block:
    """What a design wants now.

    Attributes:
        grid_name: of the grid.
        design: the stated one, or the one that a launch would state.
        is_stated: whether it lies under the root.
        cells: all that are wanted up to the next look, with those that are done.
        lines: what the looks so far have decided, a sentence for each comparison.
        is_open: whether a comparison waits for its next look.
    """

    grid_name: str
    design: SeedDesign
    is_stated: bool
    cells: tuple[Cell, ...]
    lines: tuple[str, ...]
    is_open: bool


def next_block(request: LaunchRequest) -> Block:
    """The block of seeds that comes next; nothing is written.

    Args:
        request: with seeds=auto.

    Raises:
        ValueError: options that contradict the design, another design than the stated one, results
            that were there before it, or a grid that compares nothing.
    """
    _refuse_parts(request.options)
    grid = load_grid(request.grid)
    stated = stated_design(request.root, grid.name)
    most = request.options.max_seeds or (len(stated.seeds) if stated else _MOST_SEEDS)
    seeds = _seeds(grid, most)
    plan = replace(request, cells=_over(grid, seeds)).plan()
    now = _design(request, grid, seeds, plan)
    filled = _filled(request, grid, plan, now)
    made = {table.table.name: decisions(table, now) for table in filled}
    wanted = _wanted(made, now)
    if stated is None:
        _refuse_earlier_results(plan, wanted)
    else:
        _refuse_change(request, grid.name, stated, now)
    return Block(
        grid_name=grid.name,
        design=now,
        is_stated=stated is not None,
        cells=_cells(grid, seeds, wanted),
        lines=tuple(line for table in filled for line in sentences(table)),
        is_open=any(d.state == "open" for table in made.values() for d in table),
    )


def stated_block(request: LaunchRequest) -> Block:
    """The block that comes next, once its design is stated under the root.

    Raises:
        ValueError: see `next_block`.
        Busy: another launch of this grid runs.
    """
    block = next_block(request)
    if block.is_stated:
        return block
    name = block.grid_name
    with request.root.own_grid(name, f"design of the seeds of {name}"):
        stated = stated_design(request.root, name)  # perhaps by another launch, just now
        if stated is None:
            state_design(request.root, name, block.design)
        else:
            _refuse_change(request, name, stated, block.design)
    return replace(block, is_stated=True)


def launch_until_settled(
    request: LaunchRequest, run: Callable[[LaunchRequest], int], show: Callable[[str], None]
) -> int:
    """State the design, then run block after block until no comparison is open.

    Args:
        request: with seeds=auto.
        run: launches the cells of a request; returns its exit code.
        show: prints a line.

    Returns:
        The exit code of a block that did not end, or 0.

    Raises:
        ValueError: see `next_block`; or results are done that cannot be paired.
        Busy: another launch of this grid runs.
    """
    block = stated_block(request)
    for line in design_lines(block.design):
        show(line)
    done: tuple[Cell, ...] = ()
    while block.cells != done:
        code = run(replace(request, cells=block.cells))
        if code != EXIT_DONE:
            return code
        done, block = block.cells, next_block(request)
        for line in block.lines:
            show(line)
    if block.is_open:
        raise ValueError(
            f"All cells of the next look at {block.grid_name} are done, and some cannot be paired: "
            "their images, masks or lists differ, or a score is missing. `tables` names them; "
            "rerun=drifted renews them."
        )
    return EXIT_DONE


def design_lines(design: SeedDesign) -> Iterator[str]:
    """The design in words."""
    for name, table in design.tables.items():
        looks = ", ".join(str(look.seeds) for look in table.looks)
        yield (
            f"{name}: {quantity(len(table.comparisons), 'comparison')} at {design.alpha:.0%} in "
            f"all, at most {quantity(len(design.seeds), 'seed')}, looks after {looks}"
        )


def _refuse_parts(options: LaunchOptions) -> None:
    """Refuse to choose cells by hand where the design chooses them."""
    if options.only != "*":
        raise ValueError(f"only={options.only} with seeds=auto: the design chooses the cells.")
    if options.rerun == "all":
        raise ValueError("rerun=all with seeds=auto would run every look again; leave it out.")


def _seeds(grid: Grid, max_seeds: int) -> tuple[int, ...]:
    """The grid's own seeds, then 1, 2, 3 and so on."""
    more = (seed for seed in count(1) if seed not in grid.seeds)
    return tuple(islice((*grid.seeds, *islice(more, max_seeds)), max_seeds))


def _once(grid: Grid) -> Iterator[Cell]:
    """The grid's cells, each for one seed only."""
    yield from dict.fromkeys(replace(cell, seed=0) for cell in grid.cells)


def _over(grid: Grid, seeds: Sequence[int]) -> tuple[Cell, ...]:
    """All cells over these seeds and the grid's own."""
    chosen = dict.fromkeys((*seeds, *grid.seeds))
    return tuple(replace(cell, seed=seed) for seed in chosen for cell in _once(grid))


def _design(request: LaunchRequest, grid: Grid, seeds: tuple[int, ...], plan: Plan) -> SeedDesign:
    """The design that the command asks for, whatever results there are."""
    empty = [fill(table, []) for table in tables_of(grid)]
    tables = {
        filled.table.name: design
        for filled in empty
        if (design := table_design(filled, len(seeds))) is not None
    }
    if not tables:
        raise ValueError(
            f"seeds=auto: no table of {grid.name} compares two rows; give one a row with "
            "`minus: [NEW, BASELINE]`."
        )
    return SeedDesign(
        alpha=ALPHA,
        futile_p=FUTILE_P,
        epoch=request.options.printed_epoch,
        seeds=seeds,
        configuration=configuration_of(grid, seeds[0], plan.today),
        tables=tables,
    )


def _filled(
    request: LaunchRequest, grid: Grid, plan: Plan, design: SeedDesign
) -> list[FilledTable]:
    """The grid's tables with the results of today's settings."""
    rows = counted_rows(plan.root, plan.grid.cells, plan.today)
    epoch = request.options.printed_epoch
    return [fill(t, rows, epoch=epoch, today=plan.today, design=design) for t in tables_of(grid)]


def _wanted(made: Mapping[str, Sequence[Decision]], design: SeedDesign) -> dict[str, int]:
    """How many seeds the cells of all comparisons need now, by key without a seed."""
    wanted: dict[str, int] = {}
    for table, some in made.items():
        for group, seeds in wanted_seeds(some, design, table).items():
            wanted[group] = max(wanted.get(group, 0), seeds)
    return wanted


def _cells(grid: Grid, seeds: Sequence[int], wanted: Mapping[str, int]) -> tuple[Cell, ...]:
    """The cells of the block, seed by seed; those in no comparison have the grid's own seeds."""
    chosen = []
    for cell in _over(grid, seeds):
        group = cell.key.rpartition(".s")[0]
        own = seeds[: wanted[group]] if group in wanted else grid.seeds
        if cell.seed in own:
            chosen.append(cell)
    return tuple(chosen)


def _refuse_change(
    request: LaunchRequest, grid_name: str, stated: SeedDesign, now: SeedDesign
) -> None:
    """Refuse another design than the one that was stated."""
    if stated != now:
        file = f"{request.root.results('designs').address}/{grid_name}.json"
        raise ValueError(
            f"The seeds of {grid_name} follow the design that was stated before the first of them "
            f"({file}); this command differs in {'; '.join(design_changes(stated, now))}. Undo "
            "that, or choose another root=DIR."
        )


def _refuse_earlier_results(plan: Plan, wanted: Mapping[str, int]) -> None:
    """Refuse a design of seeds whose results somebody may have seen."""
    keys = [key for key in plan.keys(State.done) if key.rpartition(".s")[0] in wanted]
    if keys:
        raise ValueError(
            f"seeds=auto: the design is younger than {quantity(len(keys), 'result')}, such as "
            f"{keys[0]}, and a design holds only if it is stated before its first seed. Choose "
            "another root=DIR, or "
            "give the grid other `seeds`."
        )
