from dataclasses import dataclass, field
from enum import Enum

import pytest

from datasets.config import option
from orchestrator.options import LaunchOptions
from trainer.config.compose import field_names
from trainer.config.help import help_of_fields
from trainer.config.schema import TrainConfig


class Taste(Enum):
    """How it tastes."""

    sweet = "sweet"
    sour = "sour"


@dataclass
class Inner:
    size: float = option(1.5, "of the fruit, cm")


@dataclass
class Outer:
    taste: Taste = Taste.sour
    ripe: bool = option(True, "may be eaten")
    place: str = option("bowl", "", choices=("tree", "bowl"))
    inner: Inner = field(default_factory=Inner)


def test_a_setting_tells_default_choices_and_the_sentence_of_its_field():
    shown = {item.name: (item.default, item.choices, item.note) for item in help_of_fields(Outer)}

    assert shown == {
        "taste": ("sour", ("sweet", "sour"), "How it tastes"),
        "ripe": ("true", (), "may be eaten"),
        "place": ("bowl", ("tree", "bowl"), ""),
        "inner.size": ("1.5", (), "of the fruit, cm"),
    }


@pytest.mark.parametrize("schema", [TrainConfig, LaunchOptions])
def test_every_setting_explains_itself_in_lines_of_100_characters(schema):
    for item in help_of_fields(schema):
        assert item.note, f"{item.name} needs a sentence"
        assert all(len(line) <= 100 for line in item.lines())


def test_the_help_lists_exactly_the_settings_that_the_door_accepts():
    assert [item.name for item in help_of_fields(TrainConfig)] == field_names()
