"""What a job asks of Slurm, and the shell and Python that it starts with."""

from dataclasses import dataclass
from typing import Any

_GPU_KEYS = ("gpus", "gpus_per_node", "gpus_per_socket", "gpus_per_task")


@dataclass(frozen=True)
class JobSpec:
    """Resources and environment of one job; a value that is empty or 0 is left to the site.

    Attributes:
        partition: one, or several with commas.
        gpus_per_task: whole cards.
        memory_gb: per node.
        minutes: time limit of one job; work that takes longer goes on in the next one.
        constraint: features of nodes, such as "a100|h100".
        signal_seconds: warning before the time limit.
        at_once: most jobs of one array that run at the same time; 0: all.
        extra: further #SBATCH parameters, such as (("reservation", "paper"),); one that asks for
            GPUs, such as ("gres", "gpu:a100:1"), replaces what `gpus_per_task` asks for.
        setup: shell lines before the program starts, such as "module load cuda".
        python: what starts Python, such as "apptainer exec --nv image.sif python"; empty: this one.
    """

    partition: str = ""
    account: str = ""
    qos: str = ""
    gpus_per_task: int = 0
    cpus_per_task: int = 1
    memory_gb: float = 0.0
    minutes: int = 60
    nodes: int = 1
    tasks_per_node: int = 1
    constraint: str = ""
    signal_seconds: int = 120
    at_once: int = 0
    extra: tuple[tuple[str, str], ...] = ()
    setup: tuple[str, ...] = ()
    python: str = ""

    @property
    def num_tasks(self) -> int:
        """Processes of one job."""
        return self.nodes * self.tasks_per_node

    @property
    def _names_gpus(self) -> bool:
        """Whether `extra` asks for GPUs; Slurm refuses a number beside cards with a type."""
        return any(
            key.replace("-", "_") in _GPU_KEYS or (key == "gres" and value.startswith("gpu"))
            for key, value in self.extra
        )

    def parameters(self, num_jobs: int) -> dict[str, Any]:
        """The same under the names of submitit's parameters.

        Args:
            num_jobs: in the array.
        """
        wanted: dict[str, Any] = {
            "partition": self.partition,
            "account": self.account,
            "qos": self.qos,
            "gpus_per_node": 0 if self._names_gpus else self.gpus_per_task * self.tasks_per_node,
            "cpus_per_task": self.cpus_per_task,
            "mem": f"{round(self.memory_gb * 1024)}M" if self.memory_gb else "",
            "constraint": self.constraint,
        }
        return {name: value for name, value in wanted.items() if value} | {
            "time": self.minutes,
            "nodes": self.nodes,
            "ntasks_per_node": self.tasks_per_node,
            "signal_delay_s": self.signal_seconds,
            "array_parallelism": self.at_once or num_jobs,
            "setup": list(self.setup),
            # Slurm itself starts a job again that was preempted or lost its node.
            "additional_parameters": {"requeue": True, **dict(self.extra)},
            # One dead task ends the job. Since 22.05 srun does not take sbatch's --cpus-per-task.
            "srun_args": ["--kill-on-bad-exit=1", f"--cpus-per-task={self.cpus_per_task}"],
        }
