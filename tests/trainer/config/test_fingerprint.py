"""What two runs of one experiment share, whatever their seeds and machines."""

import json
from dataclasses import asdict, replace

from datasets.config import StrongViewConfig
from sweeps.cell_configs import cell_configs
from sweeps.grid import load_grid
from tests.support.result_rows import DRAWN
from trainer.config.fingerprint import (
    config_json,
    differences,
    fingerprint,
    identity,
    settings_sha256,
)
from trainer.config.method_settings import CpsConfig
from trainer.config.schema import Absent

CONFIG = next(iter(cell_configs(load_grid(DRAWN).cells[:1]).values()))


def hash_of(config):
    return settings_sha256(config_json(config))


def test_seeds_and_machines_do_not_matter():
    other = replace(CONFIG, seed=3, run=replace(CONFIG.run, threads=7, log_steps=99))

    assert hash_of(other) == hash_of(CONFIG)


def test_what_moves_the_numbers_does():
    other = replace(CONFIG, optim=replace(CONFIG.optim, lr=0.123))

    assert hash_of(other) != hash_of(CONFIG)


def test_settings_of_another_method_are_no_part_of_a_cell():
    other = replace(CONFIG, method=replace(CONFIG.method, cps=CpsConfig(weight=3.0)))
    cross = replace(other, method=replace(other.method, algorithm="cps"))
    plain = replace(cross, method=replace(cross.method, cps=CpsConfig()))

    assert hash_of(other) == hash_of(CONFIG)
    assert fingerprint(other) == fingerprint(CONFIG)
    assert differences(config_json(CONFIG), other) == []
    assert hash_of(cross) != hash_of(plain)
    assert fingerprint(cross) != fingerprint(plain)
    assert differences(config_json(plain), cross) == ["method.cps.weight: 1.0 -> 3.0"]


def test_a_text_that_is_no_json_has_a_hash_all_the_same():
    assert len(settings_sha256("no json")) == 64


def test_a_choice_added_later_moves_neither_hash_while_it_has_its_neutral_value():
    before = config_json(CONFIG).replace('"absent":"zero",', "")
    other = replace(CONFIG, evaluation=replace(CONFIG.evaluation, absent=Absent.skip))

    assert '"absent"' not in before
    assert settings_sha256(before) == hash_of(CONFIG) != hash_of(other)
    assert fingerprint(CONFIG) != fingerprint(other)


def test_a_group_added_later_moves_no_hash_but_by_the_fields_that_were_set():
    strong = StrongViewConfig(hue=0.1)
    other = replace(CONFIG, data=replace(CONFIG.data, strong=strong))
    before = json.loads(config_json(CONFIG))
    assert before["data"].pop("strong") == asdict(StrongViewConfig())
    old = json.dumps(before, sort_keys=True, separators=(",", ":"))

    assert "strong" not in identity(CONFIG)["data"]
    assert identity(other)["data"]["strong"] == {"hue": 0.1}
    assert settings_sha256(old) == hash_of(CONFIG) != hash_of(other)
    assert differences(old, CONFIG) == []
    assert differences(old, other) == ["data.strong.hue: 0.25 -> 0.1"]
