"""A cell and its key."""

import pytest
from hypothesis import given

from sweeps.cell import Cell
from tests.support.strategies import cells


@given(cells)
def test_the_key_of_a_cell_parses_back_to_the_cell(cell):
    assert Cell.parse(cell.key) == cell


@given(cells, cells)
def test_two_cells_share_a_key_only_when_they_are_equal(left, right):
    assert (left.key == right.key) == (left == right)


@pytest.mark.parametrize("text", ["", "voc", "voc.a.b.c321.m.l", "voc.a.b.321.m.l.s1", "a/b"])
def test_a_text_that_is_no_key_is_refused_with_an_example(text):
    with pytest.raises(ValueError, match=r"is no cell key; one reads like voc\."):
        Cell.parse(text)
