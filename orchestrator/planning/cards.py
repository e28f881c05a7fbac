"""Whether the cells of a grid fit the memory of the cards they would run on, and what would fit.

A cell is refused only if what was counted for it is more than the card has. What is offered instead
leaves room for what is not counted, see `orchestrator/planning/memory.py`.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from datasets.errors import Unreachable
from datasets.location import num_classes
from datasets.wording import quantity
from orchestrator.options import LaunchOptions
from orchestrator.planning.memory import GIB, step_bytes
from slurm.cluster import gpu_types
from slurm.commands import SlurmMissing, SlurmRefused, SlurmSilent
from trainer.config.schema import Memory, Precision, TrainConfig
from trainer.hardware.card_memory import memory_here, memory_of

_UNCOUNTED = 1.0  # GiB: the CUDA context, workspaces of cuDNN, gaps between blocks


def gib_per_rank(config: TrainConfig, ranks: int) -> float | None:
    """GiB that one rank needs on its card at the peak of a step; None where that is not known."""
    try:
        classes = num_classes(config.data)
    except (ValueError, OSError, Unreachable):  # a folder of the user that is not here
        return None
    images = -(-config.batch // ranks)
    needed = step_bytes(config, classes=classes, images=images)
    return None if needed is None else needed / GIB


def card_gib(options: LaunchOptions) -> float | None:
    """GiB of a card that a rank would have; None without a card, or where nothing says its size.

    `gpu_memory_gb` says it, else nvidia-smi for what runs on this machine, else the names of the
    cards in Slurm. Of several kinds the largest counts. Ray is asked once it runs.
    """
    if options.gpus_per_rank == 0:
        return None
    return share_of(options, options.gpu_memory_gb or _told(options))


def share_of(options: LaunchOptions, gib: float | None) -> float | None:
    """What a rank has of a card of `gib`, where several share it."""
    return gib * options.gpus_per_rank if gib and 0 < options.gpus_per_rank < 1 else gib


def largest_of(names: Iterable[str]) -> float | None:
    """GiB of the largest of several kinds of cards; None where one of them is unknown."""
    sizes = [memory_of(name) for name in names]
    known = [size for size in sizes if size is not None]
    return max(known) if known and len(known) == len(sizes) else None


def check_cards(
    configs: Mapping[str, TrainConfig], options: LaunchOptions, card: float | None
) -> None:
    """Refuse cells that cannot fit, before anything starts.

    Args:
        configs: by key of the cell.
        options: of the launch.
        card: GiB that a rank has, see `card_gib`; None refuses nothing.

    Raises:
        ValueError: says how much is missing and what would fit.
    """
    text = too_large(configs, options, card)
    if text:
        raise ValueError(text)


def too_large(
    configs: Mapping[str, TrainConfig], options: LaunchOptions, card: float | None
) -> str:
    """A sentence about the cells that do not fit the card; empty where all fit or none is known."""
    if card is None:
        return ""
    needs = {
        key: gib_per_rank(config, options.ranks) or 0.0
        for key, config in configs.items()
        if config.run.device != "cpu"
    }
    large = {key: need for key, need in needs.items() if need > card}
    if not large:
        return ""
    key = max(large, key=lambda name: large[name])
    others = (
        f" (beside {quantity(len(large) - 1, 'other cell')} too large)" if len(large) > 1 else ""
    )
    offers = "; ".join(_offers(configs[key], options.ranks, card - _UNCOUNTED))
    return (
        f"Cell {key} needs {large[key]:.1f} GiB on each card, which has {card:g}{others}. "
        f"It would fit with {offers or 'a larger card or a smaller data.crop only'}. "
        "gpu_memory_gb=N says how large the cards are, where this is wrong."
    )


@dataclass(frozen=True)
class _Remedy:
    """A change of a run that needs less memory."""

    word: str
    config: TrainConfig
    remark: str


def _offers(config: TrainConfig, ranks: int, room: float) -> Iterator[str]:
    """The changes with which a run fits, each alone; where none does, the last rung on more ranks.

    Args:
        config: the run.
        ranks: that share its batch now.
        room: GiB of a card for what is counted.
    """
    rungs = list(Memory)
    later = rungs[rungs.index(config.run.memory) + 1 :]
    remedies = [
        _Remedy(
            f"run.memory={rung.value}",
            replace(config, run=replace(config.run, memory=rung)),
            "same bits",
        )
        for rung in later
    ]
    if config.optim.precision is not Precision.bf16:
        half = replace(config, optim=replace(config.optim, precision=Precision.bf16))
        remedies.append(_Remedy("optim.precision=bf16", half, "another fingerprint"))
    offers = list(_on_more_ranks(config, ranks, room))
    for remedy in remedies:
        need = gib_per_rank(remedy.config, ranks)
        if need is not None and need <= room:
            offers.append(f"{remedy.word} ({need:.1f} GiB, {remedy.remark})")
    if offers or not later:
        return iter(offers)
    last = remedies[len(later) - 1]
    return (f"{last.word} {offer}" for offer in _on_more_ranks(last.config, ranks, room))


def _on_more_ranks(config: TrainConfig, ranks: int, room: float) -> Iterator[str]:
    """The smallest number of ranks with which a run fits, if there is one."""
    for number in range(ranks + 1, config.batch + 1):
        need = gib_per_rank(config, number)
        if need is not None and need <= room:
            yield f"ranks={number} ({need:.1f} GiB, other rounding)"
            return


def _told(options: LaunchOptions) -> float | None:
    """GiB of the largest card, as far as somebody says it before anything starts."""
    if options.backend == "slurm":
        try:
            return largest_of(gpu_types(options.slurm.partition))
        except (SlurmMissing, SlurmRefused, SlurmSilent):
            return None
    is_here = options.backend in ("inline", "ray") and not options.ray_address
    return memory_here() if is_here else None
