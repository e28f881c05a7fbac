"""A table of the benchmark: its cells, and the numbers the papers print. Reads `sweeps/tables`."""

import math
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path
from typing import Any, Literal

from datasets.wording import quantity
from sweeps.cell import Cell, setting_text
from sweeps.yaml_spec import (
    Spec,
    cell_of,
    check_axes,
    check_axis,
    check_keys,
    find,
    mapping,
    read,
    sequence,
    text,
    texts,
)

TABLE_FOLDER = Path(__file__).parent / "tables"

_KEYS = (
    "title",
    "notes",
    "corner",
    "decimals",
    "best",
    "cell",
    "columns",
    "replicates",
    "labels",
    "blocks",
    "originals",
)
_BLOCK_KEYS = ("label", "cell", "rows")
_ROW_KEYS = ("label", "cell", "published", "source", "minus", "gain_over", "note")
_EXTENSION_KEYS = ("extends", "title", "notes", "reruns")
_RERUN_KEYS = ("cell", "label")


@dataclass(frozen=True)
class TableRow:
    """One line of a table.

    Attributes:
        label: name of the method or setting.
        kind: ours (runs of this project), quoted (of another paper, never run here), original
            (as that other paper itself prints it), difference (of two rows of its block) or
            average (gain over one column, over all rows of ours).
        cells: one per column; empty unless the kind is ours.
        published: what the paper prints, one per column; None is a printed dash, or no value.
        source: where a published number comes from that the paper quotes or took over; empty for
            the paper's own.
        minus: labels of the two rows a difference is taken of.
        baseline: the column an average gain is taken over.
        note: a footnote.
    """

    label: str
    kind: Literal["ours", "quoted", "original", "difference", "average"]
    cells: tuple[Cell, ...]
    published: tuple[float | None, ...]
    source: str = ""
    minus: tuple[str, str] | None = None
    baseline: int | None = None
    note: str = ""


@dataclass(frozen=True)
class Block:
    """Rows that are compared with each other, such as those of one backbone."""

    label: str
    rows: tuple[TableRow, ...]


