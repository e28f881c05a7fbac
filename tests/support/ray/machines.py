"""Ray nodes on machines of their own: network namespaces of this one, joined by a bridge.

Each has its address and its host name; the head is this machine itself. Where namespaces cannot be
made (they need root), all nodes are raylets beside each other on loopback.
"""

import os
import secrets
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.lab import kill_family, wait_until

_STORE_BYTES = 100 << 20
_IS_THERE = "will now block forever"  # what `ray start` says in the end


@dataclass
class Machines:
    """A Ray cluster that demands a token.

    Attributes:
        folder: of Ray's files; a short path.
        token: that whoever joins must show.
        subnet: the first three numbers of its addresses; empty without namespaces.
    """

    folder: Path
    token: str
    subnet: str
    _newest: int = 1  # the head's address ends so
    _nodes: dict[str, "subprocess.Popen[bytes]"] = field(default_factory=dict)

    @property
    def host(self) -> str:
        """Address of this machine, for the others too."""
        return f"{self.subnet}.1" if self.subnet else "127.0.0.1"

    @property
    def address(self) -> str:
        """What `ray_address` takes."""
        return f"{self.host}:{self._port}"

    @property
    def joined(self) -> list[str]:
        """Host names of the machines that joined and live, the newest last."""
        return [name for name in self._nodes if name != "head"]

    @property
    def environment(self) -> dict[str, str]:
        """What whoever joins needs."""
        return {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": self.token}

    def start_head(self) -> None:
        """Start the head, on which no cell runs, and wait until it serves."""
        with socket.socket() as probe:
            probe.bind((self.host, 0))
            self._port = probe.getsockname()[1]
        files = f"--temp-dir={self.folder}"
        head = ("--head", f"--port={self._port}", "--include-dashboard=false", files)
        self._start("head", self.host, [], *head, "--num-cpus=0")

    def add(self, cpus: int) -> str:
        """Let another machine join, and wait until it has; returns its host name."""
        self._newest += 1
        name, address, place = f"m{self._newest}", self.host, []
        if self.subnet:
            address = f"{self.subnet}.{self._newest}"
            self._make_network(name, address)
            network = ["ip", "netns", "exec", self._network(name), "unshare", "--uts", "--"]
            place = [*network, "sh", "-c", f'hostname {name} && exec "$@"', "sh"]
        self._start(name, address, place, f"--address={self.address}", f"--num-cpus={cpus}")
        return name

    def kill(self, name: str) -> None:
        """A machine is gone at once, with all that ran there."""
        process = self._nodes.pop(name)
        kill_family(process.pid)
        process.wait()
        if self.subnet and name != "head":
            _ip("netns", "del", self._network(name))

    def down(self) -> None:
        """Kill everything and leave nothing behind."""
        for name in list(self._nodes):
            self.kill(name)
        if self.subnet:
            _ip("link", "del", self._bridge)

    def _start(self, name: str, address: str, place: list[str], *words: str) -> None:
        ray = [str(Path(sys.executable).parent / "ray"), "start", "--block"]
        store = f"--object-store-memory={_STORE_BYTES}"
        own = (f"--node-ip-address={address}", "--disable-usage-stats", store)
        with (self.folder / f"{name}.out").open("wb") as log:
            self._nodes[name] = subprocess.Popen(
                [*place, *ray, *own, *words],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, **self.environment, "RAY_worker_niceness": "0"},
                start_new_session=True,
            )
        wait_until(lambda: _IS_THERE in (self.folder / f"{name}.out").read_text())

    @property
    def _bridge(self) -> str:
        return f"ray{os.getpid()}"

    def _network(self, name: str) -> str:
        return f"{self._bridge}-{name}"

    def _make_network(self, name: str, address: str) -> None:
        """A namespace with a cable to the bridge."""
        network, cable = self._network(name), f"{self._bridge}{name}"
        _ip("netns", "add", network)
        _ip("link", "add", cable, "type", "veth", "peer", "name", "eth0", "netns", network)
        _ip("link", "set", cable, "master", self._bridge, "up")
        for words in (("link", "set", "lo", "up"), ("addr", "add", f"{address}/24", "dev", "eth0")):
            _ip("-n", network, *words)
        _ip("-n", network, "link", "set", "eth0", "up")


@contextmanager
def running_machines() -> Iterator[Machines]:
    """A head alone, until the block ends."""
    with tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp") as folder:
        machines = Machines(Path(folder), secrets.token_hex(32), _subnet())
        try:
            machines.start_head()
            yield machines
        finally:
            machines.down()


def _subnet() -> str:
    """Make the bridge; the first three numbers of its addresses, or nothing where it cannot be."""
    bridge, subnet = f"ray{os.getpid()}", f"10.77.{os.getpid() % 250}"
    if not _ip("link", "add", bridge, "type", "bridge"):
        return ""
    _ip("addr", "add", f"{subnet}.1/24", "dev", bridge)
    _ip("link", "set", bridge, "up")
    return subnet


def _ip(*words: str) -> bool:
    """Whether `ip` did it."""
    try:
        return subprocess.run(["ip", *words], capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False
