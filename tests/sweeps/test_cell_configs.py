"""The configuration of every cell."""

import subprocess
import sys
from dataclasses import replace

import pytest

from sweeps.cell import Cell
from sweeps.cell_configs import cell_configs
from sweeps.grid import load_grid
from trainer.config.compose import compose

CELL = Cell("voc", "p1_1of16", "resnet50", 321, "unimatch_star", "kl")


def test_every_cell_of_the_paper_has_a_configuration_of_its_key():
    cells = load_grid("paper").cells

    configs = cell_configs(cells)

    assert list(configs) == list(cells)
    assert all(config.key == cell.key for cell, config in configs.items())


def test_a_cell_gets_what_composing_it_alone_gives():
    axes = ["recipe=voc", "model=resnet50", "method=unimatch_star", "loss=kl"]
    alone = compose([*axes, "data.crop=513", "data.split=p1_1of4", "seed=7", "optim.epochs=3"])
    cell = replace(CELL, crop=513, split="p1_1of4", seed=7)

    assert cell_configs([CELL, cell], ["optim.epochs=3"])[cell] == alone


def test_an_override_reaches_every_cell():
    found = cell_configs(load_grid("demo").cells, ["optim.epochs=2"])

    assert {config.optim.epochs for config in found.values()} == {2}


@pytest.mark.parametrize(
    ("override", "cure"),
    [("data.split=1of2", "'split'"), ("seed=1", "'seeds'"), ("model=resnet50", "'backbone'")],
)
def test_an_override_of_what_the_cell_says_is_refused(override, cure):
    with pytest.raises(ValueError, match=f"would change what every cell .* Write {cure}"):
        cell_configs([CELL], [override])


@pytest.mark.parametrize("root", ["/not/there", "s3://not-there/data"])
def test_lists_of_ones_own_are_not_asked_for_where_results_are_read(root):
    cell = replace(CELL, split="mine")

    configs = cell_configs([cell], [f"data.root={root}"], needs_data=False)

    assert configs[cell].data.split == "mine"
    with pytest.raises(ValueError, match="Unknown split 'mine' of voc"):
        cell_configs([cell], ["data.root=/not/there"])


def test_a_folder_for_cells_that_have_their_own_is_refused():
    with pytest.raises(ValueError, match="every cell has a folder of its own"):
        cell_configs([CELL], ["run.folder=a"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"split": "p1_1of6"}, r"Cell voc\.p1_1of6\..*: Unknown split 'p1_1of6' of voc; known: p1"),
        ({"backbone": "resnet5"}, "Unknown model 'resnet5'; known: efficientnet_lite0"),
        ({"recipe": "coco"}, "Unknown recipe 'coco'; known: cityscapes"),
        ({"method": "supervised"}, "loss=kl needs unlabelled images"),
        ({"crop": 1}, "data.crop=1 is out of range"),
    ],
)
def test_a_cell_that_cannot_be_is_named(change, message):
    with pytest.raises(ValueError, match=message):
        cell_configs([replace(CELL, **change)])


def test_planning_imports_neither_torch_nor_ray():
    probe = "import sys, sweeps.cell_configs, orchestrator.printers.write; print(*sys.modules)"

    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)

    assert not {"torch", "ray"} & set(done.stdout.split())
