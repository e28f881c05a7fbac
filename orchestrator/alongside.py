"""A thread beside a block of code: heartbeats, pushes, screens."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def alongside(run: Callable[[threading.Event], None], name: str) -> Iterator[None]:
    """Run something until the block ends.

    Args:
        run: called in a thread with the event that tells it to return.
        name: of the thread, as stack dumps show it.
    """
    stop = threading.Event()
    thread = threading.Thread(target=run, args=(stop,), daemon=True, name=name)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
