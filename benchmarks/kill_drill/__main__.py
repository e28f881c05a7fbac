"""A drawn grid under hundreds of kills, to the end, and the proof that its results are the same.

    python -m benchmarks.kill_drill backend=inline|ray|slurm|work [root=DIR|s3://BUCKET/PREFIX]
        [kills=20] [seed=2026] [cells=3] [ranks=1]

SIGKILL meets launches, processes that train, Ray's daemons, Slurm's daemons and nodes, the S3
server's gateway, and everything at once, at moments drawn from the seed: while a launch starts,
trains or publishes. Requests to S3 fail, the disk is full, the root is read-only. Whatever ends a
launch, the next one goes on; with backend=work, five workers join, die and come back instead. Each
grid that is done is compared with the same grid run undisturbed in one process. Slurm and S3 are
those of the tests (Debian's packages); the disk needs root.
"""

import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from benchmarks.kill_drill.disk import small_disk
from benchmarks.kill_drill.drill import MOMENTS, Drill, Plan, Tally
from benchmarks.kill_drill.kinds import Scene
from benchmarks.kill_drill.workers import WorkerDrill
from datasets.randomness import KeyedRandom, Stream
from datasets.storage.open import is_url
from datasets.storage.s3 import Calls
from orchestrator.storage.file_lock import FRESH_VARIABLE
from tests.support.s3.ceph import shared_box, surroundings
from tests.support.s3.faults import Proxy
from tests.support.slurm.session import running_box

_SLURM = (
    "slurm.controller=plain",
    "gpus_per_rank=0",
    "slurm.memory_gb=1.2",
    "slurm.minutes=3",
    "slurm.signal_seconds=20",
    "slurm.poll_seconds=3",
)


def main(words: Sequence[str]) -> int:
    """Drill, print the table; returns 1 where something was found."""
    given = dict(word.split("=", 1) for word in words)
    root = given.pop("root", "")
    with tempfile.TemporaryDirectory(prefix="drill-", ignore_cleanup_errors=True) as temporary:
        plan = Plan(
            backend=given.pop("backend", "inline"),
            folder=Path(temporary if is_url(root) or not root else root).absolute(),
            url=root.rstrip("/") if is_url(root) else "",
            **{name: int(value) for name, value in given.items()},  # type: ignore[arg-type]
        )
        tally = drill(plan)
    print(table(tally), flush=True)
    return 1 if tally.findings else 0


def drill(plan: Plan) -> Tally:
    """Start what the plan needs, drill, and leave nothing behind."""
    if plan.backend == "slurm":
        plan = Plan(**{**vars(plan), "words": _SLURM})
    with scene(plan) as around:
        return (WorkerDrill if plan.backend == "work" else Drill)(plan, around).run()


@contextmanager
def scene(plan: Plan) -> Iterator[Scene]:
    """Whatever can meet with an accident, running."""
    around = Scene(KeyedRandom(plan.seed, Stream.DRAWING))
    with ExitStack() as stack:
        os.environ[FRESH_VARIABLE] = "6"
        stack.callback(os.environ.pop, FRESH_VARIABLE, None)
        if plan.url:
            proxy = stack.enter_context(Proxy(shared_box().port))
            stack.enter_context(surroundings(proxy.port))
            Calls(plan.url.split("/")[2], 60.0, 20.0).ask("create_bucket")
            around.gateway = (shared_box(), proxy)
        else:
            # Before Slurm: its nodes see what was mounted when they started.
            around.disk = stack.enter_context(small_disk(plan.folder / "disk"))
        if plan.backend == "slurm":
            around.box = stack.enter_context(running_box())
        yield around


def table(tally: Tally) -> str:
    """The accidents by kind and moment, as Markdown, and what was found."""
    kinds = list(dict.fromkeys(kind for kind, _ in tally.met))
    lines = ["| met | " + " | ".join(MOMENTS) + " | sum |", "|---|" + "---|" * 4]
    for kind in sorted(kinds):
        counts = [tally.met[kind, moment] for moment in MOMENTS]
        lines.append(f"| {kind} | " + " | ".join(map(str, [*counts, sum(counts)])) + " |")
    ends = ", ".join(f"{number} with {code}" for code, number in sorted(tally.ends.items()))
    lines.append(
        f"\n{tally.kills} kills, {sum(tally.met.values()) - tally.kills} other accidents; "
        f"{tally.rounds} grids done by {tally.launches} launches and {tally.attempts} attempts; "
        f"launches that nobody killed ended: {ends or 'none'}."
    )
    if tally.missed:
        missed = ", ".join(f"{number} times {kind}" for kind, number in tally.missed.items())
        lines.append(f"Drawn, but there was nothing to harm: {missed}.")
    lines.append("\n".join(["Found:", *tally.findings]) if tally.findings else "Nothing differs.")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
