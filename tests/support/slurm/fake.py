"""Fakes of Slurm's programs, and of time, for what a real Slurm does only now and then.

They read `slurm.json` beside them: jobs (lines of squeue), accounted (lines of sacct), most jobs,
whether they answer, and an error of sbatch.
"""

import json
import os
import stat
import sys
from dataclasses import dataclass
from pathlib import Path

PROGRAM = """\
#!{python}
import json, pathlib, re, sys
file = pathlib.Path({file!r})
state = json.loads(file.read_text())
name = pathlib.Path(sys.argv[0]).name
state["calls"].append([name, *sys.argv[1:]])
if name in state["silent"]:
    file.write_text(json.dumps(state))
    sys.exit(name + ": error: Socket timed out on send/recv operation")
if name == "sbatch" and state["error"]:
    file.write_text(json.dumps(state))
    sys.exit(state["error"])
if name == "scontrol":
    print("Slurmctld(primary) at c1 is UP")
if name == "squeue":
    print("\\n".join("|".join(job) for job in state["jobs"]))
if name == "sacct":
    print("\\n".join("|".join(job) for job in state["accounted"]))
if name == "scancel":
    state["jobs"] = [job for job in state["jobs"] if job[0] not in sys.argv[1:]]
if name == "sbatch":
    text = pathlib.Path(sys.argv[-1]).read_text()
    found = re.search(r"array=0-(\\d+)", text)
    size = int(found.group(1)) + 1 if found else 1
    if len(state["jobs"]) + size > state["most"]:
        file.write_text(json.dumps(state))
        sys.exit("sbatch: error: QOSMaxSubmitJobPerUserLimit")
    state["last"] += 1
    comment = re.search(r"comment=(\\S+)", text).group(1)
    for index in range(size):
        job = str(state["last"]) + (f"_{{index}}" if found else "")
        facts = ["Priority", "", "2026-05-01T09:30:00", "name", comment]
        state["jobs"].append([job, str(state["last"]), "PENDING", *facts])
    print("Submitted batch job", state["last"])
file.write_text(json.dumps(state))
"""


@dataclass
class Clock:
    """Seconds that go by when a test says so."""

    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


@dataclass(frozen=True)
class FakeSlurm:
    """The programs in a folder, and the state that they share."""

    folder: Path

    def install(self) -> "FakeSlurm":
        self.set(jobs=[], accounted=[], most=100, silent=[], error="", last=100, calls=[])
        for name in ("sbatch", "squeue", "scancel", "sacct", "srun", "scontrol"):
            program = self.folder / name
            program.write_text(PROGRAM.format(python=sys.executable, file=str(self.file)))
            program.chmod(program.stat().st_mode | stat.S_IXUSR)
        os.environ["PATH"] = f"{self.folder}:{os.environ['PATH']}"
        return self

    @property
    def file(self) -> Path:
        return self.folder / "slurm.json"

    @property
    def state(self) -> dict[str, object]:
        state: dict[str, object] = json.loads(self.file.read_text())
        return state

    def set(self, **changes: object) -> None:
        state = self.state if self.file.exists() else {}
        self.file.write_text(json.dumps({**state, **changes}))

    def job(self, job_id: str, state: str, comment: str = "") -> list[str]:
        facts = ["Resources", "n1", "2026-05-01T09:30:00", "name", comment]
        return [job_id, job_id.partition("_")[0], state, *facts]

    def num_calls(self, name: str) -> int:
        calls = self.state["calls"]
        assert isinstance(calls, list)
        return sum(call[0] == name for call in calls)
