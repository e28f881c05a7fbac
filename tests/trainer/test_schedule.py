"""Steps, rates and ramp against numbers worked out by hand."""

import pytest

from trainer.config.compose import compose
from trainer.config.schema import LossConfig, RampUnit
from trainer.schedule import gaussian_ramp, inter_pixel_weight, learning_rate, steps_per_epoch


@pytest.mark.parametrize(
    ("done", "expected"),
    [(0.0, 0.006738), (0.25, 0.060055), (0.5, 0.286505), (0.75, 0.731616), (1.0, 1.0)],
)
def test_the_ramp_has_the_values_of_the_oracle(done: float, expected: float) -> None:
    assert gaussian_ramp(done * 400, 400) == pytest.approx(expected, abs=5e-7)


def test_the_ramp_is_one_without_warm_up_and_after_it() -> None:
    assert gaussian_ramp(0, 0) == gaussian_ramp(401, 400) == gaussian_ramp(400, 400) == 1.0


@pytest.mark.parametrize(
    ("method", "unlabelled", "expected"),
    [
        ("unimatch", 9920, 1240),  # VOC 1/16: 9920 // 8
        ("unimatch", 10490, 1311),  # VOC 92
        ("unimatch_star", 9920, 2480),  # half the batch, A23
    ],
)
def test_an_epoch_is_a_pass_over_the_unlabelled_list(
    method: str, unlabelled: int, expected: int
) -> None:
    config = compose(["recipe=voc", "model=resnet50", f"method={method}"])

    assert steps_per_epoch(config, num_labelled=662, num_unlabelled=unlabelled) == expected


@pytest.mark.parametrize(("labelled", "total"), [(662, 6560), (92, 880), (183, 1760)])
def test_supervised_epochs_are_passes_over_the_labelled_list(labelled: int, total: int) -> None:
    # Half of UniMatch's 16 images: floor(662 / 8) * 80.
    config = compose(["recipe=voc", "model=resnet50", "method=supervised"])

    per_epoch = steps_per_epoch(config, num_labelled=labelled, num_unlabelled=10582 - labelled)

    assert config.batch == 8
    assert per_epoch * config.optim.epochs == total


def test_match_iters_gives_supervised_the_steps_of_a_semi_supervised_run() -> None:
    matched = compose(["method=supervised", "method.match_iters=true"])
    semi = compose([])

    assert steps_per_epoch(matched, num_labelled=8, num_unlabelled=210) == steps_per_epoch(
        semi, num_labelled=8, num_unlabelled=210
    )


def test_a_split_smaller_than_a_batch_is_refused_with_the_cure() -> None:
    with pytest.raises(ValueError, match="has 3 unlabelled images, fewer than one batch of 4"):
        steps_per_epoch(compose([]), num_labelled=8, num_unlabelled=3)


def test_the_poly_rate_falls_from_lr_to_zero() -> None:
    config = compose(["optim.lr=0.5"])

    assert learning_rate(config, 0, 100) == 0.5
    assert learning_rate(config, 25, 100) == pytest.approx(0.5 * 0.75**0.9)
    assert learning_rate(config, 100, 100) == 0.0


def test_the_lag_shifts_the_rate_by_one_step() -> None:
    lagging, exact = compose(["optim.lag=true"]), compose([])

    rates = [learning_rate(lagging, step, 100) for step in range(100)]

    assert rates == [learning_rate(exact, max(step - 1, 0), 100) for step in range(100)]
    assert rates[0] == rates[1] > rates[2]


def test_official_unimatch_has_twice_the_rate_and_batch_of_its_re_run() -> None:
    official, star = (
        compose(["recipe=voc", "model=resnet50", f"method={m}"])
        for m in ("unimatch", "unimatch_star")
    )

    assert (official.lr, official.batch) == (0.001, 8)
    assert (star.lr, star.batch) == (0.0005, 4)


def test_alpha_times_ramp_by_step_and_by_epoch() -> None:
    by_step = LossConfig(alpha=2.0, warmup_epochs=4)
    by_epoch = LossConfig(alpha=2.0, warmup_epochs=4, ramp_unit=RampUnit.epoch)

    assert inter_pixel_weight(by_step, 15, 10) == 2.0 * gaussian_ramp(15, 40)
    assert inter_pixel_weight(by_epoch, 15, 10) == 2.0 * gaussian_ramp(1, 4)
    assert inter_pixel_weight(by_step, 40, 10) == 2.0
