import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from datasets.errors import DataError
from datasets.known.pascal_voc import sbd_mask
from tests.support import dataset_trees as trees


def test_a_file_written_by_scipy_gives_the_mask_it_was_given() -> None:
    mask = sbd_mask(trees.SBD_MAT, "a.mat")

    assert mask.dtype == np.uint8
    assert np.array_equal(mask, trees.sbd_segmentation())


@given(st.integers(0, len(trees.SBD_MAT) - 1))
def test_a_file_cut_anywhere_is_named(length: int) -> None:
    with pytest.raises(DataError, match=r"a\.mat (is broken|is no MATLAB|holds no GTcls)"):
        sbd_mask(trees.SBD_MAT[:length], "a.mat")


def content(data: bytes) -> bytes | None:
    """What zlib unpacks of a file's one element; None where it finds it broken."""
    try:
        return zlib.decompress(data[136:])
    except zlib.error:
        return None


@given(st.integers(136, len(trees.SBD_MAT) - 1), st.integers(0, 7))
def test_no_flipped_bit_changes_the_mask_unnoticed(place: int, bit: int) -> None:
    data = bytearray(trees.SBD_MAT)
    data[place] ^= 1 << bit

    if content(data) == content(trees.SBD_MAT):  # as for one bit in two hundred
        assert np.array_equal(sbd_mask(bytes(data), "a.mat"), trees.sbd_segmentation())
    else:
        with pytest.raises(DataError, match="is broken"):  # zlib proves its content
            sbd_mask(bytes(data), "a.mat")


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"", "is no MATLAB file of version 5"),
        (b"<html>", "is no MATLAB file of version 5"),
        (b"\x89HDF\r\n\x1a\n", "is of MATLAB's version 7.3"),
        (trees.SBD_MAT[:126] + b"MI" + trees.SBD_MAT[128:], "little end first"),
        (trees.SBD_MAT[:128], "holds no GTcls: is it of SBD's folder cls"),
    ],
)
def test_other_files_are_told_apart(data, text) -> None:
    with pytest.raises(DataError, match=text):
        sbd_mask(data, "a.mat")
