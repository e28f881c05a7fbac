"""A real S3 server on loopback: Ceph's monitor, one OSD and the RADOS Gateway, from Debian.

Needs no root, no systemd and nothing in /etc; objects live in the OSD's memory. Two settings bring
the start from 90 s to 2: `ms mon client mode` (the gateway would wait for an encrypted monitor)
and the paxos intervals. `tcp_nodelay` spares each answer 40 ms; the watch timeout is how long
making a bucket waits for a gateway that was killed (default 30 s).
"""

import atexit
import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Literal

DEBIAN = "ceph-mon ceph-osd radosgw openssl"
_CEPH = ("ceph-mon", "ceph-osd", "radosgw", "radosgw-admin", "monmaptool", "ceph")
_PROGRAMS = (*_CEPH, "setpriv", "openssl")
_PATH = f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/bin:/sbin:/bin"
_PREFIX = "s3-box-"
Daemon = Literal["mon", "osd", "rgw"]
ACCESS, SECRET = "test-access", "test-secret-never-shown"  # of this server alone

_CONFIGURATION = """[global]
fsid = {fsid}
mon host = v2:127.0.0.1:{mon_port}
auth cluster required = none
auth service required = none
auth client required = none
ms mon client mode = crc secure
ms bind ipv6 = false
public addr = 127.0.0.1
cluster addr = 127.0.0.1
keyring = /dev/null
run dir = {folder}
admin socket = {folder}/$name.asok
pid file = {folder}/$name.pid
log file = {folder}/$name.log
crash dir = {folder}/crash
mon data = {folder}/mon
osd data = {folder}/osd
rgw data = {folder}/rgw
osd pool default size = 1
osd pool default min size = 1
mon allow pool size one = true
osd crush chooseleaf type = 0
osd pool default pg num = 1
osd pool default pgp num = 1
osd pool default pg autoscale mode = off
mon max pg per osd = 1000
paxos propose interval = 0.02
paxos min wait = 0.01
mon tick interval = 1
osd objectstore = memstore
osd client watch timeout = 3
memstore device bytes = 2147483648
rgw frontends = beast endpoint=127.0.0.1:{port} tcp_nodelay=1 ssl_endpoint=127.0.0.1:{tls_port} \
    ssl_certificate={folder}/certificate.pem ssl_private_key={folder}/key.pem
rgw zone = default
rgw thread pool size = 32
rgw dynamic resharding = false
rgw gc obj min wait = 20
rgw gc processor period = 20
debug rgw = 0
"""


