"""The rows, configurations and commits behind a printed number or a cell (``--explain``)."""

import difflib
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from datasets.wording import quantity
from orchestrator.results.counted import Today, counted, differences, is_of_today
from orchestrator.results.row import SCHEMA, Row
from orchestrator.tables.filled import Epoch, FilledTable, Mark, TableEntry
from orchestrator.tables.notes import making
from orchestrator.tables.text import MISSING, NamedEntry, named_entries, shown, signed
from trainer.config.fingerprint import settings

_MARKS = {
    Mark.DRIFTED: "drifted: ran with another configuration, other first weights, images or lists "
    "than today's",
    Mark.MIXED: "mixed: results of different configurations, first weights, images or lists were "
    "kept apart",
    Mark.MACHINES: "mixed: its runs come from different commits, versions, devices or world sizes",
    Mark.FEWER_SEEDS: "incomplete: over fewer seeds than the table has",
}


@dataclass(frozen=True)
class Explanation:
    """Where a number comes from.

    Attributes:
        name: of the number, or the key.
        prints: the number as it is printed.
        formula: how it comes from the rows.
        warnings: what a reader must know about it.
        rows: behind it, in print order.
        epoch: whose mIoU counts.
        places: where the attempts of a cell lie, by key, see `Root.places`.
    """

    name: str
    prints: str
    formula: str
    warnings: tuple[str, ...]
    rows: tuple[Row, ...]
    epoch: Epoch
    places: Mapping[str, Mapping[int, str]] = field(default_factory=dict)


def explain(
    what: str,
    tables: Sequence[FilledTable],
    rows: Iterable[Row],
    *,
    today: Mapping[str, Today] | None = None,
    places: Callable[[str], Mapping[int, str]] = lambda key: {},
) -> list[Explanation]:
    """Everything behind a number or a cell.

    Args:
        what: name of a number (see `named_entries`), the beginning of several, a number as one or
            more entries print it (ours, quoted, or the paper's beside ours), a cell's key, or a key
            without its seed.
        tables: filled from the results.
        rows: all results, for cells that no table prints, and for failed attempts.
        today: what the rows that count agree with, see `results.counted`.
        places: `Root.places` of the results' root.

    Raises:
        ValueError: nothing has that name; names what is near.
    """
    named = [(table, entry) for table in tables for entry in named_entries(table)]
    wanted = what.strip("/")
    chosen = [pair for pair in named if pair[1].name == wanted]
    chosen = chosen or [pair for pair in named if pair[1].name.startswith(f"{wanted}/")]
    chosen = chosen or [pair for pair in named if _number(wanted) in _printed(*pair)]
    if chosen:
        return [_placed(_of_entry(table, entry), places) for table, entry in chosen]
    rows = list(rows)
    attempts = [row for row in rows if what in (row.key, row.group)]
    if attempts:
        return [_placed(_of_cell(what, attempts, today or {}), places)]
    if _NUMBER.fullmatch(_number(wanted)):
        raise ValueError(_nearest_printed(_number(wanted), named))
    names = _nearest(wanted, [entry.name for _, entry in named])
    keys = _nearest(wanted, list(dict.fromkeys(row.key for row in rows)))
    cells = f"the cells with a result, {keys}" if keys else "no cell has a result yet"
    raise ValueError(
        f"No number and no cell with a result is called {what!r}. The nearest numbers of this grid "
        f"are {names}; {cells}."
    )


def _nearest(wanted: str, names: Sequence[str]) -> str:
    """The three names that are most like a wanted one; the first three where none is."""
    return ", ".join(difflib.get_close_matches(wanted, names, n=3, cutoff=0.3) or names[:3])


def _printed(table: FilledTable, named: NamedEntry) -> tuple[str, ...]:
    """The numbers that a table prints for an entry: ours or a quoted one, and the paper's."""
    words = shown(named.row, table.table.decimals)[named.column]
    return tuple(text for text in (words.main, words.paper) if _NUMBER.fullmatch(text))


_NUMBER = re.compile(r"[-+]?\d+(\.\d+)?")


def _number(text: str) -> str:
    """A number as tables print it, also where it was copied with a minus sign or a comma."""
    return text.strip().replace("\u2212", "-").replace(",", ".")


