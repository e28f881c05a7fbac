"""Time and memory of the training step, the official one and ours, and whether its bits repeat.

Batches are noise, the network is drawn; no data set is needed.
"""

import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial

import torch

from benchmarks.gpu.entries import (
    Capability,
    Entry,
    Line,
    lacks_precision,
    peak_memory,
)
from benchmarks.table import seconds
from benchmarks.two_steps import Case, Step, made_up, official, ours, stepping
from trainer import determinism
from trainer.config.schema import Graph, PixelDistance, Precision, RunConfig, Upsample
from trainer.distributed import Ranks
from trainer.state import TrainState, new_state

WARM_UP = 5  # steps; a graph is captured in the fourth


@dataclass(frozen=True)
class Row:
    """One way to take the step."""

    name: str
    precision: Precision
    official: bool = False
    deterministic: bool = True
    upsample: Upsample = Upsample.nearest
    distance: PixelDistance = PixelDistance.kl
    graph: Graph = Graph.none


ROWS = [
    Row("official, bilinear, TF32", Precision.tf32, True, False, Upsample.bilinear),
    Row("official, bilinear, fp32", Precision.fp32, True, False, Upsample.bilinear),
    *(
        Row(f"ours, {precision.value}{'' if det else ', not deterministic'}", precision, False, det)
        for precision in (Precision.fp32, Precision.tf32, Precision.bf16)
        for det in (True, False)
    ),
    *(
        Row(f"ours, {precision.value}, run.graph=step", precision, graph=Graph.step)
        for precision in (Precision.fp32, Precision.bf16)
    ),
    Row("ours, tf32, bilinear", Precision.tf32, upsample=Upsample.bilinear),
    Row("ours, tf32, no inter-pixel term", Precision.tf32, distance=PixelDistance.none),
]


def step_entries(
    case: Case, ranks: Ranks, run: RunConfig, *, steps: int, capability: Capability | None
) -> Iterator[Entry]:
    """One entry for each way to take the step; ours say how much faster than the first they are."""
    medians: dict[str, float] = {}
    for row in ROWS:

        def measure(row: Row = row) -> Line:
            line = measured(case, row, ranks, run, steps=steps)
            medians[row.name] = statistics.median(line.seconds)
            first = medians.get(ROWS[0].name)
            if first is None or row is ROWS[0]:
                return line
            times = first / max(medians[row.name], 1e-9)
            return replace(line, remark=f"{times:.2f} times as fast as {ROWS[0].name}")

        yield Entry(f"step, {row.name}", measure, lacks_precision(row.precision, capability))


def bit_entries(
    case: Case, ranks: Ranks, run: RunConfig, capability: Capability | None
) -> Iterator[Entry]:
    """One entry for each precision: whether six steps keep their bits."""
    for precision in Precision:
        yield Entry(
            f"bits, {precision.value}",
            partial(verdict, replace(case, precision=precision), ranks, run),
            lacks_precision(precision, capability),
        )


def measured(case: Case, row: Row, ranks: Ranks, run: RunConfig, *, steps: int) -> Line:
    """Seconds of each timed step, and the most memory the device held."""
    case = replace(case, precision=row.precision, upsample=row.upsample, distance=row.distance)
    _switch(case, run, deterministic=row.deterministic)
    make: Callable[..., Step] = official if row.official else ours
    config = replace(case.config, run=replace(run, graph=row.graph))
    step = make(config, ranks, case.classes)
    data = [made_up(case, ranks, seed=seed) for seed in range(2)]
    taken = []
    for number in range(WARM_UP + steps):
        labelled, unlabelled = data[number % 2]
        taken.append(seconds(lambda x=labelled, u=unlabelled: step(x, u), ranks.device.type))
    return Line("", tuple(taken[WARM_UP:]), 2 * case.batch, peak_memory(ranks.device))


def verdict(case: Case, ranks: Ranks, run: RunConfig) -> Line:
    """Whether six steps repeat themselves: straight, with a stop after three, with graphs."""
    straight = digests(case, ranks, run, stop=6)
    again = digests(case, ranks, run, stop=6)
    resumed = digests(case, ranks, run, stop=6, resume_at=3)
    captured = digests(case, ranks, replace(run, graph=Graph.step), stop=6)
    changed = len(set(straight)) == len(straight)
    if not changed:
        return Line("the weights stand still, so nothing is shown")
    words = [
        f"{what}: {'the same bits' if straight == other else 'OTHER BITS'}"
        for what, other in (
            ("repeated", again),
            ("resumed", resumed),
            ("run.graph=step", captured),
        )
    ]
    return Line(f"{', '.join(words)} after each of 6 steps; sha256 {straight[-1][:16]}")


def digests(
    case: Case, ranks: Ranks, run: RunConfig, *, stop: int, resume_at: int | None = None
) -> list[str]:
    """Sha256 of weights and momentum after each step."""
    config = replace(case.config, run=run)
    _switch(case, run, deterministic=True)
    state = new_state(config, case.classes, ranks)
    _calm(state)
    found = []
    step = stepping(config, ranks, state, lr=0.001)
    for number in range(stop):
        if number == resume_at:  # another network, filled from what was packed
            packed = state.pack()
            state = new_state(config, case.classes, ranks)
            state.unpack(packed)
            step = stepping(config, ranks, state, lr=0.001)
        step(*made_up(case, ranks, seed=number))
        found.append(state.digest())
    return found


@torch.no_grad()
def _calm(state: TrainState) -> None:
    """Small residual branches, as after training: drawn ones alone let activations overflow."""
    for name, parameter in state.networks["student"].named_parameters():
        if name.endswith("bn3.weight"):
            parameter.mul_(0.1)


def _switch(case: Case, run: RunConfig, *, deterministic: bool) -> None:
    """Every switch of a run; then, where asked, those that cost speed off again."""
    determinism.enable_determinism(replace(case.config, run=run))
    if not deterministic:
        torch.use_deterministic_algorithms(False)
        torch.backends.cudnn.deterministic = False
        torch.backends.cudnn.benchmark = True
