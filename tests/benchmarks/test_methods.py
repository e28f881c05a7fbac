"""No step of a method computes more than its passes through networks imply; counted, not timed."""

import pytest
import torch

from benchmarks import methods
from benchmarks.methods import DEFAULTS, PASSES, Flops, configured, implied, operations
from sweeps.table import load_table
from trainer.method_registry import METHODS

SMALL = DEFAULTS | {"model": "resnet14_w16"}
EVERY = list(dict.fromkeys(cell.method for cell in load_table("seamless").cells))


def test_operations_of_a_convolution_are_those_counted_by_hand() -> None:
    layer = torch.nn.Conv2d(3, 5, kernel_size=3, padding=1, bias=False)
    images = torch.empty(2, 3, 7, 7)  # no gradient flows to them

    with Flops() as counter:
        layer(images).sum().backward()

    forward = 2 * (2 * 5 * 7 * 7) * (3 * 3 * 3)  # products and sums
    assert counter.total == 2 * forward  # and as many for the gradient of the weights


def test_every_method_says_its_passes_and_is_in_the_table() -> None:
    configs = [configured(name, SMALL, crop="65", batch="2", is_narrow=False) for name in EVERY]

    assert set(PASSES) == set(METHODS)
    assert {config.method.algorithm for config in configs} == set(METHODS)


@pytest.mark.parametrize("method", EVERY)
def test_a_step_computes_at_most_a_tenth_more_than_its_passes_imply(method: str) -> None:
    config = configured(method, SMALL, crop="129", batch="2", is_narrow=False)

    flops, kernels = operations(config, images=2)

    assert 0.99 < flops / implied(config, images=2) < 1.1
    assert kernels > 0


def test_the_table_has_counts_and_ratios_of_each_method(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["model=resnet14_w8", "crop=33", "batch=2", "timed_crop=33", "rounds=1"]

    methods.main([*words, "methods=supervised_star,mt_cutmix,u2pl"])  # the last has constants

    lines = [line.split("|") for line in capsys.readouterr().out.splitlines() if "|" in line]
    rows = {line[1].strip(): [entry.strip() for entry in line[2:-1]] for line in lines[2:]}
    assert list(rows) == ["supervised_star", "mt_cutmix", "u2pl"]
    assert rows["supervised_star"][0] == "1 trained"
    assert rows["supervised_star"][2:4] == ["1.00", "1.00"]
    assert rows["mt_cutmix"][0] == "2 trained, 2 predicted"
    assert rows["mt_cutmix"][2:5] == ["1.00", "2.67", "-"]  # UniMatch* was not asked for
    assert rows["mt_cutmix"][5].endswith(")")
