"""Ranks that fail or hang end, and the table says so; that they train is in test_main.py."""

from dataclasses import replace

from benchmarks.gpu.ranks import step_on_ranks
from benchmarks.two_steps import Case
from trainer.config.schema import RunConfig

TINY = Case(model="resnet8", crop=17, batch=2, classes=3)


def test_what_a_rank_raises_is_the_remark() -> None:
    unknown = replace(TINY, model="resnet9")

    line = step_on_ranks(unknown, RunConfig(device="cpu"), 2, steps=1, limit=60.0)

    assert line.remark == "failed: KeyError: 'resnet9'"
    assert not line.seconds


def test_ranks_that_do_not_end_are_ended() -> None:
    line = step_on_ranks(TINY, RunConfig(device="cpu"), 2, steps=10**6, limit=0.0)

    assert line.remark == "failed: no end after 0 s"
