"""Checks of a configuration beyond types: ranges, and combinations that have no meaning."""

from dataclasses import fields, is_dataclass

from datasets.config import DataConfig, StrongViewConfig
from trainer.config.schema import (
    CutMixPairs,
    Graph,
    Init,
    Memory,
    ModelConfig,
    PixelDistance,
    RunConfig,
    TrainConfig,
)
from trainer.method_registry import METHODS

MAX_SEED = 2**62
MAX_WORKERS = 4096


_RESNET = ("blocks", "width", "stem", "stride", "last_dilations")


def check(config: TrainConfig) -> TrainConfig:
    """The configuration itself, when its values make sense together.

    Raises:
        ValueError: names the field, its value and what it may be.
    """
    _ranges(config)
    _inter_pixel(config)
    _network(config.model)
    if config.data.dataset == "synthetic" and config.data.drawn is None:
        raise ValueError("data.drawn is empty; recipe=synthetic says how the scenes are drawn.")
    if config.batch < 2:
        raise ValueError(
            f"optim.batch={config.optim.batch} makes steps of one image; batch normalisation needs "
            "two or more."
        )
    if not config.optim.epochs and not config.optim.steps:
        raise ValueError("optim.epochs=0 leaves the length to optim.steps, which is 0; set one.")
    if config.batch % config.optim.sampler_ranks:
        raise ValueError(
            f"optim.sampler_ranks={config.optim.sampler_ranks} GPUs cannot share a batch of "
            f"{config.batch} images equally; choose another optim.batch, or optim.sampler_ranks=1 "
            "to count whole batches."
        )
    _augmentation(config.data)
    _boxes(config)
    workers = config.run.loader_workers
    if workers != "auto" and not (isinstance(workers, int) and 0 <= workers <= MAX_WORKERS):
        raise ValueError(
            f"run.loader_workers={workers} is neither auto nor a number from 0 to {MAX_WORKERS}."
        )
    _run(config.run)
    return config


def _network(model: ModelConfig) -> None:
    """Shapes that the network does not have."""
    for name in _RESNET if model.facts.is_fixed else ():
        if getattr(model, name) != getattr(ModelConfig, name):
            raise ValueError(
                f"model.{name} is a setting of ResNets, and model.family={model.family} is one "
                "network of fixed shape; leave it out."
            )
    if model.init is Init.imagenet and model.width != 64 and not model.facts.is_fixed:
        raise ValueError(
            f"model.init=imagenet needs model.width=64, got {model.width}; "
            "the small backbones start from model.init=random."
        )
    if model.stride not in (8, 16):
        raise ValueError(f"model.stride={model.stride}; it is 8 or 16.")
    given, blocks = model.last_dilations, model.blocks[-1]
    if (given and len(given) < blocks) or any(dilation < 1 for dilation in given):
        raise ValueError(
            f"model.last_dilations={list(given)}: each of the {blocks} blocks of the last stage "
            "has one, of 1 or more; [] leaves them as model.stride says."
        )


def _boxes(config: TrainConfig) -> None:
    """The probability of CutMix boxes, where the method draws others."""
    probability, usual = config.data.strong.cutmix, StrongViewConfig().cutmix
    if config.method.facts.has_own_boxes and probability != usual:
        raise ValueError(
            f"data.strong.cutmix={probability} is the probability of UniMatch's box, and "
            f"method={config.method.name} draws boxes by a rule of its own; leave it at {usual}."
        )


def _augmentation(data: DataConfig) -> None:
    """How images are resized."""
    lowest = data.unlabelled_scale_min or data.scale_min
    if not 0 < min(data.scale_min, lowest) <= max(data.scale_min, lowest) <= data.scale_max:
        raise ValueError(
            f"data.scale_min={data.scale_min}, data.unlabelled_scale_min={lowest} and "
            f"data.scale_max={data.scale_max}: the first two must be above 0 and not above the "
            "third."
        )
    if any(scale <= 0 for scale in data.scales):
        raise ValueError(f"data.scales={list(data.scales)}: each must be above 0.")
    if data.scale_halves and not data.scale_min <= 1 <= data.scale_max:
        raise ValueError("data.scale_halves=true needs data.scale_min <= 1 <= data.scale_max.")


