"""What is made between the stages of a run: masks, and records of them, written once.

Every file appears whole, by rename. A record carries its own sha256 and holds those of the masks,
so damage is noticed and what is damaged is made again.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datasets.errors import DataError
from datasets.files import atomic_write, file_sha256
from datasets.images.predicted import PredictedMasks


@dataclass(frozen=True)
class Products:
    """The folder of what was made before one stage.

    Attributes:
        folder: `stages/<name>` of the run's folder.
        num_classes: mask values are below it.
    """

    folder: Path
    num_classes: int

    def paths(self, names: Sequence[str]) -> dict[str, Path]:
        """Where the masks of some images lie, whether they are there or not."""
        return {name: self.folder / "masks" / f"{name}.png" for name in names}

    def mask_sha256(self, name: str) -> str | None:
        """Sha256 of the mask of an image; None where it is missing or cannot be decoded."""
        masks = PredictedMasks(self.num_classes, paths=self.paths([name]))
        try:
            masks.mask(name)
            return file_sha256(masks.paths[name])
        except (DataError, OSError):
            return None

    def write_mask(self, name: str, png: bytes) -> None:
        """Write the mask of an image; ranks with one folder may write the same at once."""
        path = self.paths([name])[name]
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(path, png, durable=True)

    def record(self, name: str, content: dict[str, Any]) -> None:
        """Write a record, JSON, with the sha256 of what it holds."""
        self.folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps({"sha256": _sha256(content), "content": content}, indent=1)
        atomic_write(self.folder / f"{name}.json", text + "\n", durable=True)

    def recorded(self, name: str) -> dict[str, Any] | None:
        """A record; None where it is missing or damaged."""
        try:
            held = json.loads((self.folder / f"{name}.json").read_text())
            content: dict[str, Any] = held["content"]
            return content if held["sha256"] == _sha256(content) else None
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def digest(self, *names: str) -> str:
        """Sha256 of some records."""
        return _sha256({name: self.recorded(name) for name in names})


def _sha256(content: dict[str, Any]) -> str:
    return text_sha256(json.dumps(content, sort_keys=True))


def text_sha256(text: str) -> str:
    """Sha256 of a text, hex."""
    return hashlib.sha256(text.encode()).hexdigest()
