"""One finding of the doctor."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Check:
    """What was looked at, what was found, and what to do about it.

    Attributes:
        state: "absent" is fine for whoever does not want the thing; "broken" is not.
    """

    name: str
    state: Literal["works", "absent", "broken"]
    found: str
    advice: str = ""
