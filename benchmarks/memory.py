"""Memory of a training step, counted: `python -m benchmarks.memory [fit | SETTING ...]`.

One step of the real objective runs on fake tensors, which have shapes and no numbers, while the
bytes of all live storages are added up: weights, momentum, gradients, batch, activations, logits
and the buffers of the losses. What only CUDA has is not in it: its context (about 0.5 GiB), the
workspaces of cuDNN and what the allocator loses between blocks.

- without words: the table of docs/memory.md, by formula, with fresh counts in brackets
- `fit`: count what orchestrator/planning/memory.csv lacks, and add it line by line (all of it: an
  hour); Ctrl-C keeps what was counted
- settings as of `python -m trainer`, and `ranks=N`: count that run
"""

import sys
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
import yaml
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import trainer.methods.contrast.feature_bank
import trainer.network.batch_norm
import trainer.network.deeplab
from benchmarks.two_steps import Case
from datasets.config import DataConfig
from datasets.known.folder import DESCRIPTION_FILE
from datasets.loading.batches import (
    ChosenPartners,
    LabelledBatch,
    SecondCrop,
    UnlabelledBatch,
    ViewPlan,
    nothing,
)
from datasets.location import num_classes
from orchestrator.planning.memory import (
    GIB,
    Coefficients,
    Kind,
    add_counts,
    read_counts,
    step_bytes,
)
from trainer.config.compose import compose
from trainer.config.schema import Memory, PixelDistance, Precision, TrainConfig
from trainer.distributed import Ranks
from trainer.method_registry import METHODS
from trainer.methods.interface import MethodContext, Position, StepInput, new_method
from trainer.network.batch_norm import set_ranks
from trainer.network.deeplab import DeepLabV3Plus
from trainer.network.recompute import BlockRunner
from trainer.objective import Objective
from trainer.optimisers.adam import new_optimiser
from trainer.state import TrainState, new_state
from trainer.step.eager import Step

CARD, HOST = torch.device("cpu"), torch.device("meta")  # of the fake tensors; told apart by name


