"""Wait for something that other processes do."""

import time
from collections.abc import Callable


def wait_until(holds: Callable[[], object], seconds: float = 300.0) -> None:
    """Look until it holds."""
    give_up = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < give_up, "it did not happen in time"
        time.sleep(0.05)
