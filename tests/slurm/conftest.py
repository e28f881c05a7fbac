"""The Slurm box for the tests of this folder."""

from tests.boxes.slurm_session import bare_cluster, cluster, slurm_box

__all__ = ["bare_cluster", "cluster", "slurm_box"]
