"""What a command asks for, and what its exit code says. Imports neither a backend nor data."""

from dataclasses import dataclass

from orchestrator.options import LaunchOptions
from orchestrator.plan import LAUNCHED, Plan, PlannedCell, State, make_plan
from orchestrator.store import enter

EXIT_DONE, EXIT_UNFINISHED, EXIT_FAILED = 0, 10, 11


@dataclass(frozen=True)
class Order:
    """What a command asks for.

    Attributes:
        grid: name or path.
        overrides: settings of the training, for every cell.
        states: of the cells to run; `options.rerun` adds to them.
    """

    grid: str
    options: LaunchOptions
    overrides: tuple[str, ...] = ()
    states: tuple[State, ...] = LAUNCHED

    def plan(self) -> Plan:
        """The states now."""
        enter(self.options.root, self.options.scratch)
        only = self.options.only
        return make_plan(self.grid, self.options.root, only=only, overrides=self.overrides)

    def chosen(self, plan: Plan) -> list[PlannedCell]:
        """The cells to run."""
        added = {
            "none": (),
            "drifted": (State.drifted,),
            "all": (State.drifted, State.done),
        }[self.options.rerun]
        return [cell for cell in plan.cells if cell.state in (*self.states, *added)]


def exit_code(plan: Plan) -> int:
    """0 everything is done; 11 some cells failed and none is under way; 10 otherwise."""
    if plan.count(State.done) == len(plan.cells):
        return EXIT_DONE
    is_under_way = plan.keys(State.running, State.interrupted, State.queued)
    return EXIT_FAILED if plan.count(State.failed) and not is_under_way else EXIT_UNFINISHED
