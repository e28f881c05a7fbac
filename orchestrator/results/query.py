"""SQL queries over the results, with DuckDB.

There are four views, which hold each attempt once, also while results are being compacted:
`rows` (every attempt), `counted` (the one row per cell that tables print), `history` (one row per
epoch, with the axes of its cell) and `confusion` (of every counted row, the pixels of each pair of
true and predicted class, at the best and at the last epoch). The matrices behind `confusion` are
most of the bytes; they are read for a question that names this view, and for no other.
"""

from collections.abc import Iterable, Mapping

import pyarrow as pa
import pyarrow.compute as pc

from orchestrator.results.counted import Today
from orchestrator.results.history import read_history
from orchestrator.results.row import AXES
from orchestrator.results.store import CONFUSIONS, SCHEMA, counted_table, read_table
from orchestrator.storage.root import Root
from sweeps.cell import Cell

VIEWS = ("rows", "counted", "history", "confusion")

_HISTORY = f"""
CREATE VIEW history AS
SELECT {", ".join(f"rows.{axis}" for axis in AXES)}, epochs.*
FROM epochs JOIN rows ON epochs.key = rows.key AND epochs.attempt = rows.attempt
"""

_PLACE = f"{', '.join(AXES)}, key, attempt"
# Lists of DuckDB begin at 1.
_CONFUSION = f"""
CREATE VIEW confusion AS
WITH matrices AS (
    SELECT {_PLACE}, class_names, 'best' AS epoch, best_confusion AS matrix FROM counts
    UNION ALL
    SELECT {_PLACE}, class_names, 'last' AS epoch, last_confusion AS matrix FROM counts
), lines AS (
    SELECT *, unnest(matrix) AS line, generate_subscripts(matrix, 1) AS t FROM matrices
), cells AS (
    SELECT *, unnest(line) AS pixels, generate_subscripts(line, 1) AS p FROM lines
)
SELECT {_PLACE}, epoch, t - 1 AS truth_id, class_names[t] AS truth,
       p - 1 AS prediction_id, class_names[p] AS prediction, pixels
FROM cells
"""


def query(
    root: Root,
    sql: str,
    *,
    cells: Iterable[Cell] | None = None,
    today: Mapping[str, Today] | None = None,
) -> pa.Table:
    """The answer to a question.

    Args:
        root: of the results.
        sql: one SELECT over the views of this module.
        cells: only these are in the views, at any seed; None shows all.
        today: what the rows that count must agree with, see `results.counted`.

    Raises:
        ValueError: DuckDB is not installed, or does not understand the question.
    """
    try:
        import duckdb
    except ImportError as error:
        raise ValueError(
            "query needs DuckDB, which is not installed here: pip install 'ipixmatch-grid[query]' "
            "or pip install duckdb."
        ) from error
    # No database file, and no download of extensions that the user did not ask for.
    connection = duckdb.connect(":memory:", config={"autoinstall_known_extensions": "false"})
    # Hundreds of pixel counts in every row: read for those who ask for them.
    has_counts = "confusion" in sql.lower()
    for name, table in view_tables(root, cells, today or {}, has_counts=has_counts).items():
        connection.register(name, table)
    connection.execute(_HISTORY)
    connection.execute(_CONFUSION)
    try:
        answer = connection.sql(sql)
        return pa.table({}) if answer is None else answer.to_arrow_table()
    except duckdb.Error as error:
        columns = ", ".join(connection.sql("SELECT * FROM counted LIMIT 0").columns)
        raise ValueError(
            f"{error}\nViews: {', '.join(VIEWS)}. Columns of rows and counted: {columns}."
        ) from error
    finally:
        connection.close()


def view_tables(
    root: Root,
    cells: Iterable[Cell] | None,
    today: Mapping[str, Today],
    *,
    has_counts: bool = False,
) -> dict[str, pa.Table]:
    """The Arrow tables that the views are made of: rows, counted, counts and epochs.

    Args:
        root: of the results.
        cells: as for `query`.
        today: as for `query`.
        has_counts: whether `counts` has the counted rows with their confusion matrices, or none.
    """
    narrow = [name for name in SCHEMA.names if name not in CONFUSIONS]
    cells = None if cells is None else list(cells)
    rows = read_table(root, None if has_counts else narrow, cells)
    epochs = read_history(root, cells)
    if cells is not None:
        groups = pa.array(sorted({c.key.rpartition(".s")[0] for c in cells}), pa.string())
        rows, epochs = (_of_groups(table, groups) for table in (rows, epochs))
    chosen = counted_table(rows, today)
    return {
        "rows": rows.select(narrow),
        "counted": chosen.select(narrow),
        "counts": chosen if has_counts else SCHEMA.empty_table(),
        "epochs": epochs,
    }


def _of_groups(table: pa.Table, groups: pa.Array) -> pa.Table:
    """The rows whose key without its seed is one of these."""
    keys = pc.replace_substring_regex(table["key"], r"\.s\d+$", "")
    return table.filter(pc.is_in(keys, groups))
