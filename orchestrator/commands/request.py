"""The words of a command as a request: its options, its root, and the states of its cells."""

import sys
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace

from orchestrator.backends.slurm.queued import with_queued_jobs
from orchestrator.commands.output import as_typed
from orchestrator.display.waiting import SHORT_SECONDS, waiting
from orchestrator.options import LaunchOptions, parse
from orchestrator.planning.plan import LaunchRequest, Plan
from orchestrator.storage.open import open_root
from orchestrator.storage.root import Root


def request_of(grid: str, words: Sequence[str]) -> LaunchRequest:
    """The request that the words make, under a root that answers.

    With seeds=auto its cells are those that are wanted up to the next look at the results.
    """
    options, overrides = parse(words)
    request = LaunchRequest(grid, answering_root(options), options, overrides)
    if options.seeds == "auto":
        from orchestrator.commands.seeds import next_block

        return replace(request, cells=next_block(request).cells)
    return request


def answering_root(options: LaunchOptions) -> Root:
    """The root that the options name, once it has answered."""
    root = open_root(options.root, options.scratch)
    what = f"Waiting for an answer of {root.address}"
    with waiting(as_typed(sys.stderr), what, quiet_seconds=SHORT_SECONDS):
        root.check()
    return root


def plan_now(
    request: LaunchRequest, *, needs_data: bool = False, pause_seconds: float = 0.0
) -> Plan:
    """The states now, with those of queued jobs; prints a problem with Slurm to standard error."""
    plan, console = request.plan(needs_data=needs_data), as_typed(sys.stderr)
    what = "Asking Slurm about the jobs"
    line = waiting(console, what, quiet_seconds=SHORT_SECONDS)
    with nullcontext() if pause_seconds else line:  # `watch` asks behind a picture of its own
        plan, problem = with_queued_jobs(plan, pause_seconds=pause_seconds)
    if problem:
        console.print(problem, soft_wrap=True, highlight=False)
    return plan


def split_words(words: Sequence[str], *keys: str) -> tuple[dict[str, str], list[str]]:
    """The values of some keys, and the other words."""
    pairs = [word.partition("=") for word in words]
    chosen = {key: value for key, _, value in pairs if key in keys}
    return chosen, ["".join(pair) for pair in pairs if pair[0] not in keys]


def split_flags(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """The flags among the words, and the other words."""
    flags = [word for word in words if word.startswith("-")]
    return flags, [word for word in words if word not in flags]
