"""CPU time of a training step on each backbone: `python -m benchmarks.backbones [key=value ...]`.

Steps of one batch of noise, the backbones in turn, on one thread of this process; first weights are
drawn. Prints milliseconds and ratios to the first backbone. Settings: models and crops (separated
by commas), batch, rounds, method, loss, head (channels; 0 leaves each its own).
"""

import sys
from collections.abc import Callable
from statistics import median

import torch

from benchmarks.table import in_turn, settings
from benchmarks.two_steps import Case, made_up, stepping
from trainer import determinism
from trainer.config.compose import compose
from trainer.distributed import Ranks
from trainer.state import new_state

DEFAULTS = {
    "models": "resnet14_w16,efficientnet_lite0,resnet50",
    "crops": "64,96",
    "batch": "4",
    "rounds": "5",
    "method": "supervised_star",
    "loss": "none",
    "head": "0",
}
CLASSES = 6


def stepper(model: str, crop: str, given: dict[str, str]) -> Callable[[], None]:
    """A call that takes one step."""
    head = [f"model.head_channels={given['head']}"] if given["head"] != "0" else []
    config = compose(
        [
            f"model={model}",
            "model.init=random",
            f"method={given['method']}",
            f"loss={given['loss']}",
            f"data.crop={crop}",
            f"optim.batch={given['batch']}",
            *head,
        ]
    )
    determinism.enable_determinism(config)
    ranks = Ranks(0, 1, torch.device("cpu"))
    state = new_state(config, CLASSES, ranks)
    bits = state.networks["student"].num_channel_bits
    case = Case(model=model, crop=config.data.crop, batch=config.batch, classes=CLASSES)
    labelled, unlabelled = made_up(case, ranks, num_bits=bits, seed=0)
    step = stepping(config, ranks, state, lr=0.0)
    return lambda: step(labelled, unlabelled)


def main(words: list[str]) -> None:
    """Print a table for each crop."""
    given = settings(words, DEFAULTS)
    torch.set_num_threads(1)
    for crop in given["crops"].split(","):
        variants = {model: stepper(model, crop, given) for model in given["models"].split(",")}
        columns = in_turn(variants, rounds=int(given["rounds"]))
        print(f"\n{given['method']} + {given['loss']}, crop {crop}, batch {given['batch']}\n")
        print("| | CPU ms | times the first |\n|---|---|---|")
        for column in columns:
            pairs = zip(columns[0].values, column.values, strict=True)
            ratios = [own / first for first, own in pairs]
            print(
                f"| {column.name} | {1e3 * median(column.values):.0f} | "
                f"{median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}) |"
            )


if __name__ == "__main__":
    main(sys.argv[1:])
