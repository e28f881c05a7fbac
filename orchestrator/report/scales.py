"""Round numbers along an axis."""

from collections.abc import Iterable
from dataclasses import dataclass
from math import ceil, floor, inf, isfinite, log10


@dataclass(frozen=True)
class Scale:
    """Values of an axis laid onto a length of the picture.

    Attributes:
        low: value at `start`.
        high: value at `stop`.
        start: place of `low` in the picture.
        stop: place of `high`.
        step: between two ticks.
    """

    low: float
    high: float
    start: float
    stop: float
    step: float

    def __call__(self, value: float) -> float:
        """Place of a value."""
        part = (value - self.low) / (self.high - self.low)
        return self.start + part * (self.stop - self.start)

    @property
    def ticks(self) -> list[float]:
        """Round values from end to end."""
        count = round((self.high - self.low) / self.step)
        return [self.low + self.step * index for index in range(count + 1)]

    def label(self, value: float) -> str:
        """A tick's text, with as many digits as the step needs."""
        digits = max(0, -floor(log10(self.step) + 1e-9))
        text = f"{value:.{digits}f}"
        return text.replace("-", "\u2212") if float(text) else text.lstrip("-")


def scale_over(
    values: Iterable[float],
    place: tuple[float, float],
    *,
    num_ticks: int = 5,
    least_step: float = 0.0,
    lowest: float = -inf,
) -> Scale:
    """A scale that covers the values and ends on round numbers.

    Args:
        values: finite or not; those that are not finite are left out.
        place: where the low and the high end lie in the picture.
        num_ticks: about how many ticks.
        least_step: between two ticks; 1 for what is counted.
        lowest: below which no value can be; 0 for a percentage.
    """
    finite = [value for value in values if isfinite(value)] or [0.0, 1.0]
    low, high = min(finite), max(finite)
    if low == high:
        low, high = max(low - 0.5, lowest), high + 0.5
    step = max(_round_step((high - low) / num_ticks), least_step)
    return Scale(floor(low / step) * step, ceil(high / step) * step, *place, step)


def _round_step(rough: float) -> float:
    """The next of 1, 2, 5 times a power of ten."""
    power = 10.0 ** floor(log10(rough))
    return next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * 0.999)
