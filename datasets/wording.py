"""Words of messages: a number with its noun, and the known word that a wrong one may have meant."""

import os
from collections.abc import Collection
from difflib import get_close_matches
from pathlib import Path


def quantity(count: int, noun: str, plural: str = "") -> str:
    """A number with its noun, such as 1 image, 2 images or 3 entries.

    Args:
        count: how many.
        noun: of one.
        plural: of several, where that is not the noun with an s.
    """
    return f"{count} {noun if count == 1 else plural or f'{noun}s'}"


def did_you_mean(word: str, known: Collection[str], *, most: int = 1, cutoff: float = 0.6) -> str:
    """A question about the known words most like a wrong one, after a blank; empty without any.

    Args:
        word: as it was typed.
        known: what it could have been.
        most: how many are named.
        cutoff: how like they must be, from 0 to 1.
    """
    near = get_close_matches(word, known, n=most, cutoff=cutoff)
    return f" Did you mean {' or '.join(near)}?" if near else ""


def did_you_mean_path(path: Path) -> str:
    """The same about a path that is not there, part by part; empty where nothing is like it."""
    if path.is_dir():
        return f" {path} is a folder."
    place = Path(path.anchor)
    for part in path.parts[len(place.parts) :]:
        if not (place / part).exists():
            if (place / part).is_symlink():
                return f" {place / part} is a link to {(place / part).readlink()}, which is gone."
            is_open = place.is_dir() and os.access(place, os.R_OK)
            names = [entry.name for entry in place.iterdir()] if is_open else []
            near = get_close_matches(part, names, n=1)
            if not near:
                return ""
            part = near[0]
        place /= part
    return f" Did you mean {place}?"


def listed(names: Collection[str], most: int) -> str:
    """The first names, and how many there are beside them.

    Args:
        names: at least one, in their order.
        most: how many are named.
    """
    shown, more = list(names)[:most], len(names) - most
    return ", ".join(shown) + (f" and {more} more" if more > 0 else "")
