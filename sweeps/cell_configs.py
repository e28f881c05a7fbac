"""The configuration of every cell; Hydra composes it once per recipe, backbone, method and loss."""

from collections.abc import Iterable, Sequence
from dataclasses import replace

from datasets.location import is_here
from datasets.splits.lists import split_sizes
from sweeps.cell import Cell
from trainer.config.compose import compose
from trainer.config.schema import TrainConfig
from trainer.config.validation import MAX_SEED, check

# Settings that the axes of a cell determine; an override would contradict the key of the cell.
_OWNED = {
    "seed": "seeds",
    "recipe": "recipe",
    "model": "backbone",
    "method": "method",
    "loss": "loss",
    "data.split": "split",
    "data.crop": "crop",
    "model.backbone": "backbone",
    "method.name": "method",
    "loss.name": "loss",
}


def cell_configs(
    cells: Iterable[Cell], overrides: Sequence[str] = (), *, needs_data: bool = True
) -> dict[Cell, TrainConfig]:
    """The configuration of each cell; `config.key == cell.key` for every one.

    Hydra composes once per recipe, backbone, method and loss (a tenth of a second each); split,
    crop and seed are set in the result.

    Args:
        cells: of a grid.
        overrides: Hydra settings for all of them, such as ``optim.epochs=2``.
        needs_data: whether the lists of a split that is not a published one must be here, as for
            cells that run; their results can be read where the data is not.

    Raises:
        ValueError: an override or a cell's name that does not exist, or that a cell owns.
    """
    cells = tuple(cells)
    _check_overrides(overrides)
    distinct = {(cell.recipe, cell.method, cell.loss): cell for cell in cells}.values()
    settings = {setting for cell in distinct for setting in cell.settings}
    _check_overrides(settings)
    _refuse_both(overrides, settings)
    composed: dict[tuple[str, str, str, str], TrainConfig] = {}
    placed: dict[tuple[object, ...], TrainConfig] = {}
    configs: dict[Cell, TrainConfig] = {}
    for cell in cells:
        kind = (cell.recipe, cell.backbone, cell.method, cell.loss)
        if kind not in composed:
            composed[kind] = _composed(cell, overrides)
        place = (*kind, cell.split, cell.crop)
        if place not in placed:
            placed[place] = _placed(cell, composed[kind], needs_data=needs_data)
        configs[cell] = _seeded(cell, placed[place])
    return configs


def _check_overrides(overrides: Iterable[str]) -> None:
    for override in overrides:
        name = override.partition("=")[0].lstrip("+~")
        if name == "run.folder":
            raise ValueError(
                f"{override!r}: every cell has a folder of its own below the root; leave it out, "
                "and name the root with root=DIR."
            )
        if name in _OWNED:
            raise ValueError(
                f"{override!r} would change what every cell of the grid says itself. Write "
                f"{_OWNED[name]!r} in a grid of your own instead (see sweeps/grids)."
            )


def _refuse_both(overrides: Sequence[str], settings: Iterable[str]) -> None:
    """Refuse an override of a setting that the name of a cell says."""
    owned = {setting.partition("=")[0] for setting in settings}
    for override in overrides:
        name = override.partition("=")[0].lstrip("+~")
        if name in owned:
            raise ValueError(
                f"{override!r} would change what cells of the grid say themselves; change {name} "
                "in the grid."
            )


def _composed(cell: Cell, overrides: Sequence[str]) -> TrainConfig:
    """The configuration of a cell before its split, crop and seed are set."""
    files = cell.files
    axes = (
        f"recipe={files.recipe}",
        f"model={files.backbone}",
        f"method={files.method}",
        f"loss={files.loss}",
    )
    try:
        config = compose([*axes, *overrides, *cell.settings])
        method, loss = (
            replace(config.method, name=cell.method),
            replace(config.loss, name=cell.loss),
        )
        return replace(config, recipe=cell.recipe, method=method, loss=loss)
    except ValueError as error:
        raise ValueError(f"Cell {cell.key}: {error}") from error


def _placed(cell: Cell, config: TrainConfig, *, needs_data: bool) -> TrainConfig:
    """The checked configuration with the cell's split, crop and seed."""
    data = replace(config.data, split=cell.split, crop=cell.crop)
    try:
        if needs_data or is_here(data):
            split_sizes(data)  # knows every published name without the data
        config = check(replace(config, seed=cell.seed, data=data))
    except ValueError as error:
        raise ValueError(f"Cell {cell.key}: {error}") from error
    assert config.key == cell.key, f"a file of sweeps/ gives {config.key} for {cell.key}"
    return config


def _seeded(cell: Cell, config: TrainConfig) -> TrainConfig:
    """The configuration with the cell's seed; its parts stay the same objects."""
    if cell.seed == config.seed:
        return config
    # As pickle does it: `replace` takes ten times as long, and a grid has thousands of cells.
    seeded = object.__new__(TrainConfig)
    seeded.__dict__.update(config.__dict__, seed=cell.seed)
    # Only the seed changed, so only a seed out of range can fail; `check` words the error.
    return seeded if 0 <= cell.seed <= MAX_SEED else check(seeded)
