"""What a job asks for; options that none can have are refused by name, before a submission."""

import pytest

from orchestrator.backends.slurm.registry import check_options, job_spec_of
from orchestrator.options import SlurmOptions, parse
from orchestrator.trial import Trial


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("slurm.extra=exclusive", "slurm.extra='exclusive': write key=value"),
        ("ranks=3 slurm.nodes=2", "ranks=3 cannot be spread evenly over slurm.nodes=2"),
        ("slurm.minutes=0", "slurm.minutes=0: a job needs a time limit"),
        ("slurm.minutes=2", "slurm.minutes=2 with slurm.signal_seconds=120: the warning would"),
    ],
)
def test_what_no_job_can_have_is_refused(words: str, message: str) -> None:
    options, _ = parse(words.split())

    with pytest.raises(ValueError, match=message):
        check_options(options)


def test_a_job_of_a_minute_with_a_late_warning_is_allowed() -> None:
    options, _ = parse(["slurm.minutes=1", "slurm.signal_seconds=5"])

    check_options(options)


def test_a_job_asks_for_the_cores_that_its_device_needs() -> None:
    trial = Trial("cell", "", "f", "/root", "slurm", "", cpus_per_rank=1, cpus_beside_gpu=3)

    specs = [job_spec_of(trial.on_gpus(gpus), SlurmOptions()) for gpus in (0.0, 1.0)]

    assert [(spec.gpus_per_task, spec.cpus_per_task) for spec in specs] == [(0, 1), (1, 3)]
