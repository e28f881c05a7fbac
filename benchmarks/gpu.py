"""The whole table of a CUDA device in one command: `python -m benchmarks.gpu [key=value ...]`.

Per network and crop: time and memory of the official step (not deterministic, cudnn.benchmark) and
of ours in fp32, TF32 and bf16, deterministic or not; then whether repeating and resuming some steps
gives the same sha256. Batches are noise, the network is drawn; no dataset is needed.
Settings: minutes (no new row starts later), steps, batch, only (one of the cases), device.
"""

import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch

from benchmarks.table import seconds, settings
from benchmarks.two_steps import Case, Step, made_up, official, ours, stepping
from trainer import determinism
from trainer.config.schema import PixelDistance, Precision, RunConfig, Upsample
from trainer.distributed import Ranks, init_process_group
from trainer.state import TrainState, new_state

CASES = {
    "resnet50-321": Case(model="resnet50", crop=321, batch=4, classes=21),
    "resnet50-513": Case(model="resnet50", crop=513, batch=4, classes=21),
    "resnet101-801": Case(model="resnet101", crop=801, batch=4, classes=19),
    "trial": Case(model="resnet8", crop=33, batch=2, classes=5),  # any machine, in seconds
}
DEFAULTS = {"minutes": "9", "steps": "10", "batch": "4", "only": "", "device": "cuda"}
WARM_UP = 3


@dataclass(frozen=True)
class Row:
    """One way to take the step."""

    name: str
    precision: Precision
    official: bool = False
    deterministic: bool = True
    upsample: Upsample = Upsample.nearest
    distance: PixelDistance = PixelDistance.kl


ROWS = [
    Row("official, bilinear, TF32", Precision.tf32, True, False, Upsample.bilinear),
    Row("official, bilinear, fp32", Precision.fp32, True, False, Upsample.bilinear),
    *(
        Row(f"ours, {precision.value}{'' if det else ', not deterministic'}", precision, False, det)
        for precision in (Precision.fp32, Precision.tf32, Precision.bf16)
        for det in (True, False)
    ),
    Row("ours, tf32, bilinear", Precision.tf32, upsample=Upsample.bilinear),
    Row("ours, tf32, no inter-pixel term", Precision.tf32, distance=PixelDistance.none),
]


def main(words: list[str]) -> int:
    """Print the tables; the exit code."""
    given = settings(words, DEFAULTS)
    if given["device"] == "cuda" and not torch.cuda.is_available():
        print(
            "benchmarks.gpu needs a CUDA device and torch sees none here; check `nvidia-smi` and "
            "that torch was built for CUDA. `only=trial device=cpu` tries the code on a CPU.",
            file=sys.stderr,
        )
        return 2
    chosen = [given["only"]] if given["only"] else [name for name in CASES if name != "trial"]
    unknown = [name for name in chosen if name not in CASES]
    if unknown:
        print(f"Unknown case {unknown[0]!r}; known: {', '.join(CASES)}.", file=sys.stderr)
        return 2
    for line in report(
        {name: replace(CASES[name], batch=int(given["batch"])) for name in chosen},
        RunConfig(device=given["device"]),
        steps=int(given["steps"]),
        until=time.monotonic() + 60.0 * float(given["minutes"]),
    ):
        print(line, flush=True)
    return 0


