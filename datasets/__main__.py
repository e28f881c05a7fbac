"""The door to the data: `python -m datasets draw|prepare|verify|splits`."""

import sys
from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from pathlib import Path

from datasets.cli import Arguments
from datasets.config import DataConfig, SyntheticConfig
from datasets.import_guard import check_is_ours
from datasets.location import data_root, spec_of
from datasets.prepare.archives import ARCHIVES, download
from datasets.prepare.copy import HOW
from datasets.prepare.pack import Packing, pack
from datasets.prepare.pipeline import (
    PrepareOptions,
    guidance,
    missing_parts,
    prepare_folder,
    prepare_published,
)
from datasets.prepare.verify import defects
from datasets.splits.generate import make_lists, own_list_defects
from datasets.splits.lists import published, published_splits, split_names, split_sizes
from datasets.splits.published import Unreachable, fetch_lists, import_lists, list_defects
from datasets.storage.open import open_storage
from datasets.synthetic.draw import ensure_drawn

DONE, WRONG, UNREACHABLE = 0, 2, 20
_DRAWN = tuple(entry.name for entry in fields(SyntheticConfig))
_EASIER = "u2pl_"  # protocols with this name label high-quality images only

HELP = """Bring data into place and prove that it is right.

python -m datasets draw [KEY=VALUE ...]             draw the synthetic dataset
python -m datasets download voc [to=DIR] [voc=URL] [sbd=URL]
                                                    both archives; a cut download goes on
python -m datasets prepare DATASET [root=DIR]       draw it, or say which files go where
python -m datasets prepare voc|cityscapes SOURCE... [root=DIR] [how=copy|link|symlink] [counts=any]
                                                    bring it from folders or archives, checked
python -m datasets prepare folder root=DIR [val=1of5] [seed=N]
                                                    prove your own folder, see dataset.yaml
python -m datasets verify [DATASET] [root=DIR]      read every file, report every defect
python -m datasets pack DATASET root=DIR to=DIR2|s3://BUCKET/PREFIX [decoded=yes] [shard_mib=64]
                                                    proved data as Parquet shards; then data.root=
python -m datasets splits list [DATASET]            names and sizes
python -m datasets splits fetch DATASET             download the published lists
python -m datasets splits import DATASET DIR        copy them from a `splits` folder
python -m datasets splits verify DATASET            prove those at the root
python -m datasets splits make DATASET labelled=1of16|n100|all [seed=N] [name=NAME]
                                                 [stratified=yes]   also --fraction 1/16 --seed N

DATASET  synthetic (default), voc, cityscapes, folder; dataset=DATASET says the same
root     folder of the dataset (default data/DATASET in the checkout); packed data lies at s3:// too
draw     num_train, num_val, width, height (pixels), num_classes, seed
SOURCE   VOCdevkit, benchmark_RELEASE (SBD), leftImg8bit, gtFine, the trees of UniMatch's README, or
         the archives themselves; they stay as they are. Again after a stop it goes on.
fetch    from=URL takes another copy of the repository's folder `splits`
Exit codes: 0 done; 2 usage, or the data is not right; 20 the server does not answer.
"""


