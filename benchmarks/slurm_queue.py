"""Thousands of queued cells: time to submit, requests to Slurm, memory, seconds from end to row.

    python -m benchmarks.slurm_queue [NUM_CELLS] [NUM_ENDING]

Runs on the Slurm of the tests: NUM_CELLS jobs wait while others fill its node, then they run one
after the other; the watching goes on for 2 minutes and until NUM_ENDING have ended.
"""

import resource
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from orchestrator.backends.slurm.cell_job import JobReport
from orchestrator.backends.slurm.dispatcher import Dispatcher
from orchestrator.backends.slurm.registry import JobRegistry, job_spec_of
from orchestrator.options import SlurmOptions
from orchestrator.trial import Outcome, Trial
from slurm.job_runtime import JobContext
from slurm.monitor import JobMonitor
from tests.support.slurm.session import running_box

WATCH_SECONDS = 120.0


@dataclass(frozen=True)
class NoWork:
    """A cell's job without the cell: it ends at once and says when."""

    trial_json: str
    reports: str
    batch: str

    def __call__(self) -> None:
        """Say that the cell is done."""
        key, here = Trial.from_json(self.trial_json).key, JobContext.from_environment()
        outcome = Outcome("done", seconds=time.time())
        report = JobReport(key, self.batch, here.job_id, here.restart, "", "ended", outcome)
        report.write(Path(self.reports))


def dispatcher_of(root: Path, num_cells: int) -> Dispatcher:
    """A dispatcher of cells without work, with the pauses of a real launch."""
    options = SlurmOptions(memory_gb=0.1)
    return Dispatcher(
        registry=JobRegistry(root / "grids" / "g" / "slurm", "g", NoWork),
        monitor=JobMonitor(),
        job_spec_of=lambda trial, oom_count: job_spec_of(trial, options),
        prepare_trial=lambda trial: trial,
        max_jobs=num_cells,
        max_array_size=1000,
        on_message=print,
    )


def megabytes() -> float:
    """Most memory this process held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main(words: list[str]) -> None:
    """Measure and print."""
    num_cells, num_ending = (int(words[0]) if words else 2000, int(words[1]) if words[1:] else 20)
    delays: list[float] = []  # seconds from a job's end to the controller's knowledge of it
    with tempfile.TemporaryDirectory() as folder, running_box(nodes=1, cpus=2) as box:
        box.run("sbatch", "-p", "high", "-c2", "-o", "/dev/null", "--wrap", "sleep 20")
        dispatcher = dispatcher_of(Path(folder), num_cells)
        before, started = megabytes(), time.monotonic()
        dispatcher.start(
            [
                Trial(f"synthetic.cell{i:05d}", "{}" * 1500, "f", folder, "slurm", "")
                for i in range(num_cells)
            ]
        )
        print(f"submitted {num_cells} cells in {time.monotonic() - started:.1f} s, "
              f"{dispatcher.num_submissions} sbatch")  # fmt: skip
        requests = dispatcher.monitor.num_requests
        cpu, started = time.process_time(), time.monotonic()
        while time.monotonic() - started < WATCH_SECONDS or len(delays) < num_ending:
            for report in dispatcher.poll():
                if report.outcome is not None:
                    delays.append(time.time() - (report.outcome.seconds or 0.0))
            time.sleep(0.05)
        minutes = (time.monotonic() - started) / 60
        print(f"{(dispatcher.monitor.num_requests - requests) / minutes:.1f} requests a minute, "
              f"{100 * (time.process_time() - cpu) / minutes / 60:.1f} % of a core")  # fmt: skip
        print(f"memory {before:.0f} -> {megabytes():.0f} MB")
        print(f"job end to row seen: median {statistics.median(delays):.2f} s, "
              f"worst {max(delays):.2f} s of {len(delays)}")  # fmt: skip


if __name__ == "__main__":
    main(sys.argv[1:])
