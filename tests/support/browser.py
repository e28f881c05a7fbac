"""A real headless Chromium, driven over a pipe by its own protocol: no driver, no port."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PACKAGES = "chromium-headless-shell fonts-dejavu-core"
_NAMES = ("chromium-headless-shell", "chromium", "google-chrome")
_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-extensions",
    "--no-first-run",
    "--remote-debugging-pipe",
)


def program() -> str | None:
    """The browser; where it is missing, a test fails under CI=true and says so elsewhere."""
    found = next(filter(None, map(shutil.which, _NAMES)), None)
    if found is None:
        assert os.environ.get("CI") != "true", f"CI needs Chromium: apt-get install {PACKAGES}"
        sys.stderr.write(f"left out: a browser is needed (apt-get install {PACKAGES})\n")
    return found


class Page:
    """One open page and everything it said and asked for."""

    def __init__(self, reader: Any, writer: Any) -> None:
        self._reader, self._writer = reader, writer
        self._number = 0
        self._session: str | None = None
        self.events: list[dict[str, Any]] = []
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        attached = self.ask("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network", "Accessibility"):
            self.ask(f"{domain}.enable")

    def ask(self, method: str, **values: Any) -> dict[str, Any]:
        """One command and its answer; events met on the way are kept."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": values}
        if self._session:
            message["sessionId"] = self._session
        self._writer.write(json.dumps(message).encode() + b"\0")
        self._writer.flush()
        while True:
            answer = self._next()
            if answer.get("id") == self._number:
                assert "error" not in answer, answer
                return dict(answer["result"])

    def open(self, path: Path) -> None:
        """Load a file, and wait until nothing more comes."""
        self.events.clear()
        self.ask("Page.navigate", url=path.as_uri())
        while not any(event.get("method") == "Page.loadEventFired" for event in self.events):
            self._next()
        self.value("document.fonts.ready.then(() => 1)")

    def value(self, expression: str) -> Any:
        """What JavaScript says about the page."""
        answer = self.ask(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def size(self, width: int, height: int = 800) -> None:
        """Give the window another size."""
        self.ask(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 600,
        )

    def media(self, **features: str) -> None:
        """Emulate media features, such as prefers_color_scheme="dark"."""
        listed = [{"name": n.replace("_", "-"), "value": v} for n, v in features.items()]
        self.ask("Emulation.setEmulatedMedia", features=listed)

    def reset(self) -> None:
        """Undo `size` and `media`."""
        self.ask("Emulation.clearDeviceMetricsOverride")
        self.ask("Emulation.setEmulatedMedia", features=[])

    @property
    def complaints(self) -> list[str]:
        """Console errors, warnings and uncaught exceptions."""
        found = []
        for event in self.events:
            values = event.get("params", {})
            if event.get("method") == "Runtime.exceptionThrown":
                found.append(str(values))
            if event.get("method") == "Log.entryAdded":
                found.append(values["entry"]["text"])
            if event.get("method") == "Runtime.consoleAPICalled":
                found.append(str(values["args"]))
        return found

    @property
    def requests(self) -> list[str]:
        """Addresses the page asked for."""
        return [
            event["params"]["request"]["url"]
            for event in self.events
            if event.get("method") == "Network.requestWillBeSent"
        ]

    def _next(self) -> dict[str, Any]:
        content = bytearray()
        while (letter := self._reader.read(1)) != b"\0":
            assert letter, "the browser ended"
            content += letter
        message: dict[str, Any] = json.loads(content)
        if "method" in message:
            self.events.append(message)
        return message


@contextmanager
def browser(folder: Path) -> Iterator[Page]:
    """A page of a fresh browser with a profile of its own."""
    command = program()
    assert command is not None
    to_read, to_write = os.pipe(), os.pipe()

    def wire() -> None:  # the protocol speaks on descriptors 3 and 4
        incoming, outgoing = os.dup(to_write[0]), os.dup(to_read[1])
        os.dup2(incoming, 3)
        os.dup2(outgoing, 4)

    process = subprocess.Popen(
        [command, *_FLAGS, f"--user-data-dir={folder}"],
        preexec_fn=wire,
        close_fds=False,
        stderr=subprocess.DEVNULL,
    )
    os.close(to_write[0])
    os.close(to_read[1])
    try:
        with os.fdopen(to_read[0], "rb") as reader, os.fdopen(to_write[1], "wb") as writer:
            yield Page(reader, writer)
    finally:
        process.terminate()
        process.wait(timeout=20)
