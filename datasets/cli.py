"""The command line of `python -m datasets`: words, and settings that commands take one by one.

Not argparse: its options begin with dashes, while here `key=value` is the common form (as in Hydra,
of which the trainer's command line is made), a dataset may be a word or a setting, and what no
command takes is refused by its own name.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from datasets.config import DataConfig
from datasets.known.registry import KNOWN, known_dataset

_YES = {"yes": True, "no": False, "true": True, "false": False}


@dataclass
class Arguments:
    """What is left of a command line."""

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
        """The next word of the command."""
        if not self.words and not default:
            raise ValueError(f"The command lacks {what}; see python -m datasets --help.")
        return self.words.pop(0) if self.words else default

    def rest(self) -> list[str]:
        """All other words."""
        words, self.words = self.words, []
        return words

    def take(self, name: str, default: str = "") -> str:
        """A setting, once."""
        return self.settings.pop(name, default)

    def number(self, name: str, default: int) -> int:
        """A whole number."""
        text = self.take(name, str(default))
        try:
            return int(text)
        except ValueError:
            raise ValueError(f"{name}={text} is no whole number.") from None

    def choice(self, name: str, known: Sequence[str]) -> str:
        """One of some words; the first where nothing is said."""
        text = self.take(name, known[0])
        if text not in known:
            raise ValueError(f"{name}={text} is unknown; known: {', '.join(known)}.")
        return text

    def yes(self, name: str) -> bool:
        """Whether something is wanted; no where nothing is said."""
        return _YES[self.choice(name, ("no", "yes", "true", "false"))]

    def config(self) -> DataConfig:
        """Which dataset, where: ``dataset=D``, or D as the next word.

        Raises:
            ValueError: unknown dataset.
        """
        if "dataset" not in self.settings and self.words[:1] and self.words[0] in KNOWN:
            self.settings["dataset"] = self.words.pop(0)
        name = self.take("dataset", "synthetic")
        known_dataset(name)
        return DataConfig(dataset=name, root=self.take("root"), cache=self.take("cache"))

    def end(self) -> None:
        """Refuse what no command took."""
        left = [*self.words, *sorted(self.settings)]
        if left:
            names = f" The datasets are {', '.join(sorted(KNOWN))}." if self.words else ""
            text = f"Cannot use {', '.join(left)} here; see python -m datasets --help."
            raise ValueError(text + names)
