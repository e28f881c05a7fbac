"""A real Slurm in one folder: daemons from Debian's packages, several nodes on one machine.

Each node has its own process, mount and host-name space: killing it kills its jobs at once, as a
power cut would. Everything ends with the process that started it, however that ends.
"""

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.slurm.config import MARIADBD, write_files

PACKAGES = ("slurmctld", "slurmd", "slurmdbd", "slurm-client", "mariadb-server-core")
_BINARIES = ("slurmctld", "slurmd", "slurmdbd", "sbatch", "sacct", "mariadbd", "unshare", "setpriv")
_PATH = os.environ.get("PATH", "") + ":/usr/sbin:/usr/bin:/sbin:/bin"
_SPACES = ("--mount", "--uts", "--pid", "--fork", "--kill-child", "--mount-proc")
_BAD = ("down", "unk", "*", "drain", "fail", "inval", "boot", "future")


class BoxError(RuntimeError):
    """The box did not do what it was told."""


def what_is_missing() -> str:
    """Why no box can be started here, in words; empty when it can."""
    if os.geteuid() != 0:
        return (
            "a Slurm of our own needs root, since its nodes have host names of their own: run the "
            "tests as root, best in a container"
        )
    missing = [name for name in _BINARIES if shutil.which(name, path=_PATH) is None]
    if missing:
        return f"{', '.join(missing)} missing: apt-get install {' '.join(PACKAGES)}"
    tried = subprocess.run(
        ["unshare", *_SPACES, "--", "mount", "--bind", "/etc/hosts", "/etc/hosts"],
        capture_output=True,
        text=True,
        check=False,
    )
    if tried.returncode:
        return (
            f"nodes cannot have host names of their own here ({tried.stderr.strip()}); in Docker "
            "start the container with --privileged"
        )
    return ""


