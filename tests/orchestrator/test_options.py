"""The words of a command are options, settings, or mistakes."""

from pathlib import Path

import pytest

from orchestrator.backends.base import refuse_ignored
from orchestrator.options import LaunchOptions, SlurmOptions, parse
from trainer.config.compose import compose


def test_without_words_a_grid_runs_on_its_own_ray_into_outputs() -> None:
    assert parse([]) == (LaunchOptions(root="outputs", backend="ray", ray_address=""), ())


def test_options_are_read_and_settings_of_the_training_pass_through() -> None:
    options, overrides = parse(
        ["root=/x", "ranks=2", "gpus_per_rank=0.5", "only=voc.*", "data.root=/d", "optim.lr=0.1"]
    )

    assert options == LaunchOptions(root="/x", ranks=2, gpus_per_rank=0.5, only="voc.*")
    assert overrides == ("data.root=/d", "optim.lr=0.1")


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("optim.epoch=3", "Unknown setting 'optim.epoch'. Did you mean optim.epochs"),
        ("rank=2", "Did you mean ranks"),
        ("color=red", "Options of the launch: root, scratch, backend"),
        ("ranks", "'ranks' is no setting; write key=value"),
        ("ranks=two", "ranks=two is no whole number"),
        ("ranks=0", "ranks=0 is below 1"),
        ("backend=slurm2", "backend=slurm2: known are ray, inline"),
        ("rerun=yes", "rerun=yes: known are none, drifted, all"),
        ("epoch=", "epoch=: known are best, last"),
        ("slurm.controller=foo", "slurm.controller=foo: known are tune, plain"),
        ("gpus_per_rank=1.5", "a whole number, a part of one GPU, or -1"),
        ("cpus_per_rank=0", "cpus_per_rank=0: give a whole number above 0, or auto"),
        ("cpus_per_rank=many", "cpus_per_rank=many: give a whole number above 0, or auto"),
        ("only=", "only= needs a value"),
        ("hang_minutes=-1", "hang_minutes=-1: give minutes, or 0 for never"),
        ("hang_minutes=ten", "hang_minutes=ten is no number"),
        ("hang_minutes=inf", "hang_minutes=inf: give minutes, or 0 for never"),
        ("only=???", "only=??? is no value"),
        ("retries=-2", "retries=-2 is below -1"),
        ("slurm.minutes=soon", "slurm.minutes=soon is no whole number"),
        ("slurm.minutes=1.5", "slurm.minutes=1.5 is no whole number"),
        ("slurm.max_jobs=-1", "slurm.max_jobs=-1 is below 0"),
        ("slurm.colour=red", "Unknown setting slurm.colour; known: partition, account"),
        ("slurm=nowhere.yaml", "slurm=nowhere.yaml: No such file or directory; give a YAML file"),
    ],
)
def test_a_mistake_is_refused_with_what_exists(word: str, message: str) -> None:
    with pytest.raises(ValueError, match=r".") as refused:
        parse([word])

    assert message in str(refused.value)


def test_what_the_shell_of_a_job_expands_stays_as_it_is(tmp_path: Path) -> None:
    site = tmp_path / "site.yaml"
    site.write_text("setup: ['export A=${HOME}/a', 'echo \\${B} $C']\n")

    options, _ = parse(["root=/x/${USER}", f"slurm={site}", "slurm.setup=D=${E:-f} \\\\${G}"])

    assert options.root == "/x/${USER}"
    assert options.slurm.setup == ("export A=${HOME}/a", "echo \\${B} $C", "D=${E:-f} \\\\${G}")


