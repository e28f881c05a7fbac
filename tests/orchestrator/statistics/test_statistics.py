"""Statistics, against scipy, exhaustive counts and sums by hand."""

from collections import Counter
from dataclasses import replace
from itertools import product
from statistics import fmean

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.statistics.compare import Comparison, comparisons
from orchestrator.statistics.significance import (
    bootstrap_interval,
    holm,
    interval_of_pairs,
    pairs_needed,
    sign_flip,
    smallest_p,
)
from orchestrator.statistics.text import comparisons_csv, comparisons_markdown, sentences, verdict
from orchestrator.tables.fill import fill
from sweeps.table import load_table
from tests.support.result_rows import row_of

tenths = st.integers(-30, 30).map(lambda n: n / 10)

TWO = """
title: Two splits
cell: {recipe: synthetic, backbone: resnet14_w8, crop: 64, method: unimatch_star}
columns: {split: [1of16, 1of8]}
blocks:
  - label: "64"
    rows:
      - {label: Supervised, cell: {method: supervised, loss: none}}
      - {label: "UniMatch*", cell: {loss: none}}
      - {label: IPixMatch, cell: {loss: kl}}
      - {label: Improvement, minus: [IPixMatch, "UniMatch*"]}
"""


def exhaustive(values):
    """P-value by writing down every sign pattern, in whole tenths so that sums are exact."""
    whole = [round(10 * value) for value in values]
    sums = [
        abs(sum(s * v for s, v in zip(signs, whole, strict=True)))
        for signs in product((1, -1), repeat=len(whole))
    ]
    return sum(total >= abs(sum(whole)) for total in sums) / len(sums)


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "two.yaml"
    path.write_text(TWO)
    return load_table(str(path))


def filled_with(table, gains, base=70.0):
    """IPixMatch above UniMatch* by gains[seed][split], both above Supervised by far."""
    scores = {"supervised": 60.0, "none": base}
    rows = []
    for seed, by_split in enumerate(gains, start=1):
        for cell in table.cells:
            gain = dict(zip(("1of16", "1of8"), by_split, strict=True))[cell.split]
            value = scores["supervised"] if cell.method == "supervised" else base + seed
            value += gain if cell.loss == "kl" else 0.0
            rows.append(row_of(replace(cell, seed=seed), value))
    return fill(table, rows)


@given(st.lists(tenths, max_size=9))
def test_the_test_counts_what_writing_down_every_pattern_counts(values):
    assert sign_flip(values).p == pytest.approx(exhaustive(values), abs=1e-12)


@pytest.mark.parametrize("count", [2, 5, 9])
def test_the_test_agrees_with_scipy(count):
    values = np.random.default_rng(count).normal(0.3, 1.0, count)

    theirs = scipy.stats.permutation_test(
        (values,), np.mean, permutation_type="samples", n_resamples=np.inf
    )

    assert sign_flip(values.tolist()).p == pytest.approx(theirs.pvalue, abs=1e-12)


def test_forty_pairs_are_counted_exactly_and_more_are_sampled():
    values = [1.0] * 30 + [-1.0] * 10
    exact = scipy.stats.binomtest(10, 40).pvalue

    assert sign_flip(values).p == pytest.approx(exact, rel=1e-9)
    assert sign_flip(values).is_exact
    sampled = sign_flip([*values, 0.001])
    assert not sampled.is_exact
    assert sampled.p == pytest.approx(exact, abs=0.002)
    assert sampled == sign_flip([*values, 0.001])


@given(st.lists(tenths, min_size=1, max_size=9), st.randoms(use_true_random=False))
def test_order_and_sign_of_all_differences_do_not_matter(values, random):
    shuffled = random.sample(values, len(values))

    assert sign_flip(shuffled).p == pytest.approx(sign_flip(values).p)
    assert sign_flip([-value for value in values]).p == pytest.approx(sign_flip(values).p)


@given(st.lists(tenths, max_size=9))
def test_no_p_is_below_the_smallest_and_agreement_reaches_it(values):
    answer = sign_flip(values)

    assert answer.smallest_p <= answer.p <= 1
    apart = [abs(value) for value in values if value]
    assert sign_flip(apart).p == pytest.approx(smallest_p(len(apart)))


@pytest.mark.parametrize(("rivals", "pairs"), [(1, 6), (2, 7), (3, 7), (4, 8), (5, 8)])
def test_the_pairs_needed_are_the_first_that_can_reach_5_percent(rivals, pairs):
    assert pairs_needed(rivals) == pairs
    assert smallest_p(pairs) * rivals <= 0.05 < smallest_p(pairs - 1) * rivals


