"""Durations, scores and progress as text, and the colours of states."""

from datasets.wording import quantity
from orchestrator.storage.run_state import Progress

STYLES = {
    "done": "green",
    "running": "cyan",
    "failed": "red",
    "retry": "yellow",
    "stopped": "yellow",
    "busy": "yellow",
    "interrupted": "yellow",
    "drifted": "magenta",
    "missing": "dim",
    "queued": "blue",
}


def clock(seconds: float | None) -> str:
    """A duration, such as 7 s, 2:05 or 3:10:00."""
    if seconds is None:
        return "-"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, second = divmod(whole, 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"


def about(seconds: float) -> str:
    """An estimated duration, such as 40 seconds, 5 minutes or 3 hours."""
    for size, unit in ((86400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= 1.5 * size:
            return f"{round(seconds / size)} {unit}"
    return f"{max(2, round(seconds))} seconds"


def cells_text(count: int) -> str:
    """A number of cells in words."""
    return quantity(count, "cell")


def gibibytes(value: float | None) -> str:
    """GiB with one digit."""
    return "-" if value is None else f"{value:.1f}"


def digits(value: float) -> str:
    """Hours, milliseconds or money: three digits that count, and never an exponent."""
    return (
        f"{value:.0f}"
        if abs(value) >= 100
        else f"{float(f'{value:.3g}'):.4f}".rstrip("0").rstrip(".")
    )


def percent(value: float | None) -> str:
    """A mIoU with two digits."""
    return "-" if value is None else f"{value:.2f}"


def fraction(progress: Progress) -> str:
    """Part of the steps that is done."""
    return f"{100.0 * progress.fraction:.0f}%" if progress.total_steps else "-"


def speed(progress: Progress) -> str:
    """Images per second."""
    rate = progress.images_per_second
    return "-" if not rate else f"{rate:.1f}"
