"""The verbs on a grid by their words, in the order of the help."""

from collections.abc import Sequence
from typing import Protocol

from orchestrator.commands import cells, results, upkeep


class Verb(Protocol):
    """A verb: grid and key=value words in, exit code out."""

    def __call__(self, grid: str, words: Sequence[str], *, json: bool) -> int:
        """Run the verb; returns the exit code."""


VERBS: dict[str, Verb] = {
    "plan": cells.plan_verb,
    "launch": cells.launch_verb,
    "resume": cells.resume_verb,
    "work": cells.work_verb,
    "status": cells.status_verb,
    "watch": cells.watch_verb,
    "tables": results.tables_verb,
    "diff": results.diff_verb,
    "reproduce": results.reproduce_verb,
    "report": results.report_verb,
    "figures": results.figures_verb,
    "query": results.query_verb,
    "export": results.export_verb,
    "compact": upkeep.compact_verb,
    "cancel": upkeep.cancel_verb,
}
