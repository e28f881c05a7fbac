"""What earlier processes composed is what Hydra composes now."""

import os
import shutil
import subprocess
import sys
from dataclasses import fields, is_dataclass
from enum import Enum
from inspect import getfile
from pathlib import Path

import pytest

from datasets import config as data_config
from tests.support.lab import CHECKOUT
from trainer.config import composed
from trainer.config.compose import CONFIG_FOLDER, choices, compose
from trainer.config.composed import keep, kept
from trainer.config.fingerprint import config_json
from trainer.config.help import dataclass_in
from trainer.config.schema import TrainConfig

WORDS = ("method=ps_mt", "optim.lr=1", "model.dilations=[3,6]")
FILES = ("the presets, unchanged",)
PROGRAM = """
import sys
from trainer.config.compose import compose
from trainer.config.fingerprint import config_json
print(config_json(compose(sys.argv[1:])), bool({"hydra", "omegaconf"} & set(sys.modules)))
"""


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "ipixmatch" / "composed"


def composed_by_another_process(*words: str) -> tuple[str, str]:
    words = (sys.executable, "-c", PROGRAM, *words)
    done = subprocess.run(words, cwd=CHECKOUT, capture_output=True, text=True, check=True)
    text, used_hydra = done.stdout.rsplit(maxsplit=1)
    return text, used_hydra


def test_a_second_process_reads_what_the_first_composed() -> None:
    first, second = (composed_by_another_process(*WORDS) for _ in range(2))

    assert (first[1], second[1]) == ("True", "False")
    assert second[0] == first[0] == config_json(compose(WORDS))


@pytest.mark.parametrize("recipe", choices("recipe"))
def test_a_configuration_comes_back_bit_for_bit(recipe: str) -> None:
    config = compose([f"recipe={recipe}", *WORDS])

    keep(WORDS, CONFIG_FOLDER, FILES, config)

    again = kept(WORDS, CONFIG_FOLDER, FILES)
    assert again == config
    assert repr(again) == repr(config)


def test_other_words_and_other_presets_are_composed_anew(tmp_path: Path) -> None:
    shutil.copytree(CONFIG_FOLDER, tmp_path / "sweeps")
    keep(WORDS, CONFIG_FOLDER, FILES, compose(WORDS))
    assert kept(WORDS, tmp_path / "sweeps", FILES)  # a copy of the same presets

    preset = tmp_path / "sweeps" / "loss" / "kl.yaml"
    times = preset.stat().st_atime_ns, preset.stat().st_mtime_ns
    preset.write_text(preset.read_text().replace("distance: kl", "distance: cr"))
    os.utime(preset, ns=times)  # the same size and time: only the content tells

    assert kept(WORDS, tmp_path / "sweeps", ("edited",)) is None
    assert kept(WORDS[:1], CONFIG_FOLDER, FILES) is None


@pytest.mark.parametrize("damage", ["", "{}", "cut", "other bits"])
def test_a_damaged_file_counts_as_none(cache: Path, damage: str) -> None:
    keep(WORDS, CONFIG_FOLDER, FILES, compose(WORDS))
    (file,) = cache.iterdir()
    text = file.read_text()
    assert '"lr":1.0' in text

    changed = {"cut": text[:-40], "other bits": text.replace('"lr":1.0', '"lr":2.0')}
    file.write_text(changed.get(damage, damage))

    assert kept(WORDS, CONFIG_FOLDER, FILES) is None


def test_a_cache_that_cannot_be_written_costs_no_composition(cache: Path) -> None:
    cache.parent.mkdir(parents=True)
    cache.write_text("a file where the folder should be")

    assert compose(WORDS).optim.lr == 1.0


def test_the_oldest_files_go_first(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(composed, "MOST_FILES", 2)
    config = compose(WORDS)

    for number in range(4):
        keep((str(number),), CONFIG_FOLDER, FILES, config)

    there = [bool(kept((str(number),), CONFIG_FOLDER, FILES)) for number in range(4)]
    assert there == [False, False, True, True]


def test_the_sources_hold_every_part_of_the_schema() -> None:
    hashed = {Path(data_config.__file__), *Path(composed.__file__).parent.glob("*.py")}

    def files_of(kind: type) -> set[Path]:
        files = {Path(getfile(kind))}
        for item in fields(kind) if is_dataclass(kind) else ():
            inner = dataclass_in(item.type)
            if inner or (isinstance(item.type, type) and issubclass(item.type, Enum)):
                files |= files_of(inner or item.type)
        return files

    assert files_of(TrainConfig) <= hashed