def main(line: Sequence[str]) -> int:
    """Run one command; its exit code."""
    if not line or {"-h", "--help", "help"} & set(line):
        print(HELP, end="")
        return DONE if line else WRONG
    try:
        check_is_ours()
        arguments = Arguments.of(line)
        verb = arguments.word(f"one of {', '.join(VERBS)}")
        if verb not in VERBS:
            raise ValueError(f"Unknown command {verb!r}; known: {', '.join(VERBS)}.")
        return VERBS[verb](arguments)
    except (ValueError, RuntimeError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return UNREACHABLE if isinstance(error, Unreachable) else WRONG


def _say(text: str) -> None:
    print(text, flush=True)


def _draw(arguments: Arguments) -> int:
    config = arguments.data()
    if config.dataset != "synthetic":
        raise ValueError(f"{config.dataset} cannot be drawn; python -m datasets prepare says more.")
    default = SyntheticConfig()
    drawn = {name: arguments.number(name, getattr(default, name)) for name in _DRAWN}
    arguments.end()
    config = replace(config, drawn=SyntheticConfig(**drawn))
    is_new = ensure_drawn(data_root(config), config)
    count = drawn["num_train"] + drawn["num_val"]
    print(f"{'drew' if is_new else 'found'} {count} scenes at {data_root(config)}")
    return DONE


def _download(arguments: Arguments) -> int:
    name = arguments.settings["dataset"] = arguments.word("a dataset")
    config = arguments.data()
    if name in ("synthetic", "folder"):
        raise ValueError(f"There is nothing to download of {name}; known: {', '.join(ARCHIVES)}.")
    if name not in ARCHIVES:
        raise ValueError(
            f"{name} cannot be downloaded by a program.\n"
            + guidance(spec_of(config), data_root(config))
        )
    folder = Path(arguments.take("to", "downloads"))
    mirrors = {archive.key: arguments.take(archive.key) for archive in ARCHIVES[name]}
    arguments.end()
    found = [
        download(archive, folder, mirror=mirrors[archive.key], say=_say)
        for archive in ARCHIVES[name]
    ]
    print(f"next: python -m datasets prepare {name} {' '.join(map(str, found))}")
    return DONE


def _prepare(arguments: Arguments) -> int:
    dataset = arguments.settings["dataset"] = arguments.word("a dataset", default="synthetic")
    if dataset in ("synthetic", "folder"):
        return _draw(arguments) if dataset == "synthetic" else _prepare_folder(arguments)
    config, sources = arguments.data(), [Path(word) for word in arguments.rest()]
    if sources:
        return _prepare_published(arguments, config, sources)
    arguments.end()
    missing = missing_parts(config)
    if missing:
        print(guidance(spec_of(config), data_root(config)))
        print("Missing now:", *missing, sep="\n  ")
        return WRONG
    place = f"dataset={config.dataset} root={data_root(config)}"
    print(f"every file is there; now read them all: python -m datasets verify {place}")
    return DONE


def _prepare_published(arguments: Arguments, config: DataConfig, sources: list[Path]) -> int:
    how = arguments.choice("how", HOW)
    is_partial = arguments.choice("counts", ("all", "any")) == "any"
    arguments.end()
    wish = PrepareOptions(how=how, partial=is_partial)  # type: ignore[arg-type]  # one of HOW
    found = prepare_published(config, sources, wish, _say)
    if not list_defects(config):
        return _told(found, f"ready: data.root={data_root(config)}")
    place = f"dataset={config.dataset} root={data_root(config)}"
    return _told(found, f"next: python -m datasets splits fetch {place}")


def _prepare_folder(arguments: Arguments) -> int:
    validation, seed = arguments.take("val", "1of5"), arguments.number("seed", 0)
    config = arguments.data()
    arguments.end()
    found = prepare_folder(config, validation=validation, seed=seed, say=_say)
    root = data_root(config)
    return _told(found, f"ready: python -m trainer recipe=folder model=resnet50 data.root={root}")


def _told(found: Sequence[str], otherwise: str) -> int:
    """Print defects, or what comes next."""
    print(*found, sep="\n", end="\n" if found else "")
    print(f"{len(found)} defects" if found else otherwise)
    return WRONG if found else DONE


def _verify(arguments: Arguments) -> int:
    config = arguments.data()
    arguments.end()
    count = 0
    for text in defects(config, _say):
        count += 1
        print(text)
    print(f"{data_root(config)}: {f'{count} defects' if count else 'every file is sound'}")
    return WRONG if count else DONE


def _pack(arguments: Arguments) -> int:
    config = arguments.data()
    target = open_storage(arguments.take("to") or arguments.word("where to: to=DIR|s3://..."))
    is_decoded = arguments.yes("decoded")
    size = arguments.number("shard_mib", 64) * 2**20
    arguments.end()
    packing = Packing(is_decoded=is_decoded, shard_bytes=size)
    count = pack(config, target, packing, _say)
    print(f"{count} shards; use them with data.root={target.url}")
    return DONE


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
    _warn_of_easier(config)
    return DONE


def _import(arguments: Arguments) -> int:
    config = arguments.data()
    folder = Path(arguments.word("the folder `splits` of a checkout of UniMatch"))
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
    if config.dataset == "synthetic":
        print("the splits of synthetic are generated; there is nothing to verify")
        return DONE
    is_own = bool(split) and split not in published_splits(config.dataset)
    wrong = [] if is_own else list_defects(config, split)
    wrong += own_list_defects(config, split) if is_own or not split else []
    if not wrong and not split_names(config):
        wrong = [f"there are no lists at {data_root(config) / 'splits'}; make them first"]
    kind = "are the published ones" if published(config.dataset) else "divide the images"
    print(*(wrong or [f"the lists {kind}"]), sep="\n")
    _warn_of_easier(config)
    return WRONG if wrong else DONE


def _warn_of_easier(config: DataConfig) -> None:
    if any(name.startswith(_EASIER) for name in split_names(config)):
        print(
            f"note: {_EASIER}* is a protocol of its own and easier (its labels are of high quality "
            "only); compare it with nothing but itself"
        )


def _make(arguments: Arguments) -> int:
    part = arguments.take("labelled") or arguments.take("fraction")
    seed, stratify = arguments.number("seed", 0), arguments.yes("stratified")
    name, config = arguments.take("name"), arguments.data()
    arguments.end()
    if config.dataset == "synthetic":
        raise ValueError("Splits of synthetic need no lists; use data.split=1of16 or n12.")
    name = make_lists(config, part=part, seed=seed, name=name, stratify=stratify)
    print(f"data.split={name}")
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
    "download": _download,
    "prepare": _prepare,
    "verify": _verify,
    "pack": _pack,
    "splits": _splits,
}

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
