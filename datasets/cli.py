"""The command line of `python -m datasets`: words, and settings that commands take one by one.

`VerbHelp` is what `--help` prints about a verb, here as in the two other command lines.

argparse is not used, because its options begin with dashes. Here `key=value` is the usual form, as
in Hydra, which reads the trainer's command line; a dataset may be a word or a setting; and an
argument that no command has taken is named in an error.
"""

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from datasets.config import DataConfig
from datasets.known.registry import KNOWN, known_dataset
from datasets.wording import did_you_mean

HELP_FLAGS = frozenset({"-h", "--help"})

_WIDTH = 100  # of a line of help
_INDENT = 34  # where the notes begin
_YES = {"yes": True, "no": False, "true": True, "false": False}


@dataclass(frozen=True)
class VerbHelp:
    """What `--help` says about one verb; the lists of all verbs are made of these as well.

    Attributes:
        forms: the words that may follow the verb, each with what it then does.
        settings: each setting or flag of the verb with its meaning.
        examples: the words of commands after the program's name.
        exits: what each exit code means.
    """

    forms: tuple[tuple[str, str], ...]
    examples: tuple[str, ...]
    exits: Mapping[int, str]
    settings: tuple[tuple[str, str], ...] = ()

    def text(self, program: str, verb: str, *, more: Sequence[str] = ()) -> str:
        """The help of the verb.

        Args:
            program: such as `python -m datasets`.
            verb: its word.
            more: lines about settings that it shares with other verbs.
        """
        starts = ["usage: ", *[" " * 7] * len(self.forms)]
        lines = []
        for start, (form, note) in zip(starts, self.forms, strict=False):
            lines += [f"{start}{program} {verb} {form}".rstrip(), f"{'':9}{note}"]
        if self.settings:
            lines += ["", *(line for pair in self.settings for line in aligned(*pair))]
        lines += [*(["", *more] if more else []), "", "Examples:"]
        lines += [f"  {program} {example}" for example in self.examples]
        lines += ["", "Exit codes:"]
        lines += [f"  {code:<3} {meaning}" for code, meaning in sorted(self.exits.items())]
        return "\n".join(lines) + "\n"


def aligned(start: str, note: str, indent: int = _INDENT) -> Iterator[str]:
    """A line of help: what to type, and from column `indent` on what it means, in lines of 100."""
    start = f"  {start}"
    rest = textwrap.wrap(note, _WIDTH - indent, break_on_hyphens=False)
    if len(start) >= indent or not rest:
        yield start
    else:
        yield f"{start:{indent}}{rest.pop(0)}"
    yield from (" " * indent + line for line in rest)


@dataclass
class Arguments:
    """The arguments of a command line that no command has taken yet, and the names it asked for."""

    words: list[str]
    settings: dict[str, str] = field(default_factory=dict)
    taken: list[str] = field(default_factory=list)

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
        self.taken.append(name)
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
            known = [*KNOWN] if self.words else [*self.taken]
            is_folder = bool(self.words) and Path(left[0]).is_dir()
            near = f" Did you mean root={left[0]}?" if is_folder else did_you_mean(left[0], known)
            names = f" The datasets are {', '.join(sorted(KNOWN))}." if self.words else ""
            text = f"Cannot use {', '.join(left)} here.{near} See python -m datasets --help."
            raise ValueError(text + names)
