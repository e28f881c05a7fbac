"""A proxy on loopback that stands before an S3 server and does harm to chosen requests.

It forwards bytes as they are, so signatures stay valid; `Expect: 100-continue`, which is not
signed, it answers itself. One thread per connection is enough for tests.
"""

import contextlib
import re
import socket
import struct
import threading
import time
from dataclasses import dataclass, field
from typing import Literal

Harm = Literal["status", "stall", "cut_request", "lose_answer", "cut_answer", "flip"]
_BODY = "<?xml version='1.0' encoding='UTF-8'?><Error><Code>{code}</Code></Error>"
_CODES = {500: "InternalError", 503: "SlowDown", 504: "GatewayTimeout"}


class _Reset(Exception):
    """Both connections are cut."""


@dataclass
class Rule:
    """What happens to requests whose "METHOD /path" a pattern finds.

    Attributes:
        harm: `status` answers itself; `stall` never answers; `cut_request` forwards `count` bytes
            of the body, then cuts; `lose_answer` lets the server work and throws its answer away;
            `cut_answer` forwards `count` bytes of the answer's body; `flip` turns one of its bits.
        times: how often; None for always.
    """

    pattern: str
    harm: Harm
    times: int | None = None
    code: int = 503
    count: int = 0
    hits: int = 0


@dataclass
class Proxy:
    """The proxy; a context manager.

    Attributes:
        upstream: port of the server, on loopback.
        host: address at which it listens itself.
    """

    upstream: int
    host: str = "127.0.0.1"
    rules: list[Rule] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)

    def __enter__(self) -> "Proxy":
        self._stopped = threading.Event()
        self._lock = threading.Lock()
        self._server = socket.create_server((self.host, 0))
        self.port = int(self._server.getsockname()[1])
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stopped.set()
        with contextlib.suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        for thread in self._threads:
            thread.join(10)

    def harm(self, pattern: str, harm: Harm, **settings: int | None) -> Rule:
        """Add a rule; the first one that is not used up decides."""
        rule = Rule(pattern, harm, **settings)  # type: ignore[arg-type]
        self.rules.append(rule)
        return rule

    def heal(self) -> None:
        """No more rules, and nothing counted."""
        self.rules.clear()
        self.lines.clear()

    def count(self, pattern: str) -> int:
        """How many requests came whose line the pattern finds."""
        return sum(bool(re.search(pattern, line)) for line in list(self.lines))

    def _accept(self) -> None:
        while not self._stopped.is_set():
            try:
                client, _ = self._server.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._serve, args=(client,))
            self._threads.append(thread)
            thread.start()

    def _serve(self, client: socket.socket) -> None:
        with client, contextlib.suppress(_Reset, OSError), self._connected() as server:
            for end in (client, server):
                end.settimeout(0.2)
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # else 40 ms an answer
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            ends = _Stream(client, self._stopped), _Stream(server, self._stopped)
            while self._exchange(*ends):
                pass

    def _connected(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.upstream))

    def _exchange(self, client: "_Stream", server: "_Stream") -> bool:
        """One request and its answer; whether another may follow."""
        head = client.head()
        if not head:
            return False
        line = " ".join(head.split(b"\r\n")[0].decode("latin1").split(" ")[:2])
        self.lines.append(line)
        rule = self._rule(line)
        harm = rule.harm if rule else None
        if re.search(rb"(?i)\r\nexpect: *100-continue", head):
            client.send(b"HTTP/1.1 100 Continue\r\n\r\n")
            head = re.sub(rb"(?i)\r\nexpect:[^\r]*", b"", head, count=1)
        length = _length(head)
        if harm == "stall":
            while rule in self.rules and not self._stopped.wait(0.05):
                pass
            raise _Reset
        if harm == "status":
            assert rule is not None
            client.body(length)
            text = _BODY.format(code=_CODES[rule.code]).encode()
            client.send(
                f"HTTP/1.1 {rule.code} Harm\r\nContent-Length: {len(text)}\r\n\r\n".encode() + text
            )
            return True
        server.send(head)
        if harm == "cut_request":
            assert rule is not None
            server.send(client.body(min(length, rule.count)))
            time.sleep(0.05)
            raise _Reset
        server.send(client.body(length))
        self._answer(client, server, rule, line)
        return True

    def _answer(self, client: "_Stream", server: "_Stream", rule: Rule | None, line: str) -> None:
        head = server.head()
        has_body = not line.startswith("HEAD") and b" 204 " not in head.split(b"\r\n")[0]
        body = server.body(_length(head), is_chunked=_is_chunked(head)) if has_body else b""
        if rule and rule.harm == "lose_answer":
            raise _Reset
        if rule and rule.harm == "flip":
            body = bytes([body[0] ^ 1]) + body[1:]
        if rule and rule.harm == "cut_answer":
            client.send(head + body[: rule.count])
            time.sleep(0.05)
            raise _Reset
        client.send(head + body)

    def _rule(self, line: str) -> Rule | None:
        with self._lock:
            for rule in self.rules:
                if re.search(rule.pattern, line) and rule.hits != rule.times:
                    rule.hits += 1
                    return rule
        return None


class _Stream:
    """A socket read by pieces of HTTP."""

    def __init__(self, end: socket.socket, stopped: threading.Event) -> None:
        self._end, self._stopped, self._rest = end, stopped, b""

    def head(self) -> bytes:
        while b"\r\n\r\n" not in self._rest:
            if not self._more():
                return b""
        head, _, self._rest = self._rest.partition(b"\r\n\r\n")
        return head + b"\r\n\r\n"

    def body(self, length: int, *, is_chunked: bool = False) -> bytes:
        if is_chunked:
            while not self._rest.endswith(b"0\r\n\r\n"):
                self._must()
            body, self._rest = self._rest, b""
            return body
        while len(self._rest) < length:
            self._must()
        body, self._rest = self._rest[:length], self._rest[length:]
        return body

    def send(self, data: bytes) -> None:
        self._end.settimeout(30)
        self._end.sendall(data)
        self._end.settimeout(0.2)

    def _must(self) -> None:
        if not self._more():
            raise _Reset

    def _more(self) -> bool:
        while not self._stopped.is_set():
            try:
                data = self._end.recv(1 << 20)
            except TimeoutError:
                continue
            self._rest += data
            return bool(data)
        raise _Reset


def _length(head: bytes) -> int:
    found = re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)
    return int(found[1]) if found else 0


def _is_chunked(head: bytes) -> bool:
    return bool(re.search(rb"(?i)\r\ntransfer-encoding: *chunked", head))
