"""A step behind the loader, an evaluation, and a checkpoint, on files of the size of real ones."""

import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

import torch

from benchmarks.checkpoint import stalls
from benchmarks.gpu.entries import Line, peak_memory
from benchmarks.input.files import Kind, written
from benchmarks.two_steps import Case, stepping
from datasets.dataset import Dataset
from datasets.identity import DataIdentity
from datasets.spec import DatasetSpec, voc_colour
from datasets.splits.lists import Split
from trainer import determinism
from trainer.config.schema import EvaluationConfig, EvaluationMode, RunConfig
from trainer.distributed import Ranks
from trainer.evaluate import evaluate
from trainer.feed import batch_plan, feed
from trainer.state import new_state

WARM_UP = 8  # steps: more than the workers prepare in advance, so that none of those is timed
REPEATED = 4  # times that an evaluation reads each image


@cache
def files_of(kind: Kind, folder: Path) -> Dataset:
    """A data set of made-up files below a new folder, written at the first call.

    Every image is labelled, unlabelled and for validation.
    """
    tree, names = written(kind, folder)
    classes = tuple(f"class {number}" for number in range(kind.num_classes))
    colours = tuple(voc_colour(number) for number in range(kind.num_classes))
    spec = DatasetSpec(kind.name, classes, colours, tree.image_pattern, tree.mask_pattern)
    ids = tuple(names)
    split = Split("all", ids, ids, ids, "")
    identity = DataIdentity(kind.name, {}, split, ())
    return Dataset(spec, tree, split, kind.num_classes, identity)


def end_to_end(
    case: Case, files: Callable[[], Dataset], ranks: Ranks, run: RunConfig, *, steps: int
) -> Line:
    """A step of training and all that the loader and the augmentation add to it."""
    config = replace(case.config, run=run)
    determinism.enable_determinism(config)
    state = new_state(config, case.classes, ranks)
    step = stepping(config, ranks, state, lr=0.0)
    bits, start = state.networks["student"].num_channel_bits, 0.0
    chosen = range(WARM_UP + steps)
    for number, (labelled, unlabelled) in enumerate(
        feed(config, files(), ranks, batch_plan(config, ranks, steps=chosen, num_channel_bits=bits))
    ):
        if number == WARM_UP:
            start = _now(ranks)
        step(labelled, unlabelled)
    taken = (_now(ranks) - start) / steps
    start = _now(ranks)
    for _ in range(steps):
        step(labelled, unlabelled)
    alone = (_now(ranks) - start) / steps
    workers = config.loader_workers(ranks.device.type)
    return Line(
        f"{workers} workers; the step alone takes {1e3 * alone:.1f} ms",
        (taken,),
        2 * case.batch,
        peak_memory(ranks.device),
    )


def evaluation(case: Case, files: Callable[[], Dataset], ranks: Ranks, run: RunConfig) -> Line:
    """An image of validation in sliding windows, from its file to the confusion matrix."""
    sliding = EvaluationConfig(mode=EvaluationMode.slide)
    config = replace(case.config, run=run, evaluation=sliding)
    determinism.enable_determinism(config)
    network = new_state(config, case.classes, ranks).networks["student"]
    dataset = files()
    names = REPEATED * dataset.split.validation
    first, all_ = (
        replace(dataset, split=replace(dataset.split, validation=chosen))
        for chosen in (names[:1], names)
    )
    evaluate(network, first, config, ranks)  # the first image also loads kernels
    start = _now(ranks)
    evaluate(network, all_, config, ranks)
    taken = (_now(ranks) - start) / len(names)
    workers = config.loader_workers(ranks.device.type)
    return Line(f"{workers} workers", (taken,), 1, peak_memory(ranks.device))


def checkpoint(case: Case, ranks: Ranks, run: RunConfig, *, rounds: int) -> Line:
    """How long a checkpoint holds training up."""
    config = replace(case.config, run=run)
    determinism.enable_determinism(config)
    state = new_state(config, case.classes, ranks)
    size = sum(tensor.nbytes for tensor in state.tensors().values())
    (plain, ours), _ = stalls(config, ranks, state, rounds=rounds)
    other = statistics.median(plain.values)
    return Line(
        f"{size / 2**20:.0f} MiB; torch.save, fsync and rename hold up {1e3 * other:.0f} ms",
        tuple(ours.values),
    )


def _now(ranks: Ranks) -> float:
    """Seconds on the clock, once the device has done all before."""
    if ranks.device.type == "cuda":
        torch.cuda.synchronize(ranks.device)
    return time.perf_counter()
