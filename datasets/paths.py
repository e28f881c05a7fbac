"""Where `data/` and `weights/` lie that no setting places elsewhere."""

import os
from pathlib import Path

VARIABLE = "IPIXMATCH_HOME"


def home() -> Path:
    """The folder that the environment names, or the checkout."""
    # A launch runs a copy of the code, which has neither folder beside it.
    named = os.environ.get(VARIABLE)
    return Path(named) if named else Path(__file__).resolve().parents[1]
