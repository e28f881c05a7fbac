"""One rule says which row of a cell counts, and every reader of results follows it."""

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.results.compaction import compact
from orchestrator.results.counted import Today, counted
from orchestrator.results.store import counted_rows, publish
from orchestrator.storage.local_root import LocalRoot
from sweeps.cell import Cell
from tests.support.result_rows import row_of

CELL = Cell("folder", "all", "resnet14_w8", 32, "supervised", "none")
TODAY = {CELL.key: Today("f" * 64, "data", "lists")}
OURS = {"data_fingerprint": "data", "split_checksum": "lists"}


def attempts(*changes):
    """Done rows of one cell, oldest first."""
    return [
        row_of(CELL, 50.0 + number, attempt=number, **{**OURS, **change})
        for number, change in enumerate(changes, start=1)
    ]


def test_the_row_that_counts_is_the_newest_done_else_the_newest_failed():
    other = replace(CELL, seed=1)
    done = [row_of(CELL, 50.0 + attempt, attempt=attempt) for attempt in (1, 2)]
    failed = [row_of(cell, attempt=attempt) for cell in (CELL, other) for attempt in (3, 4)]

    chosen = counted([*failed, *done], {})

    assert chosen == {CELL.key: done[1], other.key: failed[3]}


def test_a_newer_row_of_another_configuration_images_or_lists_does_not_count():
    others = ({"fingerprint": "0" * 64}, {"data_fingerprint": "x"}, {"split_checksum": "x"})

    for other in others:
        rows = attempts({}, other)
        assert counted(rows, TODAY) == {CELL.key: rows[0]}
        assert counted(rows[1:], TODAY) == {CELL.key: rows[1]}  # shown as drifted


def test_what_is_not_known_is_no_difference():
    for unknown in ({"data_fingerprint": None}, {"data_fingerprint": "lists:1"}):
        rows = attempts({}, {**unknown, "split_checksum": None})
        assert counted(rows, TODAY) == {CELL.key: rows[1]}
    assert counted(attempts({}, {"data_fingerprint": "x"}), {CELL.key: Today("f" * 64)})


_CHANGES = st.fixed_dictionaries(
    {
        "status": st.sampled_from(["done", "failed"]),
        "fingerprint": st.sampled_from(["f" * 64, "0" * 64]),
        "data_fingerprint": st.sampled_from(["data", "x", None]),
        "split_checksum": st.sampled_from(["lists", "x"]),
    }
)


@settings(max_examples=25)
@given(changes=st.lists(_CHANGES, min_size=1, max_size=4), is_compacted=st.booleans())
def test_files_are_counted_as_rows_are(tmp_path_factory, changes, is_compacted):
    root, rows = LocalRoot(tmp_path_factory.mktemp("root")), attempts(*changes)
    for row in (*rows, row_of(replace(CELL, seed=3), 40.0)):
        publish(root, row)
    if is_compacted:
        compact(root)

    found = {row.key: row for row in counted_rows(root, [CELL], TODAY, per_class=True)}

    assert found[CELL.key] == counted(rows, TODAY)[CELL.key]
    assert len(found) == 2
