"""What else `python -m trainer` does: predict, export, weights."""

from collections.abc import Callable
from pathlib import Path

from trainer.compose import choices
from trainer.config import RunConfig

Say = Callable[[str], None]


def run_verb(verb: str, words: list[str], say: Say) -> None:
    """Carry out one verb.

    Args:
        verb: a key of VERBS.
        words: what follows it on the command line.
        say: given each line of output.

    Raises:
        ValueError: a wrong argument, or a file that is not what it should be.
        ConnectionError: a server does not answer.
    """
    VERBS[verb](words, say)


def _predict(words: list[str], say: Say) -> None:
    given = _settings(words, {"checkpoint": "", "images": "", "out": "", "device": "auto"})
    from trainer.loading import load_trained
    from trainer.predict import predict_folder
    from trainer.ranks import join

    device = join(RunConfig(device=given["device"])).device
    trained = load_trained(Path(given["checkpoint"]))
    for line in predict_folder(trained, Path(given["images"]), Path(given["out"]), device.type):
        say(line)


def _export(words: list[str], say: Say) -> None:
    given = _settings(words, {"run": "", "out": ""})
    from trainer.export import export

    export(Path(given["run"]), Path(given["out"]))
    say(f"wrote {given['out']}")


def _weights(words: list[str], say: Say) -> None:
    from trainer.weights import bring, fetch

    action, *rest = words or [""]
    if action == "import" and len(rest) == 2:
        path, found = bring(rest[0], Path(rest[1]))
        say(f"{path}: {found.matched} entries matched, sha256 {found.sha256}")
    elif action == "fetch" and rest:
        given = _settings(rest[1:], {"source": "timm", "address": "-"})
        address = "" if given["address"] == "-" else given["address"]
        say(f"wrote {fetch(rest[0], source=given['source'], address=address, say=say)}")
    else:
        raise ValueError(
            "usage: python -m trainer weights fetch BACKBONE [source=timm|torchvision] "
            "[address=URL], or weights import BACKBONE FILE; backbones: "
            f"{', '.join(choices('model'))}."
        )


def _settings(words: list[str], defaults: dict[str, str]) -> dict[str, str]:
    """key=value words over defaults; an empty default must be given."""
    given = dict(defaults)
    for word in words:
        key, separator, value = word.partition("=")
        if not separator or key not in defaults:
            raise ValueError(f"{word!r} is no setting here; known: {', '.join(defaults)}.")
        given[key] = value
    missing = [key for key, value in given.items() if not value]
    if missing:
        raise ValueError(f"{' and '.join(missing)} must be given, as in {missing[0]}=PATH.")
    return given


VERBS: dict[str, Callable[[list[str], Say], None]] = {
    "predict": _predict,
    "export": _export,
    "weights": _weights,
}
