"""pyarrow without pandas, which it would import for the first list that it is given.

It only asks whether that list is a pandas object, and none is given to it here. The import costs
every command and every worker half a second of CPU and 27 MB.
"""

import sys
from functools import cache
from importlib.abc import MetaPathFinder

import pyarrow as pa


class _NoPandas(MetaPathFinder):
    """Answers `import pandas` as if it was not installed."""

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        if name == "pandas":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


@cache
def leave_out_pandas() -> None:
    """Let pyarrow look for pandas while there is none; it looks once.

    A later call that needs pandas, such as `to_pandas`, imports it nevertheless.
    """
    absent = _NoPandas()
    sys.meta_path.insert(0, absent)
    try:
        pa.array([0])
    finally:
        sys.meta_path.remove(absent)
