"""The inter-pixel term beside the step it is added to: `python -m benchmarks.inter_pixel [...]`.

Time of the loss with its gradient, as a share of a whole step with that loss at the same crop, and
the memory it needs beyond its inputs in units of the logits. A step compares two views, so the term
is taken twice. Settings: rounds, steps (0 leaves the step out), crops (321,801; a step takes 20 s
of CPU at 321, two minutes and 16 GB at 801), images (of a batch; 1 halves both), kinds (kl,cr),
device.
"""

import statistics
import sys
from typing import Any

import torch
from torch import Tensor

from benchmarks.official_step import inter_pixel as gathered
from benchmarks.table import Column, in_turn, print_table, seconds, settings
from benchmarks.two_steps import Case, made_up, ours
from trainer.config.schema import LossConfig, PixelDistance, RunConfig
from trainer.distributed import init_process_group
from trainer.inter_pixel import inter_pixel_loss
from trainer.objective import image_losses

SIZES = [(21, 321), (19, 801)]  # classes, crop
DEFAULTS = {
    "rounds": "5",
    "steps": "2",
    "crops": "321,801",
    "images": "2",
    "kinds": "kl,cr",
    "device": "cpu",
}


def main(words: list[str]) -> None:
    """Print the tables."""
    given = settings(words, DEFAULTS)
    torch.set_num_threads(1)
    crops = given["crops"].split(",")
    images = int(given["images"])
    for classes, crop in (size for size in SIZES if str(size[1]) in crops):
        student, teacher, valid = _logits(images, classes, crop, given["device"])
        for kind in given["kinds"].split(","):
            calls = _variants(student, teacher, valid, kind)
            columns = in_turn(calls, rounds=int(given["rounds"]), device=given["device"])
            title = f"{kind}, {images} x {classes} x {crop} x {crop}, forward and backward"
            print_table(title, columns)
            print(f"extra memory: {_extra_memory(calls['ours'], student):.2f} logits")
            if int(given["steps"]) and kind == "kl":
                case = Case(model="resnet50", crop=crop, batch=images, classes=classes)
                _print_share(case, columns[-1], int(given["steps"]), given["device"])


def _logits(images: int, classes: int, crop: int, device: str) -> tuple[Tensor, Tensor, Tensor]:
    """Student, teacher and valid pixels; about seven tenths of the pixels are confident."""
    generator = torch.Generator().manual_seed(0)
    shape = (images, classes, crop // 8 + 1, crop // 8 + 1)
    coarse = [4.0 * torch.randn(shape, generator=generator) for _ in range(2)]
    student, teacher = (
        torch.nn.functional.interpolate(x, size=(crop, crop), mode="bilinear").to(device)
        for x in coarse
    )
    valid = torch.ones(images, crop, crop, dtype=torch.bool, device=device)
    return student.requires_grad_(), teacher, valid


def _variants(student: Tensor, teacher: Tensor, valid: Tensor, kind: str) -> dict[str, Any]:
    """The gathered loop, plain autograd, and the closed form."""
    reading = LossConfig(distance=PixelDistance[kind])

    def autograd() -> Tensor:
        flat = student.flatten(2), teacher.flatten(2), valid.flatten(1)
        return image_losses(*flat, reading)[0].mean()

    losses = {
        "image by image, gathered": lambda: gathered(student, teacher, valid, kind, 0.8, 4.0),
        "masked, autograd": autograd,
        "ours": lambda: inter_pixel_loss(student, teacher, valid=valid, distance=kind),
    }
    return {name: lambda f=f: torch.autograd.grad(f(), student) for name, f in losses.items()}


def _extra_memory(call: Any, logits: Tensor) -> float:
    """Most memory a call holds beyond what there was, the gradient it returns included."""
    if logits.is_cuda:
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        call()
        return (torch.cuda.max_memory_allocated() - before) / logits.nbytes
    with torch.profiler.profile(profile_memory=True) as profile:
        call()
    held = most = 0
    for event in profile.profiler.kineto_results.events():
        if event.name() == "[memory]":
            held += event.nbytes()
            most = max(most, held)
    return most / logits.nbytes


def _print_share(case: Case, term: Column, steps: int, device: str) -> None:
    """The term of both views as a share of a step."""
    ranks = init_process_group(RunConfig(device=device))
    batch = made_up(case, ranks, seed=0)
    step = ours(case.config, ranks, case.classes)
    taken = [seconds(lambda: step(*batch), device) for _ in range(steps + 1)][1:]
    share = [2.0 * value / statistics.median(taken) for value in term.values]
    print(
        f"step with this loss: {statistics.median(taken):.2f} s; both views of the term: "
        f"{100 * statistics.median(share):.2f} % ({100 * min(share):.2f} to "
        f"{100 * max(share):.2f}) of it"
    )


if __name__ == "__main__":
    main(sys.argv[1:])
