"""Steps, rates and ramp against numbers worked out by hand."""

import pytest
from torch.utils.data import DataLoader, DistributedSampler

from trainer.config.compose import compose
from trainer.config.schema import LossConfig, OptimConfig, RampUnit, TrainConfig, Upsample
from trainer.schedule import (
    gaussian_ramp,
    inter_pixel_weight,
    learning_rate,
    num_epochs,
    steps_per_epoch,
)


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
        ("unimatch_star", 9920, 2480),  # VOC 1/16, half of UniMatch's batch, A23
        ("fixmatch_star", 10490, 2622),  # VOC 92
    ],
)
def test_an_epoch_is_a_pass_over_the_unlabelled_list(
    method: str, unlabelled: int, expected: int
) -> None:
    config = compose(["recipe=voc", "model=resnet50", f"method={method}"])

    assert steps_per_epoch(config, num_labelled=662, num_unlabelled=unlabelled) == expected


@pytest.mark.parametrize(
    ("recipe", "labelled", "supervised", "semi_supervised"),
    [
        # Steps of a whole run on UniMatch's 4 GPUs: 80 epochs of VOC, 240 of Cityscapes.
        ("voc", 662, 3_280, 99_200),
        ("voc", 1323, 6_560, 92_560),
        ("voc", 2646, 13_200, 79_360),
        ("voc", 92, 400, 104_880),
        ("voc", 183, 880, 104_000),
        ("voc", 366, 1_840, 102_160),
        ("voc", 732, 3_600, 98_480),
        ("voc", 1464, 7_280, 91_200),
        ("cityscapes", 186, 2_640, 83_760),
        ("cityscapes", 372, 5_520, 78_000),
        ("cityscapes", 744, 11_040, 66_960),
        ("cityscapes", 1488, 22_320, 44_640),
    ],
)
def test_official_runs_have_the_steps_of_the_official_code(
    recipe: str, labelled: int, supervised: int, semi_supervised: int
) -> None:
    images = 10582 if recipe == "voc" else 2975

    def steps(method: str) -> int:
        config = compose([f"recipe={recipe}", "model=resnet50", f"method={method}"])
        sizes = {"num_labelled": labelled, "num_unlabelled": images - labelled}
        return steps_per_epoch(config, **sizes) * config.optim.epochs

    assert steps("supervised") == supervised
    assert steps("fixmatch") == steps("unimatch") == semi_supervised


@pytest.mark.parametrize(
    ("recipe", "epochs"),
    [
        ("voc", {662: 32, 1323: 34, 2646: 40, 5291: 60}),
        ("cityscapes", {186: 128, 372: 137, 744: 160, 1488: 240}),
    ],
)
def test_a_number_of_steps_gives_the_epochs_of_the_code_of_cps(
    recipe: str, epochs: dict[int, int]
) -> None:
    images = 10582 if recipe == "voc" else 2975
    config = compose([f"recipe={recipe}", "model=resnet50", "method=cps", "track=released"])

    def found(labelled: int) -> int:
        sizes = {"num_labelled": labelled, "num_unlabelled": images - labelled}
        return num_epochs(config.optim, steps_per_epoch(config, **sizes))

    assert {labelled: found(labelled) for labelled in epochs} == epochs


def test_a_run_without_epochs_and_steps_is_refused() -> None:
    with pytest.raises(ValueError, match=r"optim.epochs=0 leaves the length to optim.steps"):
        compose(["optim.epochs=0"])


@pytest.mark.parametrize("ranks", [1, 2, 3, 4])
@pytest.mark.parametrize("per_rank", [1, 2, 4])
def test_steps_are_those_of_a_distributed_sampler_that_drops_the_last_batch(
    ranks: int, per_rank: int
) -> None:
    optim = OptimConfig(batch=ranks * per_rank, sampler_ranks=ranks)
    config = TrainConfig(optim=optim)

    for images in range(ranks * per_rank, 70):
        sampler = DistributedSampler(range(images), num_replicas=ranks, rank=ranks - 1)
        loader = DataLoader(range(images), batch_size=per_rank, sampler=sampler, drop_last=True)
        steps = steps_per_epoch(config, num_labelled=1, num_unlabelled=images)
        assert steps == len(loader) == len(list(loader)), images


