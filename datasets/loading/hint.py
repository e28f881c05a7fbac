"""What a method tells the loader at the border of an epoch: which classes are wanted more.

A batch made ahead cannot follow the memory of a method step by step. So the loader knows the
memory as it was when the epoch began, and a batch stays a function of seed, position and that hint,
however many workers or ranks there are and wherever a run resumes.
Legend: C classes, N unlabelled images.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from datasets.randomness import KeyedRandom, Stream

PASTE_SCALES = ((0.1, 1.0), (1.0, 2.0))  # of an image that is pasted, as likely one as the other


@dataclass(frozen=True)
class Hint:
    """Part of every checkpoint; the loader has it on the host.

    Attributes:
        partner: probability of each class to be wanted of a CutMix partner, float64 (C,).
        pasted: probability of each class to be pasted into a labelled image, float64 (C,).
        presence: which unlabelled images show a class, bool (C, N); may be without images, (C, 0).
    """

    partner: Tensor
    pasted: Tensor
    presence: Tensor

    def tensors(self) -> dict[str, Tensor]:
        """Its tensors by name."""
        return {"partner": self.partner, "pasted": self.pasted, "presence": self.presence}


def draw_class(draws: KeyedRandom, probabilities: Tensor) -> int:
    """A class, by one word."""
    sums = np.cumsum(probabilities.numpy())
    chosen = np.searchsorted(sums, draws.uniform(0.0, float(sums[-1])), side="right")
    return min(int(chosen), len(sums) - 1)  # rounding may bring the number up to the last sum


def draw_partner(draws: KeyedRandom, hint: Hint, count: int) -> tuple[int, int]:
    """A class, and a place in the unlabelled list; two words.

    Args:
        draws: random numbers.
        hint: of the epoch.
        count: images in the list. One that shows the class is drawn; any of them if none does.

    Returns:
        The class and the place.
    """
    wanted = draw_class(draws, hint.partner)
    places = torch.nonzero(hint.presence[wanted]).flatten()
    if not len(places):
        return wanted, draws.integer(0, count - 1)
    return wanted, int(places[draws.integer(0, len(places) - 1)])


@dataclass(frozen=True)
class PasteChoice:
    """What is pasted into one image.

    Attributes:
        place: of the other image in the labelled list.
        classes: whose pixels are pasted.
        scales: smallest and largest resize of the other image.
    """

    place: int
    classes: tuple[int, ...]
    scales: tuple[float, float]


def draw_paste(
    hint: Hint, seed: int, position: int, *, num_images: int, num_classes: int
) -> PasteChoice | None:
    """What is pasted into the labelled image at a position; None for half of them.

    Args:
        hint: of the epoch.
        seed: of the run.
        position: global.
        num_images: of the labelled list, from which the other image is drawn evenly.
        num_classes: so many are drawn; a class that is drawn twice counts once.
    """
    draws = KeyedRandom(seed, Stream.PASTE, position)
    if not draws.bernoulli(0.5):
        return None
    place, scales = draws.integer(0, num_images - 1), PASTE_SCALES[draws.bernoulli(0.5)]
    drawn = {draw_class(draws, hint.pasted) for _ in range(num_classes)}
    return PasteChoice(place, tuple(sorted(drawn)), scales)
