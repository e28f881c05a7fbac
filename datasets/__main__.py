"""The door to the data: `python -m datasets draw|prepare|verify|splits`."""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path

from datasets.catalog import data_root, spec_of
from datasets.config import DataConfig, DrawnConfig
from datasets.draw import ensure_drawn
from datasets.identity import check_is_ours
from datasets.lists import Unreachable, fetch_lists, import_lists, list_defects, make_lists
from datasets.splits import published, split_names, split_sizes
from datasets.verify import defects, guidance, missing_parts

DONE, WRONG, UNREACHABLE = 0, 2, 20
_DRAWN = tuple(entry.name for entry in fields(DrawnConfig))

HELP = """Bring data into place and prove that it is right.

python -m datasets draw [KEY=VALUE ...]             draw the synthetic dataset
python -m datasets prepare DATASET [root=DIR]       draw it, or say which files go where
python -m datasets verify [dataset=D] [root=DIR]    read every file, report every defect
python -m datasets splits list [dataset=D]          names and sizes
python -m datasets splits fetch dataset=D           download the published lists
python -m datasets splits import DIR dataset=D      copy them from a `splits` folder
python -m datasets splits verify dataset=D          prove those at the root
python -m datasets splits make dataset=D labelled=1of16|n100 [seed=N] [name=NAME]

DATASET  synthetic (default), voc, cityscapes
root     folder of the dataset; default data/DATASET in the checkout
draw     num_train, num_val, width, height (pixels), num_classes, seed
fetch    from=URL takes another copy of the repository's folder `splits`
Exit codes: 0 done; 2 usage, or the data is not right; 20 the server does not answer.
"""


@dataclass
class Arguments:
    """A command line: words, and settings that commands take one by one."""

    words: list[str]
    settings: dict[str, str] = field(default_factory=dict)

    def word(self, what: str, default: str = "") -> str:
        """The next word of the command."""
        if not self.words and not default:
            raise ValueError(f"The command lacks {what}; see python -m datasets --help.")
        return self.words.pop(0) if self.words else default

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

    def data(self) -> DataConfig:
        """Which dataset, where."""
        config = DataConfig(dataset=self.take("dataset", "synthetic"), root=self.take("root"))
        spec_of(config)
        return config

    def end(self) -> None:
        """Refuse what no command took."""
        left = [*self.words, *sorted(self.settings)]
        if left:
            raise ValueError(f"Cannot use {', '.join(left)} here; see python -m datasets --help.")


def main(line: Sequence[str]) -> int:
    """Run one command; its exit code."""
    if not line or {"-h", "--help", "help"} & set(line):
        print(HELP, end="")
        return DONE if line else WRONG
    try:
        check_is_ours()
        arguments = _parsed(line)
        verb = arguments.word(f"one of {', '.join(VERBS)}")
        if verb not in VERBS:
            raise ValueError(f"Unknown command {verb!r}; known: {', '.join(VERBS)}.")
        return VERBS[verb](arguments)
    except (ValueError, RuntimeError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return UNREACHABLE if isinstance(error, Unreachable) else WRONG


def _parsed(line: Sequence[str]) -> Arguments:
    pairs = [entry.split("=", 1) for entry in line if "=" in entry]
    return Arguments([entry for entry in line if "=" not in entry], dict(pairs))


def _draw(arguments: Arguments) -> int:
    config = arguments.data()
    if config.dataset != "synthetic":
        raise ValueError(f"{config.dataset} cannot be drawn; python -m datasets prepare says more.")
    default = DrawnConfig()
    drawn = {name: arguments.number(name, getattr(default, name)) for name in _DRAWN}
    arguments.end()
    config = replace(config, drawn=DrawnConfig(**drawn))
    is_new = ensure_drawn(data_root(config), config)
    count = drawn["num_train"] + drawn["num_val"]
    print(f"{'drew' if is_new else 'found'} {count} scenes at {data_root(config)}")
    return DONE


def _prepare(arguments: Arguments) -> int:
    arguments.settings["dataset"] = arguments.word("a dataset", default="synthetic")
    if arguments.settings["dataset"] == "synthetic":
        return _draw(arguments)
    config = arguments.data()
    arguments.end()
    place = f"dataset={config.dataset} root={data_root(config)}"
    missing = missing_parts(config)
    if missing:
        print(guidance(spec_of(config), data_root(config)))
        print("Missing now:", *missing, sep="\n  ")
        return WRONG
    print(f"every file is there; now read them all: python -m datasets verify {place}")
    return DONE


def _verify(arguments: Arguments) -> int:
    config = arguments.data()
    arguments.end()
    count = 0
    for text in defects(config):
        count += 1
        print(text)
    print(f"{data_root(config)}: {f'{count} defects' if count else 'every file is sound'}")
    return WRONG if count else DONE


def _splits(arguments: Arguments) -> int:
    action = arguments.word(f"one of {', '.join(SPLIT_ACTIONS)}")
    if action not in SPLIT_ACTIONS:
        raise ValueError(f"Unknown `splits {action}`; known: {', '.join(SPLIT_ACTIONS)}.")
    return SPLIT_ACTIONS[action](arguments)


def _list(arguments: Arguments) -> int:
    config = arguments.data()
    arguments.end()
    print(f"{'split':<16} {'labelled':>8} {'unlabelled':>10} {'validation':>10}")
    for name in split_names(config):
        sizes = split_sizes(replace(config, split=name))
        print(f"{name:<16} {sizes[0]:>8} {sizes[1]:>10} {sizes[2]:>10}")
    return DONE


def _import(arguments: Arguments) -> int:
    folder = Path(arguments.word("the folder `splits` of a checkout of UniMatch"))
    config = arguments.data()
    arguments.end()
    brought = import_lists(config, folder)
    print(f"{len(brought)} published lists at {data_root(config) / 'splits'}")
    return DONE


def _fetch(arguments: Arguments) -> int:
    address, config = arguments.take("from"), arguments.data()
    arguments.end()
    brought = fetch_lists(config, address)
    print(f"{len(brought)} published lists at {data_root(config) / 'splits'}")
    return DONE


def _prove(arguments: Arguments) -> int:
    split, config = arguments.take("split"), arguments.data()
    arguments.end()
    if not published(config.dataset):
        print(f"the splits of {config.dataset} are generated; there is nothing to verify")
        return DONE
    wrong = list_defects(config, split)
    print(*(wrong or ["the lists are the published ones"]), sep="\n")
    return WRONG if wrong else DONE


def _make(arguments: Arguments) -> int:
    part, seed = arguments.take("labelled"), arguments.number("seed", 0)
    name, config = arguments.take("name"), arguments.data()
    arguments.end()
    if config.dataset == "synthetic":
        raise ValueError("Splits of synthetic need no lists; use data.split=1of16 or n12.")
    print(f"data.split={make_lists(config, part=part, seed=seed, name=name)}")
    return DONE


SPLIT_ACTIONS: dict[str, Callable[[Arguments], int]] = {
    "list": _list,
    "fetch": _fetch,
    "import": _import,
    "verify": _prove,
    "make": _make,
}
VERBS: dict[str, Callable[[Arguments], int]] = {
    "draw": _draw,
    "prepare": _prepare,
    "verify": _verify,
    "splits": _splits,
}

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
