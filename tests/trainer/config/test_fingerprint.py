"""What two runs of one experiment share, whatever their seeds and machines."""

from dataclasses import replace

from sweeps.cell_configs import cell_configs
from sweeps.grid import load_grid
from trainer.config.fingerprint import config_json, settings_sha256

CONFIG = next(iter(cell_configs(load_grid("demo").cells[:1]).values()))


def hash_of(config):
    return settings_sha256(config_json(config))


def test_seeds_and_machines_do_not_matter():
    other = replace(CONFIG, seed=3, run=replace(CONFIG.run, threads=7, log_steps=99))

    assert hash_of(other) == hash_of(CONFIG)


def test_what_moves_the_numbers_does():
    other = replace(CONFIG, optim=replace(CONFIG.optim, lr=0.123))

    assert hash_of(other) != hash_of(CONFIG)


def test_a_text_that_is_no_json_has_a_hash_all_the_same():
    assert len(settings_sha256("no json")) == 64
