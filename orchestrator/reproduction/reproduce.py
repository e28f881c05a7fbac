"""Trains the runs behind a printed number again, in a place of their own, and compares."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import yaml

from datasets.dataset import open_dataset
from datasets.files import atomic_write
from datasets.wording import listed, quantity
from orchestrator.backends.base import worker_environment
from orchestrator.display.format import about
from orchestrator.execution.code_snapshot import snapshot_code
from orchestrator.execution.provenance import checkout_state, current_provenance
from orchestrator.planning.plan import EXIT_UNFINISHED, Plan
from orchestrator.printers.explain import explain
from orchestrator.reproduction.row_code import code_of, earlier_code
from orchestrator.reproduction.verdict import Trace, Verdict, by_step, compare, trace_of
from orchestrator.results.counted import counted, data_of
from orchestrator.results.history import read_history, run_history
from orchestrator.results.row import Row
from orchestrator.results.store import read_rows, state_rows
from orchestrator.storage.file_lock import file_lock
from orchestrator.storage.root import Root
from orchestrator.tables.filled import FilledTable
from trainer.checkpoint_manifest import CHECKPOINTS, manifests, stem
from trainer.config.compose import from_json
from trainer.config.fingerprint import fingerprint
from trainer.hardware.gpu import check_device


class Stopped(RuntimeError):
    """The training was asked to stop; the same command goes on."""


@dataclass(frozen=True)
class Order:
    """One run that is to be trained again.

    Attributes:
        config_json: of the row, with the words of the command.
        code: folder whose code trains it.
        code_change: how that differs from the row's code; empty where it does not.
        then: traces of the first run.
        has_history_only: whether those are the published epochs, as the run directory is gone.
        earlier_code: that attempts before the row's ran other code, see `earlier_code`.
    """

    row: Row
    config_json: str
    code: Path
    code_change: str
    then: Trace
    has_history_only: bool
    earlier_code: str


def rows_behind(what: str, plan: Plan, filled: Sequence[FilledTable]) -> list[Row]:
    """The rows of one printed number, or the counted ones of a cell.

    Raises:
        ValueError: nothing is called so, several entries are, it is quoted, or it has no result.
    """
    rows = state_rows(plan.root, plan.grid.cells)
    whole = {(row.key, row.attempt): row for row in rows}  # those of tables lack columns
    explanations = explain(what, filled, rows, today=plan.today)
    if len(explanations) > 1:
        names = ", ".join(explanation.name for explanation in explanations[:10])
        count = quantity(len(explanations), "entry", "entries")
        raise ValueError(f"{what} is {count}; choose one of them: {names}.")
    (explanation,) = explanations
    behind = counted(explanation.rows, plan.today).values()
    done = [whole[row.key, row.attempt] for row in behind if row.status == "done"]
    if not done:
        raise ValueError(f"{explanation.name} has no run to train again: {explanation.formula}.")
    return done


def order_of(row: Row, root: Root, overrides: Sequence[str], *, with_todays_code: bool) -> Order:
    """Check that a row can be trained again here, and collect what that needs.

    Raises:
        ValueError: its data changed or are not here, its code is gone, or a setting would change
            what is trained.
        DeviceError: it ran on a GPU, and torch cannot use one here.
    """
    text = _with_settings(row, overrides)
    config = from_json(text)
    if config.run.device == "auto" and row.device != "cpu":
        check_device("cuda")  # a row of a card is not trained on the CPU unless that is asked for
    changes = open_dataset(config.data).identity.changes_since(
        data_of(row), row.split_checksum or ""
    )
    if changes:
        raise ValueError(
            f"{row.key} cannot be trained again: its data are no longer those of attempt "
            f"{row.attempt}: {'; '.join(changes)}. Bring the old files back, or name them with "
            "data.root=."
        )
    folder = _run_folder(row, root)
    if with_todays_code:
        code, change = snapshot_code(root.code), _code_change(row)
    else:
        code, change = code_of(row, root, folder), ""
    then = trace_of(folder) if folder else _published_trace(row, root)
    return Order(
        row,
        text,
        code,
        change,
        then,
        has_history_only=folder is None,
        earlier_code=earlier_code(row, read_rows(root, keys=[row.key]), folder),
    )


def estimate_text(orders: Sequence[Order]) -> str:
    """How long it may take to train runs again, from how long they took at first."""
    rows = [order.row for order in orders]
    runs = f"{quantity(len(rows), 'run')} to train again"
    seconds = [row.seconds for row in rows if row.seconds is not None]
    if len(seconds) < len(rows):
        return f"{runs}; how long it took at first is not known"
    where = listed(sorted({f"{row.device} of {row.host or 'an unknown host'}" for row in rows}), 3)
    return f"{runs}, about {about(sum(seconds))}: so long it took at first, on {where}"


def reproduce(order: Order, root: Root, decimals: int, say: Callable[[str], None]) -> Verdict:
    """Train a run again and compare; a call that was stopped before is continued.

    Args:
        order: of the run.
        root: of the row, beside whose runs the place of the reproduction lies.
        decimals: with which the tables print the number.
        say: given a line about where it trains.

    Raises:
        Stopped: Ctrl-C or SIGTERM.
        RuntimeError: the training failed.
        Busy: another command trains this row there.
    """
    plain = {"config_json": order.config_json, "code": order.code.name}
    text = json.dumps(plain | {"steps": sorted(order.then.states)}, sort_keys=True)
    place = _place(root, order.row, text)
    ranks = order.row.world_size or 1
    say(f"{order.row.key} attempt {order.row.attempt}: code {order.code}, trains in {place}")
    with file_lock(place / "lock", "a reproduction"):
        atomic_write(place / "order.json", text)
        _train(place, order.code, ranks)
        verdict = compare(
            order.row,
            order.then,
            _second_trace(place, has_history_only=order.has_history_only),
            summary=json.loads((place / "summary.json").read_text()),
            facts=asdict(current_provenance()) | {"code": order.code_change},
            decimals=decimals,
        )
        verdict = replace(verdict, earlier_code=order.earlier_code)
        atomic_write(place / "verdict.json", json.dumps(asdict(verdict), indent=1))
    return verdict


def _with_settings(row: Row, overrides: Sequence[str]) -> str:
    """The row's configuration with settings that say where or how fast it trains.

    Only what is named changes: fields that this code added later are unknown to the row's code.
    """
    plain = json.loads(row.config_json)
    for word in overrides:
        name, _, value = word.lstrip("+~").partition("=")
        *groups, last = name.split(".")
        inner = plain
        for group in groups:
            inner = inner.setdefault(group, {})
        inner[last] = yaml.safe_load(value)
    text = json.dumps(plain, sort_keys=True, separators=(",", ":"))
    if fingerprint(from_json(text)) != fingerprint(from_json(row.config_json)):
        raise ValueError(
            f"{' '.join(overrides)} would change what is trained. `reproduce` takes settings that "
            "only say where or how fast, such as data.root= or run.device=."
        )
    return text


def _run_folder(row: Row, root: Root) -> Path | None:
    """A folder to read the first run from, with its checkpoints; None where it is gone."""
    place = root.places(row.key).get(row.attempt)
    if place is None:
        return None
    name = Path(place).name
    steps = [manifest.step for manifest in manifests(root.local_copy(name).folder)]
    weights = {f"{CHECKPOINTS}/{stem(step)}.pt" for step in steps}
    return root.local_copy(name, also=weights).folder


def _published_trace(row: Row, root: Root) -> Trace:
    """The published epochs of a run whose directory is gone."""
    epochs = read_history(root, [row.cell]).to_pylist()
    own = [e for e in epochs if (e["key"], e["attempt"]) == (row.key, row.attempt)]
    return Trace(values=by_step(own))


def _second_trace(place: Path, *, has_history_only: bool) -> Trace:
    """The traces of the run that was trained again, of the kind of those of the first one."""
    trace, states = trace_of(place / "run"), place / "states.jsonl"
    lines = states.read_text().splitlines() if states.exists() else []
    digests = {line["step"]: line["digest"] for line in map(json.loads, lines)}
    trace = replace(trace, states={**trace.states, **digests})
    return replace(trace, values=by_step(run_history(place / "run"))) if has_history_only else trace


def _code_change(row: Row) -> str:
    """How the code of this checkout differs from a row's, as far as git says."""
    commit, is_dirty = checkout_state()
    then, now = (
        f"{(name or 'unknown commit')[:12]}{' with uncommitted changes' if dirty else ''}"
        for name, dirty in ((row.git_commit, row.git_dirty), (commit, is_dirty))
    )
    return f"{then} -> {now}"