def test_a_site_s_file_and_words_are_merged_in_order(tmp_path: Path) -> None:
    site = tmp_path / "site.yaml"
    site.write_text(
        "partition: 7\naccount:\nmemory_gb: 4\nminutes: 60\nsetup: [module load cuda]\n"
        "extra: {reservation: paper, begin: now}\n"
    )

    options, _ = parse(["slurm.minutes=5", f"slurm={site}", "slurm.setup=a=b", "slurm.qos=x"])

    assert options.slurm == SlurmOptions(
        partition="7",
        qos="x",
        minutes=60,
        memory_gb=4.0,
        setup=("module load cuda", "a=b"),
        extra=("reservation=paper", "begin=now"),
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("minutes: 1.5", "minutes=1.5 is no whole number"),
        ("minutes: true", "minutes=true is no whole number"),
        ("colour: red", "site.yaml: colour; known: partition"),
        ("- minutes", "holds no `key: value` lines"),
        ("a: [", "is no YAML: expected the node content, but found the end of the file (line 1"),
        ("partition: [a]", "partition takes one value, found ['a']"),
        ("minutes: {a: 1}", "minutes takes one value, found {'a': '1'}"),
    ],
)
def test_a_mistake_in_a_site_s_file_names_the_file(tmp_path: Path, text: str, message: str) -> None:
    site = tmp_path / "site.yaml"
    site.write_text(text)

    with pytest.raises(ValueError, match=r"site\.yaml") as refused:
        parse([f"slurm={site}"])

    assert message in str(refused.value)


@pytest.mark.parametrize(
    ("words", "overrides", "device", "cores"),
    [
        ([], [], "cpu", 1),
        ([], [], "cuda", 2),
        ([], ["run.threads=3", "run.loader_workers=2"], "cpu", 5),
        (["cpus_per_rank=7"], [], "cuda", 7),
    ],
)
def test_a_rank_has_cores_for_its_threads_and_its_workers(
    words: list[str], overrides: list[str], device: str, cores: int
) -> None:
    options, _ = parse(words)

    assert options.cpus_for(compose(overrides), device) == cores


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["backend=inline", "ranks=2", "concurrency=4"], "ignores ranks=2 and concurrency=4"),
        (["backend=inline", "workers=group"], "ignores workers=group"),
        (["backend=inline", "cpus_per_rank=3"], "ignores cpus_per_rank=3"),
        (["backend=inline", "ray_address=auto"], "ignores ray_address=auto"),
        (["backend=inline", "slurm.minutes=5"], "ignores slurm.minutes=5"),
        (["backend=inline", "to_ray=voc*"], "ignores to_ray=voc"),
        (["backend=ray", "slurm.partition=gpu"], "ignores slurm.partition=gpu"),
        (["to_slurm=voc*"], "backend=ray ignores to_slurm"),
        (["backend=slurm", "workers=group"], "backend=slurm ignores workers=group"),
        (["backend=slurm", "to_ray=voc*"], "ignores to_ray"),
    ],
)
def test_options_that_a_back_end_ignores_are_refused(words: list[str], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        refuse_ignored(parse(words)[0])


@pytest.mark.parametrize(
    "words",
    [
        ["backend=inline", "ranks=1", "hang_minutes=3", "gpus_per_rank=1"],
        ["ranks=2", "concurrency=3", "workers=group", "ray_address=auto"],
        ["backend=slurm", "slurm.minutes=5", "ranks=2", "concurrency=3"],
        ["backend=auto", "slurm.minutes=5", "to_ray=voc*", "workers=group"],
    ],
)
def test_options_that_a_back_end_uses_pass(words: list[str]) -> None:
    refuse_ignored(parse(words)[0])


def test_values_of_a_site_file_are_as_typed(tmp_path: Path) -> None:
    file = tmp_path / "site.yaml"
    file.write_text("account: 0123\nminutes: 010\npartition: no\nqos: null\nextra: [nice=010]\n")

    slurm = parse([f"slurm={file}"])[0].slurm

    assert (slurm.account, slurm.minutes, slurm.partition) == ("0123", 10, "no")
    assert (slurm.qos, slurm.extra) == ("", ("nice=010",))
