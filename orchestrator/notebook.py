"""Results in a notebook: the tables of a grid to look at, its rows and epochs as data frames.

    from orchestrator.notebook import load_grid

    paper = load_grid("paper", root="outputs")
    paper.table(3)
    paper.rows()[["key", "best_miou_percent"]]

It only reads: nothing is trained, and nothing is written. Rows and epochs are read by each call;
states, and what counts as of today, are those of the moment in which the grid was loaded. pandas is
imported by the calls that return a data frame, and by no other.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from io import StringIO
from typing import TYPE_CHECKING

from orchestrator.options import parse
from orchestrator.planning.plan import LaunchRequest, Plan
from orchestrator.printers.csv import table_csv
from orchestrator.printers.html import html
from orchestrator.printers.latex import latex
from orchestrator.printers.markdown import markdown
from orchestrator.results.query import query, view_tables
from orchestrator.results.row import AXES
from orchestrator.results.seed_design import design_for
from orchestrator.results.store import counted_rows
from orchestrator.storage.open import open_root
from orchestrator.tables.fill import fill
from orchestrator.tables.filled import Epoch, FilledTable
from sweeps.grid_tables import tables_of

if TYPE_CHECKING:
    from pandas import DataFrame


def load_grid(grid: str, root: str = "outputs", *, settings: Sequence[str] = ()) -> "GridResults":
    """The results of a grid under a root.

    Args:
        grid: its name, or the path of its file.
        root: a folder, or s3://bucket/prefix.
        settings: key=value words as on the command line, such as "only=*kl*", "epoch=last", or the
            settings of the training with which the grid was launched.

    Raises:
        ValueError: unknown grid or setting, or no cell fits `only`.
        Unreachable: the server of a bucket does not answer.
    """
    options, overrides = parse([f"root={root}", *settings])
    request = LaunchRequest(grid, open_root(options.root, options.scratch), options, overrides)
    return GridResults(request.plan(), options.printed_epoch)


@dataclass(frozen=True)
class GridResults:
    """The results of a grid, see `load_grid`.

    Attributes:
        plan: the cells and their states when the grid was loaded.
        epoch: whose mIoU the tables print.
    """

    plan: Plan
    epoch: Epoch

    def cells(self) -> "DataFrame":
        """Every cell with its state and the reason for it, as `status` has them."""
        from pandas import DataFrame

        facts = [(cell.key, cell.state.value, cell.why, cell.seconds) for cell in self.plan.cells]
        return DataFrame(facts, columns=["key", "state", "why", "estimated_seconds"])

    def rows(self, *, every_attempt: bool = False) -> "DataFrame":
        """The row of each cell that counts in tables; docs/results.md describes the columns.

        Args:
            every_attempt: all published attempts instead, also failed and older ones.
        """
        return self._view("rows" if every_attempt else "counted")

    def history(self) -> "DataFrame":
        """One line for each epoch of every published attempt, with the axes of its cell."""
        axes = self._view("rows")[[*AXES, "key", "attempt"]]
        return axes.merge(self._view("epochs"), on=["key", "attempt"])

    def query(self, sql: str) -> "DataFrame":
        """The answer to a question in SQL over rows, counted, history and confusion.

        Raises:
            ValueError: DuckDB is not installed, or does not understand the question.
        """
        plan = self.plan
        return query(plan.root, sql, cells=plan.grid.cells, today=plan.today).to_pandas()

    def table(self, which: int | str = 1) -> "GridTable":
        """One of the grid's tables, filled with what is there.

        Args:
            which: its place among the tables of the grid, counted from 1, or its name.

        Raises:
            ValueError: the grid has no such table; names those it has.
        """
        plan = self.plan
        tables = tables_of(plan.grid)
        names = [table.name for table in tables]
        places = range(1, len(names) + 1)
        if which not in (*places, *names):
            known = ", ".join(f"{place} ({names[place - 1]})" for place in places)
            raise ValueError(f"{plan.grid.name} has no table {which!r}; known: {known}.")
        table = tables[which - 1 if isinstance(which, int) else names.index(which)]
        rows = counted_rows(plan.root, table.cells, plan.today)
        design = design_for(plan.root, plan.grid, plan.today, self.epoch)
        return GridTable(fill(table, rows, epoch=self.epoch, today=plan.today, design=design))

    def _view(self, name: str) -> "DataFrame":
        grid = self.plan.grid
        return view_tables(self.plan.root, grid.cells, self.plan.today)[name].to_pandas()


@dataclass(frozen=True)
class GridTable:
    """A filled table, which a notebook shows as HTML and `print` as Markdown."""

    filled: FilledTable

    def frame(self) -> "DataFrame":
        """Its entries, one a line, as the table's CSV file has them."""
        from pandas import read_csv

        return read_csv(StringIO(table_csv(self.filled)))

    def latex(self) -> str:
        r"""The table as a LaTeX float, for ``\input``."""
        return latex(self.filled)

    def __str__(self) -> str:
        return markdown(self.filled)

    def _repr_html_(self) -> str:
        return html(self.filled)
