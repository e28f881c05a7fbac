"""A cell that fits no card is refused before it starts, with what would fit."""

import re
from pathlib import Path

import pytest

from orchestrator.__main__ import main
from orchestrator.options import LaunchOptions, parse
from orchestrator.planning.cards import card_gib, gib_per_rank, largest_of, too_large
from slurm.cluster import gpu_types
from trainer.config.compose import compose
from trainer.config.schema import TrainConfig

CITYSCAPES = ("recipe=cityscapes", "model=resnet50", "method=unimatch_star", "loss=kl")
CUDA = "run.device=cuda"


def run(*overrides: str) -> TrainConfig:
    return compose([*CITYSCAPES, *overrides])


def options(*words: str) -> LaunchOptions:
    return parse(words)[0]


def test_every_remedy_lowers_what_a_rank_needs() -> None:
    need = gib_per_rank(run(), 1)
    assert need == pytest.approx(33.0, abs=0.5)

    for lower in (
        gib_per_rank(run(), 2),
        gib_per_rank(run("optim.precision=bf16"), 1),
        gib_per_rank(run("run.memory=recompute"), 1),
    ):
        assert lower is not None
        assert lower < 0.6 * need
    recompute, offload = (
        gib_per_rank(run(f"run.memory={rung}"), 1) for rung in ("recompute", "offload")
    )
    assert recompute is not None
    assert offload is not None
    assert offload < recompute


def test_an_ema_teacher_adds_its_weights() -> None:
    plain, averaged = gib_per_rank(run(), 1), gib_per_rank(run("method.teacher=ema"), 1)

    assert plain is not None
    assert averaged == pytest.approx(plain + 0.15, abs=0.01)  # 40 million numbers of 4 bytes


def test_of_a_network_that_was_not_counted_nothing_is_said() -> None:
    narrow = run("model.width=32", "model.init=random")
    other = run(
        "model=efficientnet_lite0", "model.head_channels=256", "model.low_level_channels=48"
    )

    assert gib_per_rank(narrow, 1) is gib_per_rank(other, 1) is None
    assert too_large({"narrow": narrow, "other": other}, options(), 1.0) == ""


def test_a_cell_that_fits_is_not_mentioned() -> None:
    assert too_large({"a": run()}, options(), 40.0) == ""
    assert too_large({"a": run()}, options("ranks=2"), 24.0) == ""
    assert too_large({"a": run()}, options(), None) == ""
    assert too_large({"a": run("run.device=cpu")}, options(), 1.0) == ""


def test_a_cell_that_cannot_fit_is_told_what_would() -> None:
    text = too_large({"small": run("data.crop=321"), "large": run()}, options(), 24.0)

    assert text.startswith(
        "Cell large needs 32.9 GiB on each card, which has 24. It would fit with"
    )
    offers = [
        r"ranks=2 \(16\.7 GiB, other rounding\)",
        r"run\.memory=recompute \(9\.\d GiB, same bits\)",
        r"run\.memory=offload \(6\.\d GiB, same bits\)",
        r"optim\.precision=bf16 \(1\d\.\d GiB, another fingerprint\)",
    ]
    assert re.search("; ".join(offers), text)
    assert "gpu_memory_gb=N" in text


def test_where_no_change_is_enough_the_last_rung_comes_with_more_ranks() -> None:
    text = too_large({"a": run("optim.batch=16"), "b": run("optim.batch=8")}, options(), 6.0)

    assert "Cell a needs" in text
    assert "(beside 1 other cell too large)" in text
    assert "It would fit with run.memory=offload ranks=" in text


def test_where_nothing_is_enough_only_a_larger_card_is() -> None:
    assert "a larger card or a smaller data.crop only" in too_large({"a": run()}, options(), 1.2)


@pytest.mark.parametrize(
    ("words", "gib"),
    [
        (("gpus_per_rank=0", "gpu_memory_gb=24"), None),
        (("gpus_per_rank=1", "gpu_memory_gb=24"), 24.0),
        (("gpus_per_rank=0.5", "gpu_memory_gb=24"), 12.0),
        (("gpus_per_rank=2", "gpu_memory_gb=24"), 24.0),
        (("gpus_per_rank=1", "ray_address=auto"), None),  # Ray is asked when it is joined
    ],
)
def test_a_rank_has_its_share_of_a_card(words: tuple[str, ...], gib: float | None) -> None:
    assert card_gib(options(*words)) == gib


def test_one_unknown_kind_of_card_leaves_the_size_open() -> None:
    assert largest_of(["a10", "h100_80gb"]) == 80.0
    assert largest_of(["a10", "big"]) is None
    assert largest_of([]) is None


@pytest.mark.parametrize(
    ("listed", "kinds", "gib"),
    [
        ("gpu:a100_80gb:4(S:0-1),shard:8\\ngpu:v100:2\\n(null)", {"a100_80gb", "v100"}, 80.0),
        ("gpu:4\\ngpu:v100:2", {"", "v100"}, None),
        ("(null)", set(), None),
    ],
)
def test_slurm_names_its_cards(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    listed: str,
    kinds: set[str],
    gib: float | None,
) -> None:
    program = tmp_path / "sinfo"
    program.write_text(f"#!/bin/sh\nprintf '{listed}\\n'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))

    assert gpu_types("gpu") == kinds
    assert card_gib(options("backend=slurm", "gpus_per_rank=1")) == gib


def test_without_slurm_here_its_cards_are_unknown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))

    assert card_gib(options("backend=slurm", "gpus_per_rank=1")) is None


def test_plan_shows_what_each_cell_needs_and_what_does_not_fit(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = main(["plan", "table5", f"root={tmp_path}", "gpus_per_rank=1", "gpu_memory_gb=24"])

    shown = capsys.readouterr().out
    assert code == 0
    assert "GiB a card" in shown
    line = next(line for line in shown.splitlines() if "resnet50.c801.unimatch_star.kl" in line)
    assert " 32.9 " in line
    assert "GiB on each card, which has 24" in shown


def test_a_launch_of_cells_that_cannot_fit_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [f"root={tmp_path}", "gpus_per_rank=1", "gpu_memory_gb=24", "backend=inline", CUDA]

    code = main(["launch", "table5", *words])

    assert code == 2
    assert "GiB on each card, which has 24" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()