def report(cases: dict[str, Case], run: RunConfig, *, steps: int, until: float) -> Iterator[str]:
    """Lines of Markdown, each as soon as it is known.

    Args:
        cases: by name.
        run: says the device.
        steps: timed per row, after three that warm up.
        until: on the monotonic clock; what has not begun by then is left out with a word.
    """
    engaged = replace(next(iter(cases.values())).config, run=run)
    determinism.enable_determinism(engaged)  # before the first CUDA call
    ranks = init_process_group(run)
    yield f"{_machine(ranks)}\n"
    for name, case in cases.items():
        yield f"### {name}, batch {case.batch}+{case.batch}, {steps} steps\n"
        yield "| | ms a step | spread | ratio to the first | peak GiB |\n|---|---|---|---|---|"
        first: float | None = None
        for row in ROWS:
            if time.monotonic() > until:
                yield f"| {row.name} | left out: no time | | | |"
                continue
            taken, memory = measured(case, row, ranks, run, steps=steps)
            middle = statistics.median(taken)
            first = first or middle
            yield (
                f"| {row.name} | {1e3 * middle:.1f} | {1e3 * min(taken):.1f} to "
                f"{1e3 * max(taken):.1f} | {first / middle:.2f} | {memory / 2**30:.2f} |"
            )
        for precision in Precision:
            if time.monotonic() > until:
                yield f"\n{precision.value}: repeat and resume left out: no time"
                continue
            yield f"\n{precision.value}: {verdict(replace(case, precision=precision), ranks, run)}"
        yield ""


def measured(
    case: Case, row: Row, ranks: Ranks, run: RunConfig, *, steps: int
) -> tuple[list[float], int]:
    """Seconds of each timed step, and the most memory the device held."""
    case = replace(case, precision=row.precision, upsample=row.upsample, distance=row.distance)
    _switch(case, run, deterministic=row.deterministic)
    make: Callable[..., Step] = official if row.official else ours
    step = make(case.config, ranks, case.classes)
    num_bits = new_state(case.config, case.classes, ranks).networks["student"].num_channel_bits
    data = [made_up(case, ranks, num_bits=num_bits, seed=seed) for seed in range(2)]
    if ranks.device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    taken = []
    for number in range(WARM_UP + steps):
        labelled, unlabelled = data[number % 2]
        taken.append(seconds(lambda x=labelled, u=unlabelled: step(x, u), ranks.device.type))
    memory = torch.cuda.max_memory_allocated() if ranks.device.type == "cuda" else 0
    return taken[WARM_UP:], memory


def verdict(case: Case, ranks: Ranks, run: RunConfig) -> str:
    """Whether six steps repeat themselves, straight and with a stop after three."""
    straight = digests(case, ranks, run, stop=6)
    again = digests(case, ranks, run, stop=6)
    resumed = digests(case, ranks, run, stop=6, resume_at=3)
    changed = len(set(straight)) == len(straight)
    if not changed:
        return "the weights stand still, so nothing is shown"
    words = [
        f"{what}: {'the same bits' if straight == other else 'OTHER BITS'}"
        for what, other in (("repeated", again), ("resumed", resumed))
    ]
    return f"{', '.join(words)} after each of 6 steps; sha256 {straight[-1][:16]}"


def digests(
    case: Case, ranks: Ranks, run: RunConfig, *, stop: int, resume_at: int | None = None
) -> list[str]:
    """Sha256 of weights and momentum after each step."""
    config = replace(case.config, run=run)
    _switch(case, run, deterministic=True)
    state = new_state(config, case.classes, ranks)
    _calm(state)
    bits, found = state.networks["student"].num_channel_bits, []
    step = stepping(config, ranks, state, lr=0.001)
    for number in range(stop):
        if number == resume_at:  # another network, filled from what was packed
            packed = state.pack()
            state = new_state(config, case.classes, ranks)
            state.unpack(packed)
            step = stepping(config, ranks, state, lr=0.001)
        step(*made_up(case, ranks, num_bits=bits, seed=number))
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


def _machine(ranks: Ranks) -> str:
    """What it ran on."""
    if ranks.device.type != "cuda":
        return f"torch {torch.__version__} on a CPU: a trial of the code, not a measurement"
    card = torch.cuda.get_device_properties(ranks.device)
    return (
        f"{card.name}, {card.multi_processor_count} SMs, {card.total_memory / 2**30:.0f} GiB; "
        f"torch {torch.__version__}, CUDA {torch.version.cuda}, cuDNN "
        f"{torch.backends.cudnn.version()}"
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
