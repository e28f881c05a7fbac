"""What a program of Slurm did not say is not taken for its answer."""

import pytest

from slurm.commands import SlurmRefused, SlurmSilent, call


def test_a_program_that_a_signal_killed_gave_no_answer() -> None:
    with pytest.raises(SlurmSilent, match="sh was killed by signal 2 before it answered"):
        call("sh", "-c", "kill -INT $$", seconds=10)


def test_a_program_that_failed_refused() -> None:
    with pytest.raises(SlurmRefused, match="sh: exit code 3"):
        call("sh", "-c", "exit 3", seconds=10)
