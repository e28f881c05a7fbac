"""The words of a command are options, settings, or mistakes."""

import pytest

from orchestrator.options import LaunchOptions, parse


def test_without_words_a_grid_runs_on_its_own_ray_into_outputs() -> None:
    assert parse([]) == (LaunchOptions(root="outputs", backend="ray", ray_address=""), ())


def test_options_are_read_and_settings_of_the_training_pass_through() -> None:
    options, overrides = parse(
        ["root=/x", "ranks=2", "gpus_per_rank=0.5", "only=voc.*", "data.root=/d", "optim.lr=0.1"]
    )

    assert options == LaunchOptions(root="/x", ranks=2, gpus_per_rank=0.5, only="voc.*")
    assert overrides == ("data.root=/d", "optim.lr=0.1")


@pytest.mark.parametrize(
    ("word", "told"),
    [
        ("optim.epoch=3", "Unknown setting 'optim.epoch'. Did you mean optim.epochs"),
        ("rank=2", "Did you mean ranks"),
        ("color=red", "Options of the launch: root, backend"),
        ("ranks", "'ranks' is no setting; write key=value"),
        ("ranks=two", "ranks=two is no whole number"),
        ("ranks=0", "ranks=0 is below 1"),
        ("backend=slurm2", "backend=slurm2: known are ray, inline"),
        ("rerun=yes", "rerun=yes: known are none, drifted, all"),
        ("gpus_per_rank=1.5", "a whole number, a part of one GPU, or -1"),
        ("only=", "only= needs a value"),
        ("hang_minutes=-1", "hang_minutes=-1: give minutes, or 0 for never"),
        ("hang_minutes=ten", "hang_minutes=ten is no number"),
    ],
)
def test_a_mistake_is_refused_with_what_exists(word: str, told: str) -> None:
    with pytest.raises(ValueError, match=r".") as refused:
        parse([word])

    assert told in str(refused.value)
