"""What happened to a run: one JSON object per line, appended whole."""

import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any


def append(path: Path, event: str, **facts: Any) -> None:
    """Add a line; one write, so that lines of several processes never mix.

    Args:
        path: the file; its folder exists.
        event: what happened, one word.
        facts: JSON values.
    """
    line = json.dumps({"time": datetime.now(UTC).isoformat(), "event": event, **facts}) + "\n"
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(descriptor, line.encode())
    finally:
        os.close(descriptor)


def read(path: Path) -> list[dict[str, Any]]:
    """All whole lines, oldest first; a line cut by a crash is left out."""
    if not path.exists():
        return []
    events = []
    for line in path.read_text().splitlines():
        try:
            events.append(json.loads(line))
        except ValueError:
            continue
    return events