def _nearest_printed(wanted: str, named: Sequence[tuple[FilledTable, NamedEntry]]) -> str:
    """Why a number cannot be explained, with the printed numbers that lie nearest."""
    printed = {text: entry.name for table, entry in named for text in _printed(table, entry)}
    near = sorted(printed, key=lambda text: abs(float(text) - float(wanted)))[:3]
    names = ", ".join(f"{text} ({printed[text]})" for text in near)
    return f"No entry prints {wanted}. " + (
        f"The nearest are {names}."
        if near
        else "The tables of this grid print no number yet, as no cell has a result under this "
        "root: launch the grid first, or name another root=."
    )


def explanation_text(explanation: Explanation) -> str:
    """The explanation as text."""
    lines = [
        explanation.name,
        f"  prints  {explanation.prints}",
        f"  is      {explanation.formula}",
    ]
    lines += [f"  {warning}" for warning in explanation.warnings]
    for row in explanation.rows:
        place = explanation.places.get(row.key, {}).get(row.attempt, "")
        lines += [f"  {line}" for line in _row_lines(row, explanation.epoch, place)]
    lines += [f"  {line}" for line in _configuration(explanation.rows)]
    return "\n".join(lines)


def explanations_json(explanations: Iterable[Explanation]) -> str:
    """The explanations as JSON, with whole rows."""
    return json.dumps([_plain(item) for item in explanations], indent=1, default=str)


def _plain(explanation: Explanation) -> dict[str, Any]:
    rows = [
        {name: getattr(row, name) for name in SCHEMA.names}
        | {"place": row.group, "config": json.loads(row.config_json)}
        | {"run_folder": explanation.places.get(row.key, {}).get(row.attempt)}
        for row in explanation.rows
    ]
    for row in rows:
        del row["config_json"]
    return {
        "name": explanation.name,
        "prints": explanation.prints,
        "formula": explanation.formula,
        "warnings": list(explanation.warnings),
        "rows": rows,
    }


def _of_entry(table: FilledTable, named: NamedEntry) -> Explanation:
    entry = named.entry
    return Explanation(
        name=named.name,
        prints=_prints(table, named),
        formula=formula(table, named),
        warnings=(
            *(_MARKS[mark] for mark in entry.marks if mark in _MARKS),
            *(_left_out(row, entry.results[0]) for row in entry.apart),
            *_to_train(entry),
        ),
        rows=tuple({(row.key, row.attempt): row for row in entry.results}.values()),
        epoch=table.epoch,
    )


def _to_train(entry: TableEntry) -> Iterator[str]:
    """What trains an entry that nothing was tried for."""
    if entry.cell is not None and not entry.results and not entry.failed:
        yield f"`launch` trains it: {entry.cell.key}"


def _placed(explanation: Explanation, places: Callable[[str], Mapping[int, str]]) -> Explanation:
    keys = dict.fromkeys(row.key for row in explanation.rows)
    return replace(explanation, places={key: places(key) for key in keys})


def _left_out(row: Row, other: Row) -> str:
    return f"left out: {row.key} attempt {row.attempt}, {' and '.join(differences(other, row))}"


def _of_cell(what: str, rows: Sequence[Row], today: Mapping[str, Today]) -> Explanation:
    """All attempts of a cell, or of all its seeds."""
    ordered = sorted(rows, key=lambda row: (row.seed, row.attempt))
    done = [row for row in ordered if row.status == "done"]
    scores = [f"{row.best_miou_percent:.2f}" for row in done if row.best_miou_percent is not None]
    newest = counted(ordered, today).values()
    chosen = sorted((row for row in newest if row.status == "done"), key=lambda row: row.seed)
    counts = ", ".join(
        str(row.attempt) + ("" if is_of_today(row, today) else " (drifted)") for row in chosen
    )
    return Explanation(
        name=what,
        prints=", ".join(scores) or MISSING,
        formula=f"{quantity(len(ordered), 'attempt')}, {len(done)} done; tables count the newest "
        "done one of today's configuration, first weights, images and lists for each seed: "
        + (f"attempt {counts}" if counts else "none"),
        warnings=(),
        rows=tuple(ordered),
        epoch="best",
    )


