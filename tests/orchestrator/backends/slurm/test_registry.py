"""Options that no Slurm job can have are refused by name, before anything is submitted."""

import pytest

from orchestrator.backends.slurm.registry import check_options
from orchestrator.options import parse


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
