"""The code that made a row: a copy under its root, or one that is made from the row's commit."""

import io
import subprocess
import tarfile
from collections.abc import Sequence
from pathlib import Path

from orchestrator.execution.code_snapshot import CODE_PACKAGES, is_code, is_whole, store_code
from orchestrator.execution.provenance import CHECKOUT
from orchestrator.results.row import Row
from orchestrator.storage.paths import RunPaths
from orchestrator.storage.root import Root
from orchestrator.storage.run_state import events_of


def code_of(row: Row, root: Root, run_folder: Path | None, checkout: Path = CHECKOUT) -> Path:
    """The folder of the code that made a row, below `Root.code`.

    The run's events name the copy that its launch made. A launch in its own process makes none, and
    an old event names none; then it is the copy of the row's commit, which git still knows.

    Args:
        row: a done row.
        root: under which it lies.
        run_folder: its run directory; None where that is gone.
        checkout: whose git is asked.

    Raises:
        ValueError: there is no copy, and none can be made.
    """
    name = _named(row, run_folder)
    if name and is_whole(root.code / name):
        return root.code / name
    cure = "code=now trains with the code of this checkout instead."
    copy = f" Its copy {root.code / name} is gone or was edited." if name else ""
    if name and root.costs_requests:  # a bucket holds runs and results, no code
        copy = (
            f" Its copy lies on the machine that launched it, in code/{name} of its scratch folder."
        )
    who = f"{row.key} attempt {row.attempt} ran code"
    if row.git_dirty or not row.git_commit:
        why = "with changes that were not committed" if row.git_dirty else "of an unknown commit"
        raise ValueError(f"{who} {why}, and there is no copy of it under {root.code}.{copy} {cure}")
    files = _committed(row.git_commit, checkout)
    if files is None:
        raise ValueError(
            f"{who} of commit {row.git_commit[:10]}, of which there is no copy under {root.code} "
            f"and which git does not know in {checkout}.{copy} Fetch it with git, or: {cure}"
        )
    return store_code(root.code, files)


def _named(row: Row, run_folder: Path | None) -> str:
    """Sha256 of the copy of the code that an attempt ran, from its run's events; else empty."""
    events = events_of(RunPaths(run_folder)) if run_folder else []
    codes = [e.get("code", "") for e in events if e.get("attempt") == row.attempt]
    return next(filter(None, codes), "")


def earlier_code(row: Row, rows: Sequence[Row], run_folder: Path | None) -> str:
    """That attempts before a row's ran other code, in one sentence; empty where none is known to.

    An attempt goes on from the checkpoint of the one before it, back to the last one that was done,
    so the row's code alone may not have made its weights.

    Args:
        row: a done row.
        rows: all of its cell; an attempt that was cut off has none.
        run_folder: the row's run directory, whose events name every start; None where that is gone.
    """
    begun = max(
        (r.attempt for r in rows if r.status == "done" and r.attempt < row.attempt), default=0
    )
    made = {r.attempt: ("", r.git_commit, r.git_dirty) for r in [*rows, row]}
    for event in events_of(RunPaths(run_folder)) if run_folder else ():
        if event["event"] == "started":
            commit = event.get("git_commit"), event.get("git_dirty")
            made[event["attempt"]] = (event.get("code", ""), *commit)
    own = made[row.attempt]
    others = [
        f"attempt {number} {_code_words(*code)}"
        for number, code in sorted(made.items())
        if begun < number < row.attempt and _is_other(code, own)
    ]
    if not others:
        return ""
    return (
        f"attempt {row.attempt} ({_code_words(*own)}) went on from attempts of other code "
        f"({', '.join(others)}), whose part is trained here by its code as well"
    )


_Code = tuple[str, str | None, bool | None]  # copy, commit, uncommitted changes


def _is_other(one: _Code, two: _Code) -> bool:
    """Whether two attempts are known to have run different code."""
    if one[0] and two[0]:
        return one[0] != two[0]
    return bool(one[1] and two[1]) and one[1:] != two[1:]


def _code_words(copy: str, commit: str | None, is_dirty: bool | None) -> str:
    if copy:
        return f"copy {copy[:10]}"
    return f"commit {(commit or 'unknown')[:10]}{' with changes' if is_dirty else ''}"


def _committed(commit: str, checkout: Path) -> dict[str, bytes] | None:
    """Every file of the packages in a commit, by its path; None where git has no such commit."""
    words = ["git", "-C", str(checkout), "archive", "--format=tar", commit, *CODE_PACKAGES]
    try:
        done = subprocess.run(words, capture_output=True, check=False, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return None
    if done.returncode != 0:
        return None
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as archive:
        members = [m for m in archive.getmembers() if m.isfile() and is_code(Path(m.name))]
        opened = {member.name: archive.extractfile(member) for member in members}
        return {name: file.read() for name, file in opened.items() if file is not None}
