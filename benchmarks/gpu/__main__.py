"""Everything that only a card can show, in one table: `python -m benchmarks.gpu [key=value ...]`.

In this order: which libraries compute dilated convolutions and batch normalisation; per network and
crop the time and memory of the official step (not deterministic, cudnn.benchmark) and of ours; the
step behind the loader; evaluation; the stall of a checkpoint; several ranks; and whether repeating
and resuming some steps gives the same sha256. What this machine lacks is left out with the reason.
It needs no data set and no weights.
Settings: minutes (no new row starts later), steps, batch, only (one of the cases), device.
"""

import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from benchmarks.gpu.entries import (
    FAILED,
    Capability,
    Entry,
    lacks_cards,
    lacks_precision,
    rows,
)
from benchmarks.gpu.kernels import batch_norm, dilated_convolutions
from benchmarks.gpu.pipeline import checkpoint, end_to_end, evaluation, files_of
from benchmarks.gpu.ranks import step_on_ranks
from benchmarks.gpu.steps import bit_entries, step_entries
from benchmarks.input.files import CITYSCAPES, VOC, Kind
from benchmarks.table import settings
from benchmarks.two_steps import Case
from trainer import determinism
from trainer.config.schema import Cache, Precision, RunConfig
from trainer.distributed import Ranks, init_process_group

CASES = {
    "resnet50-321": Case(model="resnet50", crop=321, batch=4, classes=21),
    "resnet50-513": Case(model="resnet50", crop=513, batch=4, classes=21),
    "resnet101-801": Case(model="resnet101", crop=801, batch=4, classes=19),
    "trial": Case(model="resnet8", crop=33, batch=2, classes=5),  # any machine, in seconds
}
TRIAL = Kind("trial", (60, 44), "png", 9.0, 5, 33, 3)
FILES = {"resnet50-321": VOC, "resnet101-801": CITYSCAPES, "trial": TRIAL}
DEFAULTS = {"minutes": "9", "steps": "10", "batch": "4", "only": "", "device": "cuda"}
RANK_SECONDS = 50.0  # that the ranks of one entry may take
PRECISIONS = (Precision.fp32, Precision.bf16)


@dataclass(frozen=True)
class Machine:
    """What it runs on.

    Attributes:
        cards: that ranks may take; on a CPU two, to try the code.
        capability: of a card; None on a CPU.
        folder: for files.
    """

    ranks: Ranks
    run: RunConfig
    cards: int
    capability: Capability | None
    folder: Path


def main(words: list[str]) -> int:
    """Print the table; the exit code, 1 when an entry failed that this machine can compute."""
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
    until = time.monotonic() + 60.0 * float(given["minutes"])
    has_failed = False
    cases = {name: replace(CASES[name], batch=int(given["batch"])) for name in chosen}
    with TemporaryDirectory() as folder:
        machine = machine_of(RunConfig(device=given["device"]), cases, Path(folder))
        print(f"{described(machine)}\n", flush=True)
        for line in rows(entries(cases, machine, steps=int(given["steps"])), until=until):
            print(line, flush=True)
            has_failed |= f"| {FAILED}" in line
    return int(has_failed)


def machine_of(run: RunConfig, cases: dict[str, Case], folder: Path) -> Machine:
    """This machine, ready to compute."""
    # Before the first CUDA call.
    determinism.enable_determinism(replace(next(iter(cases.values())).config, run=run))
    ranks = init_process_group(run)
    if ranks.device.type != "cuda":
        return Machine(ranks, run, 2, None, folder)
    capability = torch.cuda.get_device_capability(ranks.device)
    return Machine(ranks, run, torch.cuda.device_count(), capability, folder)


def described(machine: Machine) -> str:
    """The machine in words."""
    device = machine.ranks.device
    if device.type != "cuda":
        return f"torch {torch.__version__} on a CPU: a trial of the code, not a measurement"
    card = torch.cuda.get_device_properties(device)
    return (
        f"{machine.cards} x {card.name}, {card.multi_processor_count} SMs, "
        f"{card.total_memory / 2**30:.0f} GiB; torch {torch.__version__}, CUDA "
        f"{torch.version.cuda}, cuDNN {torch.backends.cudnn.version()}"
    )


def entries(cases: dict[str, Case], machine: Machine, *, steps: int) -> Iterator[Entry]:
    """All rows of the table; those that tell most per second come first."""
    ranks, run, capability = machine.ranks, machine.run, machine.capability
    on_files = {name: case for name, case in cases.items() if name in FILES}
    for name, case in cases.items():
        yield from _named(name, _kernel_entries(case, machine, rounds=steps))
    for name, case in cases.items():
        yield from _named(name, step_entries(case, ranks, run, steps=steps, capability=capability))
    for name, case in on_files.items():
        yield from _named(name, _pipeline_entries(case, FILES[name], machine, steps=3 * steps))
    for name, case in cases.items():
        yield from _named(name, _rank_entries(case, machine, steps=steps))
    for name, case in cases.items():
        yield from _named(name, bit_entries(case, ranks, run, capability))


def _named(name: str, entries: Iterator[Entry]) -> Iterator[Entry]:
    for entry in entries:
        yield replace(entry, name=f"{name}: {entry.name}")


def _kernel_entries(case: Case, machine: Machine, *, rounds: int) -> Iterator[Entry]:
    """Which library computes what, in each precision."""
    given = (machine.ranks, machine.run)
    for precision in Precision:
        chosen = replace(case, precision=precision)
        lacks = lacks_precision(precision, machine.capability)
        dilated = partial(dilated_convolutions, chosen, *given, rounds=rounds)
        yield Entry(f"dilated convolutions, {precision.value}", dilated, lacks)
        if precision in PRECISIONS:
            yield Entry(
                f"batch norm, {precision.value}", partial(batch_norm, chosen, *given), lacks
            )


def _pipeline_entries(case: Case, kind: Kind, machine: Machine, *, steps: int) -> Iterator[Entry]:
    """The step behind the loader, without and with the decoded cache; evaluation; checkpoint."""
    ranks, run, folder = machine.ranks, machine.run, machine.folder
    decoded = replace(run, cache=Cache.decoded, cache_folder=str(folder / "decoded"))
    files = partial(files_of, kind, folder / kind.name)
    for precision in PRECISIONS:
        chosen = replace(case, precision=precision)
        lacks = lacks_precision(precision, machine.capability)
        for source, way in (("files", run), ("decoded cache", decoded)):
            measure = partial(end_to_end, chosen, files, ranks, way, steps=steps)
            yield Entry(f"end to end from {source}, {precision.value}", measure, lacks)
    width, height = kind.size
    yield Entry(
        f"evaluation of {width}x{height} in windows of {case.crop}, fp32",
        partial(evaluation, case, files, ranks, run),
    )
    yield Entry("checkpoint", partial(checkpoint, case, ranks, run, rounds=3))


def _rank_entries(case: Case, machine: Machine, *, steps: int) -> Iterator[Entry]:
    """The step shared by two and by four ranks."""
    for world_size in (2, 4):
        for precision in PRECISIONS:
            chosen = replace(case, precision=precision)
            lacks = lacks_cards(world_size, machine.cards, batch=case.batch)
            lacks = lacks or lacks_precision(precision, machine.capability)
            given = (chosen, machine.run, world_size)
            measure = partial(step_on_ranks, *given, steps=steps, limit=RANK_SECONDS)
            yield Entry(f"step, {world_size} ranks, {precision.value}", measure, lacks)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
