"""The kinds of accident, each a function that does it once and says whether it met anything."""

import os
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.kill_drill.disk import Disk
from datasets.randomness import KeyedRandom
from tests.support.lab import Command, Lab, descendants, kill_family, process_name
from tests.support.s3.ceph import CephBox
from tests.support.s3.faults import Proxy
from tests.support.slurm.cluster import SlurmBox


@dataclass
class Scene:
    """What accidents can meet.

    Attributes:
        draws: decides which process it is and for how long it is gone.
        box: the Slurm cluster.
        gateway: the S3 server, with the proxy that stands before it.
        disk: on which the root lies.
        launch: the one that runs now.
        lab: in which it runs.
        findings: what must not be, in words.
    """

    draws: KeyedRandom
    box: SlurmBox | None = None
    gateway: tuple[CephBox, Proxy] | None = None
    disk: Disk | None = None
    launch: Command = field(init=False)
    lab: Lab = field(init=False)
    findings: list[str] = field(default_factory=list)

    def kinds(self, backend: str) -> list[str]:
        """The kinds of accident that are possible here."""
        kinds = list(_OF_BACKEND[backend])
        if self.gateway is not None:
            kinds += ["gateway", "requests"]
        if self.disk is not None:
            kinds += ["full disk", "read-only"]
        return kinds

    def happen(self, kind: str) -> bool:
        """Let an accident happen; False where there was nothing that it could meet."""
        return ACCIDENTS[kind](self)


# Of these nobody dies by SIGKILL; they are counted apart.
BLOODLESS = ("requests", "full disk", "read-only")
_OF_BACKEND = {
    "inline": ("launch",),
    "work": (),
    "ray": ("worker", "launch", "raylet", "gcs_server", "agent", "everything"),
    "slurm": ("worker", "slurmstepd", "launch", "slurmd", "slurmctld", "slurmdbd", "everything"),
}


def _launch(scene: Scene) -> bool:
    """The launch alone; what it started has to find out by itself."""
    scene.launch.kill()
    return True


def _everything(scene: Scene) -> bool:
    """The launch and all that it started; in Slurm every daemon and every job, too.

    Slurm's database is spared: that of the tests keeps nothing safe, so it does not start again.
    """
    if scene.box is None:
        kill_family(scene.launch.pid)
        return True
    scene.launch.kill()
    daemons = [who for who in scene.box.daemons if who != "mariadbd"]
    for who in reversed(daemons):
        scene.box.kill(who)
    for who in daemons:
        scene.box.start(who, wait=who not in scene.box.node_names)
    scene.box.resume()
    return True


def _worker(scene: Scene) -> bool:
    """A process that trains, or one of Ray's that waits for it."""
    if scene.box is not None:
        return _kill_one(scene, [pid for pid in _in_nodes(scene) if _is_job(pid)])
    return _kill_one(scene, [pid for pid in descendants(scene.launch.pid) if _is_busy_actor(pid)])


def _raylet(scene: Scene) -> bool:
    return _kill_one(scene, _named(scene, "raylet"))


def _gcs(scene: Scene) -> bool:
    return _kill_one(scene, _named(scene, "gcs_server"))


def _agent(scene: Scene) -> bool:
    """One of the programs in Python that stand by the raylet."""
    family = descendants(scene.launch.pid)
    return _kill_one(scene, [pid for pid in family if b"agent" in _command_line(pid)])


def _slurmstepd(scene: Scene) -> bool:
    found = [pid for pid in _in_nodes(scene) if process_name(pid).startswith("slurmstepd")]
    return _kill_one(scene, found)


def _slurmd(scene: Scene) -> bool:
    """A whole node with its jobs; it comes back."""
    assert scene.box is not None
    node = scene.box.node_names[scene.draws.integer(0, scene.box.nodes - 1)]
    scene.box.lose(node)
    _pause(scene)
    scene.box.resume()
    return True


def _daemon(who: str) -> Callable[[Scene], bool]:
    def happen(scene: Scene) -> bool:
        assert scene.box is not None
        scene.box.kill(who)
        _pause(scene)
        scene.box.start(who)
        return True

    return happen


def _gateway(scene: Scene) -> bool:
    """The door of the S3 server, which comes back."""
    assert scene.gateway is not None
    scene.gateway[0].kill("rgw")
    _pause(scene)
    scene.gateway[0].start("rgw")
    return True


def _requests(scene: Scene) -> bool:
    """Ten requests of each way to fail."""
    assert scene.gateway is not None
    scene.gateway[1].heal()
    for harm in ("status", "lose_answer", "cut_answer", "cut_request"):
        scene.gateway[1].harm(".*", harm, times=10, count=50)  # type: ignore[arg-type]
    return True


def _full_disk(scene: Scene) -> bool:
    """No room for a while."""
    assert scene.disk is not None
    with scene.disk.full():
        _pause(scene)
    return True


def _read_only(scene: Scene) -> bool:
    """A launch meets a root that nothing can be written to."""
    assert scene.disk is not None
    kill_family(scene.launch.pid)
    with scene.disk.read_only() as is_so:
        if is_so:
            refused = scene.lab.start("launch", "backend=inline")
            text, _ = refused.communicate()
            if refused.returncode in (0, 1) or "Traceback" in text:
                scene.findings.append(f"read-only root, exit {refused.returncode}: {text[-600:]}")
    return is_so


ACCIDENTS: dict[str, Callable[[Scene], bool]] = {
    "launch": _launch,
    "worker": _worker,
    "raylet": _raylet,
    "gcs_server": _gcs,
    "agent": _agent,
    "slurmstepd": _slurmstepd,
    "slurmd": _slurmd,
    "slurmctld": _daemon("slurmctld"),
    "slurmdbd": _daemon("slurmdbd"),
    "everything": _everything,
    "gateway": _gateway,
    "requests": _requests,
    "full disk": _full_disk,
    "read-only": _read_only,
}


def _kill_one(scene: Scene, pids: Sequence[int]) -> bool:
    if not pids:
        return False
    with suppress(ProcessLookupError):
        os.kill(pids[scene.draws.integer(0, len(pids) - 1)], signal.SIGKILL)
        return True
    return False


def _pause(scene: Scene) -> None:
    time.sleep(scene.draws.uniform(0.2, 2.0))


def _named(scene: Scene, name: str) -> list[int]:
    return [pid for pid in descendants(scene.launch.pid) if process_name(pid) == name]


def _in_nodes(scene: Scene) -> list[int]:
    assert scene.box is not None
    return [pid for node in scene.box.node_names for pid in descendants(scene.box.pid(node))]


def _is_job(pid: int) -> bool:
    """Whether it is the Python of a job, which trains, and not the srun that started it."""
    words = _command_line(pid).split(b"\0")
    return b"python" in words[0] and b"slurm.job_start" in words


def _is_busy_actor(pid: int) -> bool:
    words = _command_line(pid)
    return words.startswith(b"ray::") and not words.startswith(b"ray::IDLE")


def _command_line(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""