def test_holm_by_hand():
    # Sorted: 0.01 x 4, 0.02 x 3 = 0.06, 0.03 x 2 = 0.06, 0.5 x 1.
    assert holm([0.02, 0.01, 0.5, 0.03]) == pytest.approx([0.06, 0.04, 0.5, 0.06])
    assert holm([0.04, 0.03]) == pytest.approx([0.06, 0.06])
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8), st.floats(0.001, 0.2))
def test_holm_rejects_what_its_own_stepwise_rule_rejects(values, alpha):
    kept = sorted(values)
    count = 0
    while count < len(kept) and kept[count] * (len(kept) - count) <= alpha:
        count += 1

    assert sum(p <= alpha for p in holm(values)) == count


def test_the_interval_agrees_with_all_resamples_of_three_values():
    values = [0.1, 0.5, 1.2]
    means = sorted(fmean(chosen) for chosen in product(values, repeat=3))

    low, high = bootstrap_interval([values])

    # 27 equally likely resamples: the ends fall on the extreme means.
    assert (low, high) == pytest.approx((means[0], means[-1]))


def test_the_interval_agrees_with_scipy():
    values = np.random.default_rng(1).normal(0.5, 1.0, 12)

    theirs = scipy.stats.bootstrap(
        (values,), np.mean, method="percentile", n_resamples=50_000, rng=1
    ).confidence_interval

    assert bootstrap_interval([values.tolist()]) == pytest.approx(tuple(theirs), abs=0.03)


def test_the_interval_of_many_values_agrees_with_scipy_too():
    values = np.random.default_rng(2).gamma(2.0, 1.0, 200)

    theirs = scipy.stats.bootstrap(
        (values,), np.mean, method="percentile", n_resamples=50_000, rng=1
    ).confidence_interval

    assert bootstrap_interval([values.tolist()]) == pytest.approx(tuple(theirs), abs=0.02)


def test_splits_are_resampled_each_for_itself():
    # Between splits all differs, within a split nothing: the mean has no spread over seeds.
    assert bootstrap_interval([[1.0, 1.0], [5.0, 5.0]]) == (3.0, 3.0)


def test_every_value_is_drawn_equally_often():
    values = [float(2**i) for i in range(3)]
    low, high = bootstrap_interval([values], confidence=0.0)
    assert low == high
    draws = Counter()
    for part in (0.2, 0.4, 0.6, 0.8):
        draws[bootstrap_interval([values], confidence=part)] += 1
    assert len(draws) == 4


def test_one_seed_on_a_split_leaves_no_interval():
    assert bootstrap_interval([[1.0], [1.0, 2.0]]) is None
    assert bootstrap_interval([]) is None


def test_the_interval_is_the_same_bytes_every_time():
    groups = [[0.1, 0.9, 0.4], [0.3, 0.2]]

    assert [value.hex() for value in bootstrap_interval(groups)] == PINNED


PINNED = ["0x1.47ae147ae147bp-3", "0x1.47ae147ae147bp-1"]


def test_methods_are_paired_by_split_and_seed_and_meet_every_rival(table):
    compared = comparisons(filled_with(table, [(0.5, 0.1), (0.25, 0.2)]))

    assert [(c.new, c.rival, c.block) for c in compared] == [
        ("IPixMatch", "Supervised", "64"),
        ("IPixMatch", "UniMatch*", "64"),
    ]
    assert compared[1].groups == (pytest.approx((0.5, 0.25)), pytest.approx((0.1, 0.2)))
    assert compared[1].mean == pytest.approx(0.2625)
    assert (compared[1].n, compared[1].rivals) == (4, 2)


def test_a_seed_that_only_one_method_has_makes_no_pair(table):
    filled = filled_with(table, [(0.5, 0.1), (0.25, 0.2)])
    rows = [row for entry in filled.entries for row in entry.results]
    rows = [row for row in rows if not (row.loss == "kl" and row.seed == 2)]

    assert comparisons(fill(table, rows))[1].n == 2


def test_four_seeds_on_two_splits_can_be_significant(table):
    filled = filled_with(table, [(0.5, 0.1), (0.25, 0.2), (0.3, 0.3), (0.1, 0.4)])

    text = sentences(filled)[1]

    # Eight pairs of one sign: 2 / 2^8 = 0.0078, times two rivals.
    assert text.startswith("IPixMatch against UniMatch* (64): +0.3 over n = 8 (2 splits x 4 seeds)")
    assert text.endswith("; better, p = 0.016 after Holm over 2 rivals.")


def test_too_few_seeds_are_said_with_how_many_would_do(table):
    compared = comparisons(filled_with(table, [(0.5, 0.1), (0.25, 0.2)]))[1]

    assert verdict(compared) == (
        "4 pairs cannot give a p below 0.25 after Holm over 2 rivals, whatever they show, so "
        "nothing can be called significant; 7 pairs could: 4 seeds on each of these 2 splits."
    )


