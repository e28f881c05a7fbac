"""Credentials that run out, and a clock that is off: said at a door, waited for inside a run."""

import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from datasets.errors import Unreachable
from datasets.storage.base import WAIT_VARIABLE, Storage
from datasets.storage.open import open_storage
from orchestrator.__main__ import main

_ERROR = "<?xml version='1.0' encoding='UTF-8'?><Error><Code>{}</Code></Error>"
_EMPTY = "<?xml version='1.0' encoding='UTF-8'?><ListBucketResult></ListBucketResult>"


@dataclass
class Store:
    """A store that lists an empty bucket for one key, and refuses all others with a code."""

    credentials: Path
    good_key: str = "OLD"
    code: str = "ExpiredToken"
    renew_after: int = 0  # refusals after which the user renews the credentials
    keys: list[str] = field(default_factory=list)

    def use(self, key: str) -> None:
        self.credentials.write_text(
            f"[default]\naws_access_key_id = {key}\naws_secret_access_key = s\n"
        )

    def answer(self, key: str) -> tuple[int, str]:
        self.keys.append(key)
        if key == self.good_key:
            return 200, _EMPTY
        if self.renew_after and len(self.keys) >= self.renew_after:
            self.use(self.good_key)
        return 400 if self.code == "ExpiredToken" else 403, _ERROR.format(self.code)


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    here = Store(tmp_path / "credentials")
    here.use("OLD")

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            key = re.search(r"Credential=(\w+)/", self.headers["Authorization"])
            status, text = here.answer(key[1] if key else "")
            self.send_response(status)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *words: object) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE", WAIT_VARIABLE):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.delenv("AWS_ENDPOINT_URL_S3", raising=False)
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(here.credentials))
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    yield here
    server.shutdown()
    server.server_close()


def storage_of(tmp_path: Path, patience: float = 60.0) -> Storage:
    """A bucket that no other test has reached."""
    return open_storage(f"s3://{tmp_path.name.replace('_', '-')}/x", patience=patience)


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("ExpiredToken", "its credentials have run out. Renew them"),
        ("RequestTimeTooSkewed", "this machine's clock is off. Set it"),
    ],
)
def test_a_command_says_at_once_what_the_user_must_mend(
    store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str], code: str, words: str
) -> None:
    store.good_key, store.code = "NEW", code
    bucket = tmp_path.name.replace("_", "-")

    exit_code = main(["status", "demo", f"root=s3://{bucket}/x", f"scratch={tmp_path / 's'}"])

    assert exit_code == 20
    (line,) = capsys.readouterr().err.splitlines()
    assert words in line
    assert f"{code}" in line
    assert store.keys == ["OLD"]


def test_a_run_waits_for_renewed_credentials_and_goes_on_with_them(
    store: Store, tmp_path: Path
) -> None:
    storage = storage_of(tmp_path)
    assert storage.entries() == []

    store.good_key, store.renew_after = "NEW", 3

    assert storage.entries() == []
    assert store.keys == ["OLD", "OLD", "OLD", "NEW"]


def test_a_worker_waits_from_its_first_request_on(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(WAIT_VARIABLE, "1")
    store.good_key, store.renew_after = "NEW", 2

    assert storage_of(tmp_path).entries() == []
    assert store.keys == ["OLD", "OLD", "NEW"]


def test_credentials_that_nobody_renews_are_said_after_the_patience(
    store: Store, tmp_path: Path
) -> None:
    storage = storage_of(tmp_path, patience=1.0)
    assert storage.entries() == []
    store.good_key = "NEW"

    with pytest.raises(Unreachable, match="its credentials have run out"):
        storage.entries()
    assert len(store.keys) > 2
