"""The doctor on a real Slurm."""

from dataclasses import replace
from pathlib import Path

from orchestrator.doctor.checks import check_slurm
from orchestrator.doctor.drill import cases, drill
from orchestrator.options import parse
from orchestrator.storage.local_root import LocalRoot
from tests.support.slurm.cluster import SlurmBox

WORDS = ("slurm.memory_gb=0.3", "slurm.poll_seconds=4")


def test_it_tells_what_the_site_allows_and_refuses(cluster: SlurmBox, tmp_path: Path) -> None:
    site, submission = check_slurm(parse(WORDS)[0], LocalRoot(tmp_path))
    assert "arrays to 1001, accounting" in site.text
    assert submission.state == "works"
    assert not cluster.jobs("-t", "PENDING,RUNNING")

    _, refused = check_slurm(parse(["slurm.partition=lowe"])[0], LocalRoot(tmp_path))
    assert refused.state == "broken"
    assert "invalid partition specified: lowe" in refused.text


def test_a_drill_harms_fake_trials_and_judges_their_resume(
    cluster: SlurmBox, tmp_path: Path
) -> None:
    quick = [replace(case, num_steps=min(case.num_steps, 20)) for case in cases()[:4]]

    checks = drill(parse(WORDS)[0], LocalRoot(tmp_path), lambda text: None, quick)

    assert [check.state for check in checks] == ["works"] * 4, checks
    names = [check.name for check in checks]
    assert names == ["drill: submit", "drill: warn", "drill: requeue", "drill: kill"]