class CephBox:
    """The server; its processes end with the one that made them, however that ends.

    Attributes:
        port: of plain HTTP.
        tls_port: of HTTPS, with a certificate of its own.
    """

    def __init__(self) -> None:
        base = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # memory
        _sweep(Path(base or tempfile.gettempdir()))
        self.folder = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-", dir=base))
        self.port, self.tls_port, self._mon_port = _free_port(), _free_port(), _free_port()
        self._running: dict[Daemon, subprocess.Popen[bytes]] = {}
        identity, osd = str(uuid.uuid4()), str(uuid.uuid4())
        for name in ("mon", "osd", "rgw", "crash"):
            (self.folder / name).mkdir()
        self._config = self.folder / "ceph.conf"
        self._config.write_text(
            _CONFIGURATION.format(
                fsid=identity,
                mon_port=self._mon_port,
                port=self.port,
                tls_port=self.tls_port,
                folder=self.folder,
            )
        )
        self._certify()
        address = f"[v2:127.0.0.1:{self._mon_port}]"
        config = ("-c", str(self._config))
        monmap = str(self.folder / "monmap")
        self._run("monmaptool", "--create", "--fsid", identity, "--addv", "a", address, monmap)
        self._run("ceph-mon", "--mkfs", "-i", "a", *config, "--monmap", monmap)
        self._run("ceph-osd", "-i", "0", "--mkfs", "--osd-uuid", osd, "--no-mon-config", *config)
        self.start("mon")
        self._run("ceph", "osd", "new", osd, "0")
        self.start("osd")
        self.start("rgw")
        user = ("user", "create", "--uid=test", "--display-name=test", "--max-buckets=10000")
        keys = (f"--access-key={ACCESS}", f"--secret-key={SECRET}", "--no-mon-config")
        self._run("radosgw-admin", *user, *keys)

    def start(self, daemon: Daemon) -> None:
        """Start one process and wait until it serves; by the main thread, with which it ends."""
        config = ("-c", str(self._config), "--no-mon-config")
        command = {
            "mon": ("ceph-mon", "-f", "-i", "a", "-c", str(self._config)),
            "osd": ("ceph-osd", "-f", "-i", "0", *config),
            "rgw": ("radosgw", "-f", "-n", "client.rgw", *config),
        }[daemon]
        with (self.folder / f"{daemon}.out").open("ab") as log:
            self._running[daemon] = subprocess.Popen(
                [_program("setpriv"), "--pdeathsig", "KILL", _program(command[0]), *command[1:]],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self._environment(),
                start_new_session=True,
            )
        ready: dict[Daemon, Callable[[], bool]] = {
            "mon": self._listens,
            "osd": lambda: (
                json.loads(self._run("ceph", "osd", "stat", "-f", "json"))["num_up_osds"] == 1
            ),
            "rgw": self._answers,
        }
        self._wait(daemon, ready[daemon])

    def kill(self, daemon: Daemon) -> None:
        """End one process at once, as a power cut does."""
        process = self._running.pop(daemon)
        process.kill()
        process.wait()

    def freeze(self, daemon: Daemon) -> None:
        """Let one process stand still."""
        self._running[daemon].send_signal(signal.SIGSTOP)

    def thaw(self, daemon: Daemon) -> None:
        """Let it go on."""
        self._running[daemon].send_signal(signal.SIGCONT)

    def stop(self) -> None:
        """End everything and leave nothing behind."""
        for daemon in list(self._running):
            self.kill(daemon)
        shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def certificate(self) -> Path:
        """Of the server, for clients that shall trust it."""
        return self.folder / "certificate.pem"

    def _certify(self) -> None:
        """Make a key, and a certificate for this host that the key itself has signed."""
        kind = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2")
        name = ("-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1")
        files = ("-keyout", str(self.folder / "key.pem"), "-out", str(self.certificate))
        self._run("openssl", "req", "-x509", *kind, *name, *files)

    def _listens(self) -> bool:
        with socket.socket() as client:
            return client.connect_ex(("127.0.0.1", self._mon_port)) == 0

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}", timeout=2):
                return True
        except urllib.error.HTTPError as error:
            error.close()
            return True
        except OSError:
            return False

    def _wait(self, daemon: Daemon, ready: Callable[[], bool]) -> None:
        end = time.monotonic() + 90
        while not ready():
            if self._running[daemon].poll() is not None or time.monotonic() > end:
                log = (self.folder / f"{daemon}.out").read_text(errors="replace")[-2000:]
                raise RuntimeError(f"{daemon} of the S3 server did not start:\n{log}")
            time.sleep(0.03)

    def _run(self, program: str, *arguments: str) -> str:
        done = subprocess.run(
            [_program(program), *arguments],
            env=self._environment(),
            cwd=self.folder,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        if done.returncode:
            raise RuntimeError(f"{program}: {done.stderr[-1500:]}")
        return done.stdout

    def _environment(self) -> dict[str, str]:
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("CEPH_", "AWS_"))}
        return {**kept, "PATH": _PATH, "CEPH_CONF": str(self._config), "LC_ALL": "C"}


def missing() -> list[str]:
    """Programs of the server that this machine lacks."""
    return [name for name in _PROGRAMS if shutil.which(name, path=_PATH) is None]


def what_is_missing_for_s3() -> str:
    """What this machine lacks and how to have it; empty when the server can start."""
    lacking = missing()
    return f"{lacking[0]} is missing: apt-get install {DEBIAN}" if lacking else ""


@cache
def shared_box() -> CephBox:
    """The one server of this process, started when it is first wanted."""
    box = CephBox()
    atexit.register(box.stop)
    return box


def environment(port: int, host: str = "127.0.0.1") -> dict[str, str]:
    """What a user would set to reach the server at a port."""
    return {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": ACCESS,
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }


@contextlib.contextmanager
def surroundings(port: int, host: str = "127.0.0.1") -> Iterator[None]:
    """Those settings for this process, for a while."""
    wanted = environment(port, host)
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _sweep(base: Path) -> None:
    """Remove folders of tests that were killed; their servers ended with them."""
    for folder in base.glob(f"{_PREFIX}*"):
        owner = folder.name.removeprefix(_PREFIX).partition("-")[0]
        if not Path("/proc", owner).exists():
            shutil.rmtree(folder, ignore_errors=True)


def _program(name: str) -> str:
    found = shutil.which(name, path=_PATH)
    if found is None:
        raise RuntimeError(f"{name} is missing: apt-get install {DEBIAN}")
    return found


def _free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return int(server.getsockname()[1])