@dataclass(frozen=True)
class Table:
    """A whole table; every row has one entry per column.

    Attributes:
        corner: text of the head above the row labels.
        decimals: digits after the point, as the paper prints.
        best: whether the best value stands out among the rows of a block ("down" a column) or
            among the columns of a row ("across").
        columns: axes of each column, outermost axis first.
        replicates: the columns are replicates of one setting, such as drawings or folds, so that
            comparisons resample over them as over seeds.
        labels: how names of axes' values are printed.
        notes: further lines under the table.
        originals: numbers as their own papers print them, where the paper of this table quotes
            others; printed as a block of their own, never run.
    """

    name: str
    title: str
    columns: tuple[Spec, ...]
    blocks: tuple[Block, ...]
    corner: str = ""
    decimals: int = 1
    best: Literal["down", "across"] = "down"
    replicates: bool = False
    labels: dict[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    originals: Block | None = None

    @property
    def rows(self) -> Iterator[TableRow]:
        """All rows of the paper, block after block."""
        return (row for block in self.blocks for row in block.rows)

    @property
    def cells(self) -> tuple[Cell, ...]:
        """Every cell that must be run to print this table, each once, in print order."""
        return tuple(dict.fromkeys(cell for row in self.rows for cell in row.cells))

    @property
    def is_published(self) -> bool:
        """Whether a paper prints values for this table."""
        return any(value is not None for row in self.rows for value in row.published)

    def heads(self) -> tuple[tuple[str, ...], ...]:
        """Printed names of the columns, one line of the head per axis."""
        axes = self.columns[0]
        return tuple(tuple(self._head(column[axis]) for column in self.columns) for axis in axes)

    def _head(self, value: object) -> str:
        """How a value of an axis is printed; a label of 1e-4 or 1 is one of 0.0001 or 1.0 too."""
        alike = [label for name, label in self.labels.items() if _is_value(name, value)]
        return alike[0] if alike else str(value)


def _is_value(name: str, value: object) -> bool:
    """Whether the text of a label's key is a value of an axis, however it is typed."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        with suppress(ValueError):
            return float(name) == value
    return name in (str(value), setting_text(value))


def load_table(name_or_path: str) -> Table:
    """A table by name, or from a YAML file of one's own.

    Raises:
        ValueError: no such table, or a mistake in the file; says where and what to do.
    """
    path = find(name_or_path, TABLE_FOLDER, "table")
    spec = read(path)
    if "extends" in spec:
        spec = _extended(spec, path)
    check_keys(spec, str(path), _KEYS, needed=("title", "columns", "blocks"))
    columns = _columns(spec["columns"], f"{path}: columns")
    shared = check_axes(mapping(spec.get("cell", {}), f"{path}: cell"), f"{path}: cell")
    blocks = tuple(
        _block(block, shared, columns=columns, where=f"{path}: block {number}")
        for number, block in enumerate(sequence(spec["blocks"], f"{path}: blocks"), start=1)
    )
    labels = mapping(spec.get("labels", {}), f"{path}: labels")
    return Table(
        name=path.stem,
        title=text(spec["title"], f"{path}: title"),
        columns=columns,
        blocks=blocks,
        corner=text(spec.get("corner", ""), f"{path}: corner"),
        decimals=_decimals(spec.get("decimals", 1), f"{path}: decimals"),
        best=_best(spec.get("best", "down"), f"{path}: best"),
        replicates=_replicates(spec.get("replicates"), f"{path}: replicates"),
        labels={name: text(label, f"{path}: labels: {name}") for name, label in labels.items()},
        notes=texts(spec.get("notes", []), f"{path}: notes"),
        originals=_originals(spec.get("originals"), columns, f"{path}: originals"),
    )


def _extended(spec: Spec, path: Path) -> Spec:
    """The spec of another file's table, some of whose quoted rows have cells: `reruns`.

    Published values, sources and notes stay those of the other file, which is a name or a path that
    counts from the folder of this file.
    """
    check_keys(spec, str(path), _EXTENSION_KEYS, needed=("reruns",))
    name = text(spec["extends"], f"{path}: extends")
    is_path = name.endswith((".yaml", ".yml"))
    place = str(path.parent / Path(name).expanduser()) if is_path else name
    base = read(find(place, TABLE_FOLDER, "table"))
    if "extends" in base:
        raise ValueError(f"{path}: {name} extends a table that itself extends one; name that one.")
    quoted = [row.label for row in load_table(place).rows if row.kind == "quoted"]
    reruns = mapping(spec["reruns"], f"{path}: reruns")
    for label, rerun in reruns.items():
        if label not in quoted:
            known = ", ".join(dict.fromkeys(quoted))
            raise ValueError(
                f"{path}: reruns: no quoted row is called {label!r}; there are {known}."
            )
        where = f"{path}: reruns ({label!r})"
        check_keys(mapping(rerun, where), where, _RERUN_KEYS, needed=("cell",))
        check_axes(mapping(rerun["cell"], f"{where}: cell"), f"{where}: cell")
    blocks = [
        block | {"rows": [_rerun(row, reruns.get(row["label"])) for row in block["rows"]]}
        for block in base["blocks"]
    ]
    notes = [*base.get("notes", []), *texts(spec.get("notes", []), f"{path}: notes")]
    return base | {"title": spec.get("title", base["title"]), "notes": notes, "blocks": blocks}


def _rerun(row: Spec, rerun: Spec | None) -> Spec:
    """A row with cell and label of its entry in `reruns`; its note speaks of the quoted value."""
    if rerun is None:
        return row
    note = {"note": f"quoted value, {row['note']}"} if "note" in row else {}
    return row | rerun | note


def _columns(value: Any, where: str) -> tuple[Spec, ...]:
    """All combinations of the axes of the columns, the first axis outermost."""
    axes = mapping(value, where)
    for axis, values in axes.items():
        listed = sequence(values, f"{where}: {axis}")
        for item in listed:
            check_axis(axis, item, where)
        if len(set(listed)) < len(listed):
            raise ValueError(f"{where}: {axis} lists a value twice; remove one.")
    return tuple(dict(zip(axes, values, strict=True)) for values in product(*axes.values()))


def _block(value: Any, shared: Spec, *, columns: tuple[Spec, ...], where: str) -> Block:
    """One block of rows; the block's axes override those of the whole table."""
    block = mapping(value, where)
    check_keys(block, where, _BLOCK_KEYS, needed=("rows",))
    own = check_axes(mapping(block.get("cell", {}), f"{where}: cell"), f"{where}: cell")
    rows: list[TableRow] = []
    for number, spec in enumerate(sequence(block["rows"], f"{where}: rows"), start=1):
        place = f"{where}, row {number}"
        row = _row(mapping(spec, place), shared | own, columns=columns, where=place)
        known = [earlier.label for earlier in rows]
        if row.label in known:
            raise ValueError(f"{place}: the label {row.label!r} stands twice in its block.")
        for label in set(row.minus or ()) - set(known):
            raise ValueError(f"{place}: no row above is called {label!r}; there are {known}.")
        rows.append(row)
    return Block(text(block.get("label", ""), f"{where}: label"), tuple(rows))


def _originals(value: Any, columns: tuple[Spec, ...], where: str) -> Block | None:
    """The block of original numbers; None where the file has none."""
    if value is None:
        return None
    block = _block(value, {}, columns=columns, where=where)
    for row in block.rows:
        if row.kind != "quoted":
            raise ValueError(f"{where} ({row.label!r}): give `published` values and `source` only.")
    return replace(block, rows=tuple(replace(row, kind="original") for row in block.rows))


def _row(spec: Spec, shared: Spec, *, columns: tuple[Spec, ...], where: str) -> TableRow:
    """One row; its cells are the shared axes, then the row's own, then the column's."""
    check_keys(spec, where, _ROW_KEYS, needed=("label",))
    label = text(spec["label"], f"{where}: label")
    where = f"{where} ({label!r})"
    kinds = [key for key in ("cell", "minus", "gain_over") if key in spec]
    if len(kinds) > 1:
        raise ValueError(f"{where}: {' and '.join(kinds)} exclude each other; keep one.")
    if not kinds and not ("source" in spec and "published" in spec):
        raise ValueError(
            f"{where}: give it a `cell` to run, `minus` two rows, or, for a number of another "
            "paper, `published` values and their `source`."
        )
    published = _published(spec.get("published", [None] * len(columns)), len(columns), where)
    source = text(spec.get("source", ""), f"{where}: source")
    note = text(spec.get("note", ""), f"{where}: note")
    if "minus" in spec:
        pair = texts(spec["minus"], f"{where}: minus")
        if len(pair) != 2:
            raise ValueError(f"{where}: minus takes two labels, [new, baseline].")
        return TableRow(
            label, "difference", (), published, source, minus=(pair[0], pair[1]), note=note
        )
    if "gain_over" in spec:
        column = _baseline(mapping(spec["gain_over"], f"{where}: gain_over"), columns, where)
        return TableRow(label, "average", (), published, source, baseline=column, note=note)
    if "cell" not in spec:
        return TableRow(label, "quoted", (), published, source, note=note)
    own = check_axes(mapping(spec["cell"], f"{where}: cell"), f"{where}: cell")
    for axis in set(own) & set(columns[0]):
        raise ValueError(f"{where}: {axis} is an axis of the columns; remove it from the row.")
    cells = tuple(cell_of(shared | own | column, where) for column in columns)
    return TableRow(label, "ours", cells, published, source, note=note)


def _published(value: Any, count: int, where: str) -> tuple[float | None, ...]:
    """One number or None per column."""
    values = sequence(value, f"{where}: published")
    if len(values) != count:
        raise ValueError(
            f"{where}: {quantity(len(values), 'published value')} for {quantity(count, 'column')}; "
            "write null where the paper prints a dash."
        )
    for item in values:
        is_number = isinstance(item, int | float) and not isinstance(item, bool)
        if item is not None and not (is_number and math.isfinite(item)):
            raise ValueError(f"{where}: {item!r} is no published value; write a number or null.")
    return tuple(None if item is None else float(item) for item in values)


def _baseline(pattern: Spec, columns: tuple[Spec, ...], where: str) -> int:
    """Index of the one column that has the values of the pattern."""
    positions = [i for i, column in enumerate(columns) if pattern.items() <= column.items()]
    if len(positions) != 1:
        raise ValueError(
            f"{where}: gain_over {pattern} must fit one column; it fits {len(positions)}."
        )
    return positions[0]


def _decimals(value: Any, where: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= 6:
        raise ValueError(f"{where}: expected a number of digits from 0 to 6, found {value!r}.")
    return value


def _best(value: Any, where: str) -> Literal["down", "across"]:
    if value not in ("down", "across"):
        raise ValueError(f"{where}: expected down or across, found {value!r}.")
    return "down" if value == "down" else "across"


def _replicates(value: Any, where: str) -> bool:
    if value not in (None, "columns"):
        raise ValueError(f"{where}: expected columns, or leave it out, found {value!r}.")
    return value is not None