class LiveBytes(TorchDispatchMode):
    """Adds up the storages that operations make on the card, while they live.

    Attributes:
        now: bytes that live.
        peak: most that ever lived at once.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._sizes: dict[int, int] = {}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, torch.Tensor) and leaf.device == CARD:
                self._add(leaf.untyped_storage())
        return result

    def _add(self, storage: torch.UntypedStorage) -> None:
        key = storage._cdata
        if key in self._sizes:  # a view, or a change in place
            return
        self._sizes[key] = storage.nbytes()
        self.now += storage.nbytes()
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._drop, key)

    def _drop(self, key: int) -> None:
        self.now -= self._sizes.pop(key)


def peak_bytes(config: TrainConfig, *, classes: int, images: int) -> int:
    """Most bytes that live on a card during the first step or the last one.

    Args:
        config: the run; of its batch only the share `images` is taken.
        classes: of its data set.
        images: labelled ones on this card, with as many unlabelled ones.
    """
    peaks = []
    for position in ends(config):  # a warm-up may have steps of another kind
        live = LiveBytes()
        fake_step(config, classes=classes, images=images, position=position, counters=(live,))
        peaks.append(live.peak)
    return max(peaks)


def ends(config: TrainConfig) -> tuple[Position, Position]:
    """The first and the last step of a run whose epochs have a thousand steps."""
    total = 1000 * config.optim.epochs
    return Position(0, 1000, total), Position(total - 1, 1000, total)


def fake_step(
    config: TrainConfig,
    *,
    classes: int,
    images: int,
    position: Position,
    counters: Sequence[TorchDispatchMode],
) -> None:
    """A step, as `trainer.loop` takes it, on tensors without storage, beneath some counters.

    Args:
        config: the run; of its batch only the share `images` is taken.
        classes: of its data set.
        images: labelled ones, with as many unlabelled ones.
        position: in the run.
        counters: modes that see every operation, those that make the state too.
    """
    with torch.device("meta"):
        bare = new_state(config, classes, Ranks(0, 1, torch.device("meta")), fresh=False)
    _forget_constants()
    try:
        with FakeTensorMode(), ExitStack() as stack:
            for counter in counters:
                stack.enter_context(counter)
            _step(config, bare, images, position)
    finally:
        _forget_constants()


def _step(config: TrainConfig, bare: TrainState, images: int, position: Position) -> None:
    """The step from a state on the meta device."""

    def fake(tensor: torch.Tensor) -> torch.Tensor:
        return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype)

    ranks, runner = Ranks(0, 1, CARD), BlockRunner(config.run.memory, HOST)
    for network in bare.networks.values():
        network._apply(fake)
        set_ranks(network, ranks)
        network.backbone.run = runner
    state = TrainState(
        bare.networks,
        {
            name: new_optimiser(bare.networks[name], config.optim, decays_all=old.decays_all)
            for name, old in bare.optimisers.items()
        },
        {name: fake(tensor) for name, tensor in bare.memory.items()},
    )
    objective = Objective.of(config, ranks)
    bits = next(iter(state.networks.values())).num_channel_bits
    labelled, unlabelled = empty_batches(
        objective.method.views(), images=images, crop=config.data.crop, num_bits=bits
    )
    given = StepInput(
        state.networks,
        state.memory,
        labelled,
        unlabelled if config.method.facts.needs_unlabelled else None,
        objective.method.numbers(position),
    )
    Step(objective, state, ranks)(given, weight=1.0, rate=0.0)


def empty_batches(
    views: ViewPlan, *, images: int, crop: int, num_bits: int
) -> tuple[LabelledBatch, UnlabelledBatch]:
    """Batches with all that a method wants to see, of so many images each."""

    def pixels() -> torch.Tensor:
        return torch.empty(images, 3, crop, crop, dtype=torch.uint8)

    def flags() -> torch.Tensor:
        return torch.empty(images, crop, crop, dtype=torch.bool)

    def numbers() -> torch.Tensor:
        return torch.empty(images, views.numbers, dtype=torch.float64)

    def keep() -> torch.Tensor:
        return torch.empty(images, num_bits if views.channel_bits else 0, dtype=torch.bool)

    def place() -> torch.Tensor:
        return torch.empty(images, dtype=torch.int64)

    ids = ("",) * images
    partners = range(views.strong if views.has_partner else 0)
    masks = torch.empty(images, crop, crop, dtype=torch.int64)
    labelled_strong = pixels() if views.labelled_strong else nothing()
    labelled = LabelledBatch(pixels(), masks, keep(), ids, labelled_strong, numbers())
    unlabelled = UnlabelledBatch(
        weak=pixels(),
        strong=tuple(pixels() for _ in range(views.strong)),
        padded=flags(),
        boxes=tuple(flags() for _ in range(views.boxes)),
        keep=keep(),
        mix_weak=pixels() if views.has_partner else nothing(),
        mix_strong=tuple(pixels() for _ in partners),
        mix_padded=flags() if views.has_partner else nothing(),
        ids=ids,
        mix_ids=ids,
        holes=tuple(flags() for _ in range(views.strong if views.has_holes else 0)),
        second=_second_crop(pixels, flags, images) if views.has_overlap else None,
        numbers=numbers(),
        chosen=ChosenPartners(place(), place(), place()) if views.chosen_partner else None,
    )
    return labelled, unlabelled


def _second_crop(
    pixels: Callable[[], torch.Tensor], flags: Callable[[], torch.Tensor], images: int
) -> SecondCrop:
    shift = torch.empty(images, 2, dtype=torch.int64)
    return SecondCrop(pixels(), pixels(), flags(), shift, torch.empty(images, 2, dtype=torch.bool))


def _forget_constants() -> None:
    """Fake constants must not reach a real network, nor those of one count the next."""
    for kept in (
        trainer.network.deeplab._constants,
        trainer.network.deeplab._weights,
        trainer.network.batch_norm._counts,
        trainer.methods.contrast.feature_bank._limits,
    ):
        kept.cache_clear()


# The points that every line of the table is fitted to: crop, images, classes.
Points = tuple[tuple[int, int, int], ...]
POINTS: Points = ((321, 4, 21), (801, 4, 21), (321, 4, 150))
MODELS = ("resnet50", "resnet101")


def fit(known: Mapping[Kind, Coefficients]) -> Iterator[tuple[Kind, Coefficients]]:
    """The lines that the table lacks, of every network, method, precision and rung."""
    kinds = [
        (algorithm, distance)
        for algorithm, facts in METHODS.items()
        for distance in (PixelDistance.none, PixelDistance.kl)
        if facts.pairs or distance is PixelDistance.none
    ]
    for model, (algorithm, distance), precision, rung in product(
        MODELS, kinds, (Precision.fp32, Precision.bf16), Memory
    ):
        config = configured(model, algorithm, distance, precision, rung)
        if Kind.of(config) not in known:
            print(*Kind.of(config), flush=True)
            yield Kind.of(config), fitted(config)


def fitted(config: TrainConfig, points: Points = POINTS) -> Coefficients:
    """The line of a run's kind through its counts at three points: larger, then of more classes."""
    peaks, memories = [], []
    for crop, images, classes in points:
        with TemporaryDirectory() as folder:
            made_up = of_classes(replace(config.data, crop=crop), classes, Path(folder))
            at_point = replace(config, data=made_up)
            peaks.append(peak_bytes(at_point, classes=classes, images=images))
            memories.append(_memory_bytes(at_point))
    (crop, images, classes), (larger, _, _), (_, _, more) = points
    memory_per_class = (memories[2] - memories[0]) / (more - classes)
    small, large, many = (
        peak - memory_per_class * point[2] for peak, point in zip(peaks, points, strict=True)
    )
    pixels = images * crop**2
    slope = (large - small) / (images * larger**2 - pixels)
    per_class = (many - small) / pixels / (more - classes)
    return Coefficients(
        small - slope * pixels,
        slope - per_class * classes,
        per_class,
        _weight_bytes(config),
        memory_per_class,
    )