@dataclass
class SlurmBox:
    """One cluster.

    Attributes:
        folder: of this box alone; a short path, best in memory (/dev/shm).
        nodes: named n1, n2, ...
        memory: MB per node; need not exist.
        grace: seconds between warning and end of a preempted job of partition low.
        remembered_seconds: how long slurmctld knows a finished job.
        warns: whether a preempted job gets our own signal before SIGTERM.
    """

    folder: Path
    nodes: int = 3
    cpus: int = 4
    memory: int = 4000
    accounting: bool = True
    grace: int = 120
    max_array_size: int = 1001
    remembered_seconds: int = 120
    warns: bool = True
    _processes: dict[str, "subprocess.Popen[bytes]"] = field(default_factory=dict)

    @property
    def node_names(self) -> list[str]:
        return [f"n{number}" for number in range(1, self.nodes + 1)]

    @property
    def daemons(self) -> list[str]:
        database = ["mariadbd", "slurmdbd"] if self.accounting else []
        return [*database, "slurmctld", *self.node_names]

    def env(self) -> dict[str, str]:
        """What a client of this cluster needs."""
        return {"SLURM_CONF": str(self.folder / "etc" / "slurm.conf")}

    def up(self) -> "SlurmBox":
        """Start everything and wait until every node is usable."""
        self.folder.mkdir(parents=True)
        options = {
            "nodes": self.nodes,
            "cpus": self.cpus,
            "memory": self.memory,
            "accounting": int(self.accounting),
            "grace": self.grace,
            "max_array_size": self.max_array_size,
            "remembered_seconds": self.remembered_seconds,
            "warns": int(self.warns),
            "first_job": int(time.time()) % 600_000 * 100 + 1,
        }
        self._ports = _free_ports(self.daemons)
        write_files(self.folder, self._ports, options)
        for who in self.daemons:
            self.start(who, wait=who not in self.node_names)
        self.wait_nodes()
        return self

    def down(self) -> None:
        """Kill everything and delete the folder."""
        for who in reversed(self.daemons):
            self.kill(who)
        shutil.rmtree(self.folder, ignore_errors=True)

    def run(self, *command: str, check: bool = True) -> str:
        """Output of a client command."""
        done = subprocess.run(
            command,
            env=dict(os.environ, PATH=_PATH, **self.env()),
            capture_output=True,
            text=True,
            check=False,
            timeout=180,
        )
        if check and done.returncode:
            raise BoxError(f"{' '.join(command)}: {done.stderr.strip()}")
        return done.stdout

    def jobs(self, *words: str) -> list[list[str]]:
        """Id, name, state and node of every job, finished ones too."""
        lines = self.run("squeue", "-h", "-r", "-t", "all", "-o", "%i|%j|%T|%N", *words)
        return [line.split("|") for line in lines.splitlines()]

    def start(self, who: str, *, wait: bool = True) -> None:
        """Start what is down."""
        if self.is_running(who):
            return
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("SLURM", "SBATCH"))}
        with (self.folder / "log" / f"{who}.out").open("ab") as log:
            self._processes[who] = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", "--", *self._command(who)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**kept, **self.env(), "PATH": _PATH, "LC_ALL": "C"},
                cwd=self.folder,
                start_new_session=True,
            )
        if wait and who in self.node_names:
            self.wait_nodes()
        elif wait:
            self._wait(f"{who} to listen", lambda: self._listens(who), who)

    def is_running(self, who: str) -> bool:
        process = self._processes.get(who)
        return process is not None and process.poll() is None

    def pid(self, who: str) -> int:
        """Process id of a daemon, or of the first process of a node."""
        return self._processes[who].pid

    def kill(self, who: str) -> None:
        """SIGKILL a daemon, or a whole node with its jobs."""
        self._end(who, signal.SIGKILL)

    def stop(self, who: str) -> None:
        """Let a daemon save its state and end."""
        self._end(who, signal.SIGTERM)

    def freeze(self, who: str) -> None:
        """Let a daemon hang: it accepts connections and never answers."""
        self._processes[who].send_signal(signal.SIGSTOP)

    def thaw(self, who: str) -> None:
        """Let a hanging daemon go on."""
        self._processes[who].send_signal(signal.SIGCONT)

    def lose(self, node: str) -> None:
        """A node dies, and the controller knows at once: its jobs are requeued."""
        self.kill(node)
        self.run("scontrol", "update", f"nodename={node}", "state=down", "reason=lost")

    def heal(self) -> None:
        """Start what is down, cancel every job, make every node usable."""
        for who in self.daemons:
            if self.is_running(who):
                self.thaw(who)
            self.start(who, wait=who not in self.node_names)
        self.run("scancel", "--user=root", check=False)
        self.resume()
        give_up = time.monotonic() + 8
        while self.run("squeue", "-h").strip() and time.monotonic() < give_up:
            time.sleep(0.1)
        if self.run("squeue", "-h").strip():
            # A step that ended while slurmctld was away holds its place for a minute.
            for node in self.node_names:
                self.lose(node)
            self.run("scancel", "--user=root", check=False)
            self.resume()
        self._wait("the queue to empty", lambda: not self.run("squeue", "-h").strip())

    def resume(self) -> None:
        """Start dead nodes and make every node usable."""
        for node in self.node_names:
            self.start(node, wait=False)
        for node, state in self._node_states().items():
            if any(word in state for word in ("drain", "down", "fail", "inval")):
                self.run("scontrol", "update", f"nodename={node}", "state=resume", check=False)
        self.wait_nodes()

    def wait_nodes(self) -> None:
        def are_usable() -> bool:
            states = self._node_states()
            return len(states) == self.nodes and not any(
                word in state for state in states.values() for word in _BAD
            )

        self._wait("the nodes", are_usable, "slurmctld")

    def _node_states(self) -> dict[str, str]:
        lines = self.run("sinfo", "-h", "-N", "-p", "low", "-o", "%N %T", check=False)
        return dict(line.split()[:2] for line in lines.splitlines() if line.strip())

    def _command(self, who: str) -> list[str]:
        if who == "mariadbd":
            own = [f"--datadir={self.folder}/db", f"--tmpdir={self.folder}/db"]
            own += [f"--socket={self.folder}/run/sql", f"--pid-file={self.folder}/run/sql.pid"]
            return ["mariadbd", *MARIADBD[:1], *own, *MARIADBD[1:], f"--port={self._ports[who]}"]
        if who in ("slurmdbd", "slurmctld"):
            return [who, "-D"]
        # Bash is the node's first process: it collects the orphans that slurmd would leave.
        script = (
            f"hostname {who} && mount --bind {self.folder}/etc/hosts /etc/hosts && "
            f"{{ slurmd -D -N {who} & wait $!; }}"
        )
        return ["unshare", *_SPACES, "--", "bash", "-c", script]

    def _end(self, who: str, number: signal.Signals) -> None:
        process = self._processes.get(who)
        if process is None:
            return
        process.send_signal(number)
        process.wait(timeout=120)

    def _listens(self, who: str) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self._ports[who]), 0.5).close()
        except OSError:
            return False
        if who != "slurmctld" or not self.accounting:
            return True
        return "box" in self.run("sacctmgr", "-n", "-P", "show", "cluster", check=False)

    def _wait(self, what: str, holds: Callable[[], bool], who: str = "slurmctld") -> None:
        give_up = time.monotonic() + 300
        while not holds():
            if time.monotonic() > give_up or not self.is_running(who):
                logs = [self.folder / "log" / f"{who}{suffix}" for suffix in (".out", ".log")]
                text = "\n".join(log.read_text()[-2000:] for log in logs if log.exists())
                raise BoxError(f"waited for {what} in vain; {who} says:\n{text}")
            time.sleep(0.1)


def _free_ports(names: Sequence[str]) -> dict[str, int]:
    """Ports that nobody listens on, below those that clients get."""
    ports: dict[str, int] = {}
    port = 20000 + os.getpid() * 37 % 9000
    for name in names:
        while name not in ports:
            port += 1
            with socket.socket() as probe:
                try:
                    probe.bind(("0.0.0.0", port))
                except OSError:
                    continue
                ports[name] = port
    return ports