def formula(table: FilledTable, named: NamedEntry) -> str:
    """In words, how a number comes from its rows."""
    row, entry = named.row.row, named.entry
    if row.kind in ("quoted", "original"):
        return f"quoted, not run here; source: {row.source}"
    if not entry.values:
        return "nothing yet" + (
            f"; {quantity(entry.failed, 'seed')} failed" if entry.failed else ""
        )
    epoch = f"mIoU (%) at the {table.epoch} epoch"
    if row.kind == "ours":
        return f"{epoch}, {_over(entry)}"
    if row.minus is not None:
        gain = f"{row.minus[0]} minus {row.minus[1]}"
    else:
        heads = [" ".join(parts) for parts in zip(*table.table.heads(), strict=True)]
        gain = f"{heads[named.column]} minus {heads[row.baseline or 0]}, averaged over all rows"
    return f"{gain}, seed by seed, n = {len(entry.values)}; {epoch}"


def _over(entry: TableEntry) -> str:
    seeds = ", ".join(str(row.seed) for row in entry.results)
    return f"seed {seeds}" if len(entry.results) == 1 else f"mean over seeds {seeds}"


def _prints(table: FilledTable, named: NamedEntry) -> str:
    entry, digits = named.entry, table.table.decimals
    plain = named.row.row.kind not in ("difference", "average")
    value = entry.mean if named.row.row.kind not in ("quoted", "original") else entry.published
    text = MISSING if value is None else f"{value:.{digits}f}" if plain else signed(value, digits)
    if entry.spread is not None:
        text += f" ±{entry.spread:.{digits}f}"
    if entry.published is not None and value is not entry.published:
        paper = f"{entry.published:.{digits}f}" if plain else signed(entry.published, digits)
        text += f" (paper {paper})"
    return text


def _row_lines(row: Row, epoch: Epoch, place: str) -> Iterator[str]:
    """Two or three lines about one row; `place` is its run folder, empty where that is gone."""
    best = epoch == "best"
    score = row.best_miou_percent if best else row.last_miou_percent
    start = row.pretrained_sha256
    first = f"first weights {_short(start)}, " if start else ""
    which, weights = ("best", row.best_weights_sha256) if best else ("final", row.weights_sha256)
    at = row.best_epoch if best else row.last_epoch
    if row.status == "done" and score is not None:
        result = f"{score:.4f}" + (f" at epoch {at}" if at is not None else "")
    else:
        result = f"failed: {row.error_class or 'for an unknown reason'}"
    yield f"{row.key}  attempt {row.attempt}: {result}"
    dirty = " with changes that were not committed" if row.git_dirty else ""
    yield (
        f"  commit {row.git_commit or 'unknown'}{dirty}; {_machine(row)}, "
        f"finished {row.finished:%Y-%m-%d %H:%M} UTC"
    )
    yield (
        f"  {first}{which} weights {_short(weights)}, data {_short(row.data_fingerprint)}, split "
        f"{_short(row.split_checksum)}, configuration {_short(row.fingerprint)}; run folder "
        f"{place or 'gone'}"
    )


def _machine(row: Row) -> str:
    """Versions and machine of a row, as far as it says."""
    named = (
        f"torch {row.torch or 'unknown'}",
        f"CUDA {row.cuda}" if row.cuda else "",
        f"{row.device or 'unknown device'} x {row.world_size or 1}",
        row.host or "",
    )
    return ", ".join(filter(None, named))


def _configuration(rows: Sequence[Row]) -> Iterator[str]:
    """The configurations: what they share line by line, and where they differ."""
    if not rows:
        return
    flat = [_flat(json.loads(settings(row.config_json))) for row in rows]
    names = sorted({name for config in flat for name in config})
    differing = [name for name in names if len({config.get(name) for config in flat}) > 1]
    kinds = len({making(row) for row in rows})
    if kinds > 1:
        yield f"code and machines differ: {kinds} kinds, see the rows"
    for name in differing:
        values = dict.fromkeys(config.get(name, "(absent)") for config in flat)
        yield f"configurations differ in {name}: {', '.join(values)}"
    yield "configuration" + (", where they agree" if differing else " (all but the seed)") + ":"
    for name in names:
        if name not in differing:
            yield f"  {name}={flat[0][name]}"


def _flat(plain: Any, prefix: str = "") -> dict[str, str]:
    """Nested values by dotted name, as JSON."""
    if not isinstance(plain, dict) or not plain:
        return {prefix[:-1]: json.dumps(plain)}
    values: dict[str, str] = {}
    for name, inner in plain.items():
        values |= _flat(inner, f"{prefix}{name}.")
    return values


def _short(sha256: str | None) -> str:
    return sha256[:12] if sha256 else "unknown"
