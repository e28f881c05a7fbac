"""Questions of one's own to the results, in SQL.

DuckDB sees three views, each attempt once and in today's layout, whatever files they come from:
`rows` (every attempt), `counted` (the one row per cell that tables print) and `history` (one row
per epoch, with the axes of its cell).
"""

from collections.abc import Iterable

import pyarrow as pa
import pyarrow.compute as pc

from orchestrator.history import read_history
from orchestrator.results import counted_table, read_table
from sweeps.cell import Cell

VIEWS = ("rows", "counted", "history")

_AXES = ("recipe", "split", "backbone", "crop", "method", "loss", "seed")


def query(root: str, sql: str, *, cells: Iterable[Cell] | None = None) -> pa.Table:
    """The answer to a question.

    Args:
        root: folder or fsspec URL of the results.
        sql: one SELECT over the views of this module.
        cells: only these are in the views, at any seed; None shows all.

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
    # No file of its own, and no download of extensions behind one's back.
    connection = duckdb.connect(":memory:", config={"autoinstall_known_extensions": "false"})
    for name, table in _tables(root, cells).items():
        connection.register(name, table)
    axes = ", ".join(f"rows.{axis}" for axis in _AXES)
    connection.execute(
        f"CREATE VIEW history AS SELECT {axes}, epochs.* FROM epochs JOIN rows "
        "ON epochs.key = rows.key AND epochs.attempt = rows.attempt"
    )
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


def _tables(root: str, cells: Iterable[Cell] | None) -> dict[str, pa.Table]:
    """What the views are made of."""
    rows, epochs = read_table(root), read_history(root)
    if cells is not None:
        places = pa.array(sorted({c.key.rpartition(".s")[0] for c in cells}), pa.string())
        rows, epochs = (_of_places(table, places) for table in (rows, epochs))
    return {"rows": rows, "counted": counted_table(rows), "epochs": epochs}


def _of_places(table: pa.Table, places: pa.Array) -> pa.Table:
    own = pc.replace_substring_regex(table["key"], r"\.s\d+$", "")
    return table.filter(pc.is_in(own, places))
