"""The command line of `python -m datasets`: words, and settings that commands take one by one.

argparse is not used, because its options begin with dashes. Here `key=value` is the usual form, as
in Hydra, which reads the trainer's command line; a dataset may be a word or a setting; and an
argument that no command has taken is named in an error.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from datasets.config import DataConfig
from datasets.known.registry import KNOWN, known_dataset

_YES = {"yes": True, "no": False, "true": True, "false": False}


@dataclass
class Arguments:
    """The arguments of a command line that no command has taken yet."""

    words: list[str]
    settings: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, line: Sequence[str]) -> "Arguments":
        """Read `word`, `key=value`, `--key value` and `--key=value`; a lone `--key` says yes."""
        words, settings, waiting = [], {}, ""
        for entry in line:
            name, equals, value = entry.removeprefix("--").partition("=")
            if equals:
                settings[name] = value
                waiting = ""
            elif entry.startswith("--"):
                settings[name] = "yes"
                waiting = name
            elif waiting:
                settings[waiting] = entry
                waiting = ""
            else:
                words.append(entry)
        return cls(words, settings)

    def word(self, what: str, default: str = "") -> str:
        """Take the next word; `what` names it in the error when there is none."""
        if not self.words and not default:
            raise ValueError(f"The command lacks {what}; see python -m datasets --help.")
        return self.words.pop(0) if self.words else default

    def rest(self) -> list[str]:
        """Take all remaining words."""
        words, self.words = self.words, []
        return words

    def take(self, name: str, default: str = "") -> str:
        """Take a setting, so that `end` no longer sees it."""
        return self.settings.pop(name, default)

    def number(self, name: str, default: int) -> int:
        """Take a setting that is a whole number."""
        text = self.take(name, str(default))
        try:
            return int(text)
        except ValueError:
            raise ValueError(f"{name}={text} is no whole number.") from None

    def choice(self, name: str, known: Sequence[str]) -> str:
        """Take a setting that is one of some words; the first is the default."""
        text = self.take(name, known[0])
        if text not in known:
            raise ValueError(f"{name}={text} is unknown; known: {', '.join(known)}.")
        return text

    def yes(self, name: str) -> bool:
        """Whether something is wanted; no where nothing is said."""
        return _YES[self.choice(name, ("no", "yes", "true", "false"))]

    def config(self) -> DataConfig:
        """Take the dataset (``dataset=D``, or D as the next word), its root and its cache.

        Raises:
            ValueError: unknown dataset.
        """
        if "dataset" not in self.settings and self.words[:1] and self.words[0] in KNOWN:
            self.settings["dataset"] = self.words.pop(0)
        name = self.take("dataset", "synthetic")
        known_dataset(name)
        return DataConfig(dataset=name, root=self.take("root"), cache=self.take("cache"))

    def end(self) -> None:
        """Raise a ValueError if an argument is left that no command has taken."""
        left = [*self.words, *sorted(self.settings)]
        if left:
            names = f" The datasets are {', '.join(sorted(KNOWN))}." if self.words else ""
            text = f"Cannot use {', '.join(left)} here; see python -m datasets --help."
            raise ValueError(text + names)