def of_classes(data: DataConfig, classes: int, folder: Path) -> DataConfig:
    """Data of so many classes, as far as a step asks: a folder that only says their names."""
    names = [f"class {number}" for number in range(classes)]
    description = {"classes": names, "images": "images/{id}.jpg", "masks": "masks/{id}.png"}
    (folder / DESCRIPTION_FILE).write_text(yaml.safe_dump(description))
    return replace(data, dataset="folder", root=str(folder))


def _memory_bytes(config: TrainConfig) -> int:
    """Of the method's own memory, which no count of unlabelled images is in."""
    with torch.device("meta"):
        method = new_method(MethodContext(config, Ranks(0, 1, torch.device("meta"))))
        return sum(tensor.nbytes for tensor in method.memory().values())


def _weight_bytes(config: TrainConfig) -> int:
    """Of the parameters and buffers of one network."""
    with torch.device("meta"):
        network = DeepLabV3Plus(config.model, 21)
    return sum(tensor.nbytes for tensor in network.state_dict().values())


def configured(
    model: str, algorithm: str, distance: PixelDistance, precision: Precision, rung: Memory
) -> TrainConfig:
    """A run of one of the kinds, at the points' smallest crop."""
    case = Case(model=model, crop=321, batch=4, classes=21, distance=distance, precision=precision)
    config = case.config
    return replace(
        config,
        method=replace(config.method, algorithm=algorithm),
        run=replace(config.run, memory=rung),
    )


def table() -> Iterator[str]:
    """Lines of Markdown: GiB by the table, and as counted now."""
    yield (
        "| | crop | images | "
        + " | ".join(
            f"{precision} {rung.value}" for precision in ("fp32", "bf16") for rung in Memory
        )
        + " |"
    )
    yield "|---|---|---|" + "---|" * 6
    for model, crop, images in product(MODELS, (321, 513, 801), (4, 8)):
        cells = []
        for precision, rung in product((Precision.fp32, Precision.bf16), Memory):
            config = configured(model, "unimatch", PixelDistance.kl, precision, rung)
            config = replace(config, data=replace(config.data, crop=crop))
            fitted = step_bytes(config, classes=21, images=images)
            assert fitted is not None
            counted = peak_bytes(config, classes=21, images=images)
            cells.append(f"{fitted / GIB:.1f} ({counted / GIB:.1f})")
        yield f"| {model} | {crop} | {images}+{images} | {' | '.join(cells)} |"


def main(words: Sequence[str]) -> None:
    """Print the table, or write its source, or count one run."""
    torch.set_num_threads(1)
    if not words:
        for line in table():
            print(line, flush=True)
    elif list(words) == ["fit"]:
        add_counts(fit(read_counts()))
    else:
        ranks = [int(word.partition("=")[2]) for word in words if word.startswith("ranks=")]
        config = compose([word for word in words if not word.startswith("ranks=")])
        classes, images = num_classes(config.data), -(-config.batch // (ranks or [1])[-1])
        counted = peak_bytes(config, classes=classes, images=images)
        print(f"{config.key}: {counted / GIB:.2f} GiB a rank, {images} labelled images a step")


if __name__ == "__main__":
    main(sys.argv[1:])
