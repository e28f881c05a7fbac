"""The drill with workers that join, die and come back, in place of a launch."""

import time
from contextlib import suppress

from benchmarks.kill_drill.drill import MOMENTS, Drill, Output
from benchmarks.kill_drill.moments import Moments
from orchestrator.storage.open import open_root
from tests.support.lab import Lab

WORKERS = 5
_ALL = 6  # of so many kills one meets all of them at once
_GATEWAY = 8  # of so many one meets the door of the S3 server


class WorkerDrill(Drill):
    """As `Drill`, with five processes of `work` on one grid; who dies is replaced at once."""

    def _launch(self, lab: Lab, last_steps: dict[str, int]) -> int | None:
        """Workers under kills, then left alone to the end of the grid."""
        draws = self.scene.draws
        moments = Moments(lab, open_root(lab.address, str(lab.folder / lab.host)), last_steps)
        self._crew = [self._join(lab) for _ in range(WORKERS)]
        try:
            while self.tally.kills < self.plan.kills:
                moment = MOMENTS[draws.integer(0, 2)]
                if not self._wait(moment, moments):
                    break
                if self.scene.gateway and draws.integer(1, _GATEWAY) == 1:
                    self._count("gateway", moment)
                    self.scene.happen("gateway")
                    continue
                is_all = draws.integer(1, _ALL) == 1
                met = range(WORKERS) if is_all else [draws.integer(0, WORKERS - 1)]
                self._count("every worker" if is_all else "one worker", moment)
                for number in met:
                    _kill(self._crew[number])
                for number in met:
                    self._crew[number] = self._join(lab)
            return max(self._end(worker) for worker in self._crew)
        finally:
            for worker in self._crew:
                _kill(worker)

    def _count(self, kind: str, moment: str) -> None:
        print(f"{time.strftime('%T')} {moment}: {kind}", flush=True)
        self.tally.met[kind, moment] += 1

    def _join(self, lab: Lab) -> Output:
        """Another worker."""
        self.tally.launches += 1
        return Output(lab.start("work", "while_idle=3s"))

    def _leave(self) -> None:
        """Each round has ended its own workers."""

    def _has_ended(self) -> bool:
        return all(worker.command.poll() is not None for worker in self._crew)


def _kill(worker: Output) -> None:
    """SIGKILL, unless it has ended by itself."""
    with suppress(ProcessLookupError):
        worker.command.kill()