def _place(root: Root, row: Row, order: str) -> Path:
    """The folder of a reproduction: a new one, or that of the same order that was not finished."""
    base = root.printed / "reproductions" / f"{row.key}.a{row.attempt:04d}"
    place, number = base, 1
    while place.exists() and not _is_begun(place, order):
        number += 1
        place = base.with_name(f"{base.name}.{number}")
    return place


def _is_begun(place: Path, order: str) -> bool:
    """Whether a folder holds the same order, which was not finished."""
    begun = place / "order.json"
    is_same = begun.is_file() and begun.read_text() == order
    return is_same and not (place / "summary.json").exists()


def _train(place: Path, code: Path, ranks: int) -> None:
    """Train in a process of its own, or in one per rank, with the given code first on the path."""
    command = [sys.executable, str(Path(__file__).with_name("retrain.py")), str(place)]
    if ranks > 1:
        launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks)]
        command = [sys.executable, *launcher, *command[1:]]
    # Without PYTHONSAFEPATH the folder of the script would come before the code.
    environment = {**os.environ, **worker_environment(str(code)), "PYTHONSAFEPATH": "1"}
    with subprocess.Popen(command, env=environment) as process, _forwarded(process):
        returned = process.wait()
    if returned == EXIT_UNFINISHED:
        raise Stopped(f"Stopped; the same command goes on from its checkpoint in {place}.")
    if returned != 0:
        raise RuntimeError(
            f"The training in {place} failed with exit code {returned}; its error stands above. "
            "The same command goes on from its checkpoint."
        )


@contextmanager
def _forwarded(process: "subprocess.Popen[bytes]") -> Iterator[None]:
    """Pass Ctrl-C and SIGTERM on to a process, which checkpoints, instead of dying before it."""
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {n: signal.signal(n, lambda *_: process.terminate()) for n in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