@pytest.mark.parametrize(
    ("gains", "rivals", "said"),
    [
        (
            [0.5],
            1,
            "1 pair cannot give a p below 1, whatever it shows, so nothing can be called "
            "significant; 6 pairs could: 6 seeds.",
        ),
        (
            [0.0],
            1,
            "1 pair without any difference, so p = 1; a significant one takes at least 6 pairs: 6 "
            "seeds.",
        ),
        (
            [0.5, 0.0],
            2,
            "2 pairs, 1 of them without a difference, cannot give a p below 1 after Holm over 2 "
            "rivals, whatever they show, so nothing can be called significant; 7 pairs could: 7 "
            "seeds.",
        ),
        (
            [0.5, 0.2, 0.1, 0.3, 0.4],
            1,
            "5 pairs cannot give a p below 0.062, whatever they show, so nothing can be called "
            "significant; 6 pairs could: 6 seeds.",
        ),
    ],
)
def test_what_few_pairs_cannot_show_is_one_sentence(gains, rivals, said):
    compared = Comparison(
        block="",
        new="new",
        rival="old",
        column="",
        groups=(tuple(gains),),
        interval=None,
        p=1.0,
        p_holm=1.0,
        rivals=rivals,
        is_exact=True,
    )

    assert verdict(compared) == said


def test_columns_that_are_replicates_are_resampled_like_seeds(table):
    one_seed = filled_with(table, [(0.5, -0.1)])
    as_replicates = fill(
        replace(table, replicates=True), [row for e in one_seed.entries for row in e.results]
    )

    alone, pooled = comparisons(one_seed)[1], comparisons(as_replicates)[1]

    assert alone.interval is None
    assert alone.groups == (pytest.approx((0.5,)), pytest.approx((-0.1,)))
    assert pooled.groups == (pytest.approx((0.5, -0.1)),)
    assert pooled.interval is None
    assert (pooled.p, pooled.mean) == (alone.p, pytest.approx(alone.mean))
    text = sentences(as_replicates)[1]
    assert "over n = 2 (2 columns); 2 pairs cannot give a p below 1 after Holm" in text
    assert text.endswith("; 7 pairs could.")


def test_an_interval_takes_five_pairs_over_all_splits():
    four, six = [[0.1, 0.2], [0.3, 0.5]], [[0.1, 0.2, 0.4], [0.3, 0.5, 0.6]]

    assert interval_of_pairs(four) is None
    assert interval_of_pairs([[0.1, 0.2, 0.3, 0.4]]) is None
    assert interval_of_pairs(six) == bootstrap_interval(six)
    assert interval_of_pairs([[0.1, 0.2, 0.3, 0.4, 0.5], [1.0]]) is None  # nothing to resample


def test_pairs_without_a_difference_are_said_to_give_no_p(table):
    filled = filled_with(table, [(0.5, 0.0), (0.25, 0.0), (0.2, 0.0), (0.1, 0.0)])

    assert (
        "; 8 pairs, 4 of them without a difference, cannot give a p below 0.25"
        in sentences(filled)[1]
    )


def test_pairs_that_are_all_equal_are_said_to_be(table):
    text = sentences(filled_with(table, [(0.0, 0.0)]))[1]

    assert (
        "; 2 pairs without any difference, so p = 1; a significant one takes at least 7 pairs: "
        in text
    )


def test_a_difference_that_may_be_chance_is_not_significant(table):
    gains = [(0.5, -0.4), (0.2, -0.3), (0.1, 0.3), (-0.2, 0.1)]

    assert "; not significant, p = " in sentences(filled_with(table, gains))[1]


def test_a_worse_method_is_called_worse(table):
    gains = [(-0.5, -0.4)] * 4

    assert "; worse, p = 0.016" in sentences(filled_with(table, gains))[1]


def test_table_1_holds_each_column_against_the_baseline_column():
    table = load_table("table1")
    rows = [row_of(cell, 70.0 + i % 3) for i, cell in enumerate(table.cells)]

    compared = comparisons(fill(table, rows))

    assert [(c.new, c.rival, c.mean, c.n) for c in compared] == [
        ("L_KL", "UniMatch*", 1.0, 2),
        ("L_CR", "UniMatch*", 2.0, 2),
    ]


def test_a_table_without_results_says_that_nothing_can_be_compared():
    assert "no two methods share a split and a seed" in comparisons_markdown(
        fill(load_table("table3"), [])
    )


def test_the_csv_has_all_columns_together_and_each_for_itself(table):
    lines = comparisons_csv(filled_with(table, [(0.5, 0.1), (0.25, 0.2)])).splitlines()

    assert len(lines) == 1 + 2 + 4
    assert lines[2].startswith("64,IPixMatch,UniMatch*,,4,0.26")
    assert lines[-1].startswith("64,IPixMatch,UniMatch*,1of8,2,0.1")
