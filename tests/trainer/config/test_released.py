"""`track=released`: the settings of released codes, their page, and the common track."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.tiny_config import tiny_config
from trainer.config.compose import CONFIG_FOLDER, compose
from trainer.config.fingerprint import config_json, differences, fingerprint, identity, track
from trainer.run import train

FILES = sorted((CONFIG_FOLDER / "released").glob("*.yaml"))
PAGE = Path(__file__).resolve().parents[3] / "docs/released.md"


def settings_of(file: Path) -> dict[str, Any]:
    """The settings of a file by their dotted names."""

    def flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
        named: dict[str, Any] = {}
        for name, value in values.items():
            inner = isinstance(value, dict)
            named |= flat(value, f"{prefix}{name}.") if inner else {f"{prefix}{name}": value}
        return named

    return flat(yaml.safe_load(file.read_text()))


def on_the_page() -> dict[str, dict[str, Any]]:
    """The settings of the tables of docs/released.md, by the name of their file."""
    found: dict[str, dict[str, Any]] = {}
    for section in PAGE.read_text().split("\n## ")[1:]:
        method = section.splitlines()[0]
        for line in section.splitlines():
            if not line.startswith("| `"):
                continue
            name, *values = (cell.strip().strip("`") for cell in line.split(" | ")[:3])
            for recipe, value in zip(("voc", "cityscapes"), values, strict=True):
                if value not in ("as common", "none"):
                    settings = found.setdefault(f"{method}_{recipe}", {})
                    settings[name.removeprefix("| `")] = yaml.safe_load(value)
    return found


def test_the_page_lists_what_the_files_set() -> None:
    assert on_the_page() == {file.stem: settings_of(file) for file in FILES}


def words(file: Path) -> list[str]:
    method, _, recipe = file.stem.rpartition("_")
    return [f"method={method}", f"recipe={recipe}", "model=resnet50"]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_file_sets_what_it_says_and_nothing_else(file: Path) -> None:
    common, released = compose(words(file)), compose([*words(file), "track=released"])

    changed = {line.partition(":")[0] for line in differences(config_json(common), released)}

    assert {"method.track"} < changed <= {"method.track", *settings_of(file)}
    for name, value in settings_of(file).items():
        part: Any = released
        for field in name.split("."):
            part = getattr(part, field)
        found = list(part) if isinstance(part, tuple) else getattr(part, "value", part)
        assert found == value, name
    assert (track(config_json(common)), track(config_json(released))) == ("common", "released")
    assert fingerprint(common) != fingerprint(released)
    assert "track" not in identity(common)["method"]


def test_the_command_line_has_the_last_word() -> None:
    cell = ["method=cac", "recipe=cityscapes", "model=resnet50"]
    config = compose([*cell, "optim.lr=0.5", "track=released", "optim.epochs=3"])

    assert (config.optim.lr, config.optim.epochs, config.data.crop) == (0.5, 3, 720)


def test_both_forms_of_cps_have_its_settings() -> None:
    config = compose(["recipe=voc", "model=resnet50", "method=cps_no_cutmix", "track=released"])

    assert (config.data.crop, config.optim.weight_decay) == (512, 0.0004)


@pytest.mark.parametrize(
    ("setting", "text"),
    [
        (["method=unimatch_star"], "of method=unimatch_star on recipe=synthetic, only of .*cac"),
        (["method=mean_teacher", "recipe=cityscapes"], r"mean_teacher \(voc\)"),
        (["method=cps", "recipe=voc", "optim.lrr=1"], "Did you mean optim.lr"),
    ],
)
def test_what_has_no_settings_is_refused(setting: list[str], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        compose([*setting, "model=resnet50", "track=released"])


def test_another_track_is_unknown() -> None:
    with pytest.raises(ValueError, match=r"Unknown track 'paper'; known: common, released\."):
        compose(["track=paper"])


@pytest.mark.parametrize(
    "file", [f for f in FILES if f.stem.endswith("_voc")], ids=lambda file: file.stem
)
def test_a_small_run_trains_with_the_settings_of_a_code(
    file: Path, drawn_root: Path, tmp_path: Path
) -> None:
    own = [
        f"{name}={str(value).lower() if isinstance(value, bool) else value}".replace(" ", "")
        for name, value in settings_of(file).items()
        if name not in ("data.crop", "data.scale_base", "model.dilations", "optim.batch")
    ]
    small = ["optim.epochs=1", "model.low_level_channels=4", "model.blocks=[1,1,1,1]"]

    summary = train(
        tiny_config(drawn_root, f"method={file.stem.removesuffix('_voc')}", *own, *small), tmp_path
    )

    assert summary.status == "done"