def _ranges(config: TrainConfig) -> None:
    """Numbers with a smallest and a largest value."""
    limits: dict[str, tuple[float, float, float]] = {
        "seed": (config.seed, 0, MAX_SEED),
        "data.crop": (config.data.crop, 16, 8192),
        "data.scale_base": (config.data.scale_base, 0, 10**5),
        "optim.epochs": (config.optim.epochs, 0, 10**6),
        "optim.steps": (config.optim.steps, 0, 10**9),
        "optim.batch": (config.optim.batch, 1, 10**5),
        "optim.lr": (config.optim.lr, 0, 1e3),
        "optim.momentum": (config.optim.momentum, 0, 1),
        "optim.sampler_ranks": (config.optim.sampler_ranks, 1, 10**5),
        "optim.ohem_threshold": (config.optim.ohem_threshold, 0, 1),
        "method.batch_factor": (config.method.batch_factor, 1, 10**3),
        "method.confidence": (config.method.confidence, 0, 1),
        "method.ema_decay": (config.method.ema_decay, 0, 1),
        "loss.alpha": (config.loss.alpha, 0, 1e6),
        "loss.threshold": (config.loss.threshold, 0, 1),
        "loss.temperature": (config.loss.temperature, 1e-6, 1e6),
        "loss.warmup_epochs": (config.loss.warmup_epochs, 0, 10**6),
        "loss.min_pixels": (config.loss.min_pixels, 2, 10**9),
        "evaluation.every_epochs": (config.evaluation.every_epochs, 1, 10**6),
        "run.threads": (config.run.threads, 1, 4096),
        "run.log_steps": (config.run.log_steps, 1, 10**9),
        "run.checkpoint_steps": (config.run.checkpoint_steps, 0, 10**9),
        "run.checkpoint_minutes": (config.run.checkpoint_minutes, 0, 10**6),
    }
    groups = {
        f"method.{item.name}": getattr(config.method, item.name) for item in fields(config.method)
    }
    for group, settings in {"data.strong": config.data.strong, **groups}.items():
        for item in fields(settings) if is_dataclass(settings) else ():
            if "limits" in item.metadata:
                value = getattr(settings, item.name)
                limits[f"{group}.{item.name}"] = (value, *item.metadata["limits"])
    for name, (value, low, high) in limits.items():
        if not low <= value <= high:
            raise ValueError(f"{name}={value} is out of range; it lies in [{low:g}, {high:g}].")


def _run(run: RunConfig) -> None:
    """How the run executes."""
    if run.graph is Graph.step and run.memory is Memory.offload:
        raise ValueError(
            "run.graph=step cannot capture copies to the memory of the host, which "
            "run.memory=offload makes; use run.memory=recompute, or run.graph=none."
        )
    if run.device not in ("auto", "cpu", "cuda"):
        raise ValueError(f"run.device={run.device!r}; it is auto, cpu or cuda.")


def _inter_pixel(config: TrainConfig) -> None:
    """Combinations of the inter-pixel term that have no meaning."""
    loss, facts = config.loss, config.method.facts
    known = facts.pairs + facts.other_pairs
    if set(config.pair_views) - set(known):
        raise ValueError(f"loss.views={list(loss.views)}; choose among {', '.join(known)}.")
    if loss.distance is PixelDistance.none:
        return
    if not facts.needs_unlabelled and not known:
        raise ValueError(
            f"loss={loss.name} needs unlabelled images and method={config.method.name} uses none; "
            "choose loss=none, or another method."
        )
    if not known:
        raise ValueError(
            f"loss={loss.name} compares a teacher's and a student's logits, and "
            f"method={config.method.name} hands out none; choose loss=none."
        )
    if loss.on_labeled and "fp" not in known:
        able = " and ".join(name for name, other in METHODS.items() if "fp" in other.other_pairs)
        raise ValueError(
            "loss.on_labeled=true compares the clean and the feature-dropped forward, which only "
            f"{able} has; method={config.method.name} has one forward of labelled images."
        )
    if loss.cutmix is CutMixPairs.uncut and not {"s1", "s2"} & set(config.pair_views):
        raise ValueError(
            f"loss.cutmix=uncut speaks of the strong views s1 and s2; method={config.method.name} "
            f"compares {', '.join(config.pair_views)} here."
        )