def test_a_batch_that_the_gpus_cannot_share_equally_is_refused_with_the_cure() -> None:
    with pytest.raises(ValueError, match="sampler_ranks=4 GPUs cannot share a batch of 6 images"):
        compose(["method=unimatch", "optim.batch=3"])

    assert compose(["method=unimatch", "optim.batch=3", "optim.sampler_ranks=1"]).batch == 6


@pytest.mark.parametrize("recipe", ["voc", "cityscapes", "synthetic"])
def test_supervised_star_has_the_steps_and_the_images_of_unimatch_star(recipe: str) -> None:
    model = "resnet14_w16" if recipe == "synthetic" else "resnet50"
    alone, semi = (
        compose([f"recipe={recipe}", f"model={model}", f"method={method}"])
        for method in ("supervised_star", "unimatch_star")
    )

    assert alone.batch == 2 * semi.batch
    assert (alone.lr, alone.model, alone.optim) == (semi.lr, semi.model, semi.optim)
    assert steps_per_epoch(alone, num_labelled=8, num_unlabelled=210) == steps_per_epoch(
        semi, num_labelled=8, num_unlabelled=210
    )


@pytest.mark.parametrize("method", ["unimatch_star", "supervised", "supervised_star"])
def test_a_list_smaller_than_a_batch_has_one_step(method: str) -> None:
    config = compose([f"method={method}", "optim.batch=20"])

    assert steps_per_epoch(config, num_labelled=8, num_unlabelled=3) == 1


@pytest.mark.parametrize(
    ("method", "cure"),
    [
        ("unimatch_star", "a method that needs none"),
        ("supervised_star", "method.match_iters=false"),
    ],
)
def test_a_split_without_unlabelled_images_is_refused_with_the_cure(method: str, cure: str) -> None:
    with pytest.raises(ValueError, match=f"has no unlabelled images.* or {cure}"):
        steps_per_epoch(compose([f"method={method}"]), num_labelled=8, num_unlabelled=0)


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


@pytest.mark.parametrize(
    ("method", "voc", "cityscapes", "kept"),
    [
        ("unimatch", (0.001, 8), (0.005, 8), 100_000),
        ("fixmatch", (0.001, 8), (0.005, 8), 100_000),
        ("supervised", (0.001, 16), (0.005, 16), 50_000),  # OHEM: 200,000 of 4 images on a card
    ],
)
def test_official_presets_have_the_numbers_of_the_official_code(
    method: str, voc: tuple[float, int], cityscapes: tuple[float, int], kept: int
) -> None:
    for recipe, numbers in (("voc", voc), ("cityscapes", cityscapes)):
        config = compose([f"recipe={recipe}", "model=resnet50", f"method={method}"])

        assert (config.lr, config.batch) == numbers
        assert (config.optim.lag, config.optim.sampler_ranks) == (True, 4)
        assert config.optim.ohem_min_kept_per_image == kept
        assert config.model.upsample is Upsample.bilinear


@pytest.mark.parametrize("method", ["unimatch_star", "fixmatch_star"])
def test_a_re_run_has_half_the_rate_and_batch_and_nearest_up_sampling(method: str) -> None:
    config = compose(["recipe=voc", "model=resnet50", f"method={method}"])

    assert (config.lr, config.batch) == (0.0005, 4)
    assert (config.optim.lag, config.optim.sampler_ranks) == (False, 1)
    assert config.model.upsample is Upsample.nearest


def test_alpha_times_ramp_by_step_and_by_epoch() -> None:
    by_step = LossConfig(alpha=2.0, warmup_epochs=4)
    by_epoch = LossConfig(alpha=2.0, warmup_epochs=4, ramp_unit=RampUnit.epoch)

    assert inter_pixel_weight(by_step, 15, 10) == 2.0 * gaussian_ramp(15, 40)
    assert inter_pixel_weight(by_epoch, 15, 10) == 2.0 * gaussian_ramp(1, 4)
    assert inter_pixel_weight(by_step, 40, 10) == 2.0
