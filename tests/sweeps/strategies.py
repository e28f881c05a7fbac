"""Generators of cells."""

from hypothesis import strategies as st

from sweeps.cell import Cell

names = st.from_regex(r"[A-Za-z0-9_-]{1,12}", fullmatch=True)

cells = st.builds(
    Cell,
    recipe=names,
    split=names,
    backbone=names,
    crop=st.integers(1, 9999),
    method=names,
    loss=names,
    seed=st.integers(0, 2**40),
)
