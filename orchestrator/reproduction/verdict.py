"""Compares a run that was trained again with the row and the traces of the first one."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from datasets.files import file_sha256
from datasets.wording import quantity
from orchestrator.results.counted import is_same
from orchestrator.results.history import metric_lines
from orchestrator.results.row import Row
from trainer.checkpoint_manifest import CHECKPOINTS, manifests, newest, stem

# Columns of a row that another machine, other versions or other data change.
_FACTS = {
    "device": "device",
    "world_size": "ranks",
    "host": "host",
    "python": "Python",
    "torch": "torch",
    "cuda": "CUDA",
    "pretrained_sha256": "first weights",
    "data_fingerprint": "images and masks",
    "split_checksum": "split lists",
}
_SCORES = ("best_miou_percent", "last_miou_percent")


@dataclass(frozen=True)
class Trace:
    """What is known of a run on its way.

    Attributes:
        states: digest of all tensors by step, of checkpoints that are still there.
        values: logged losses and scores by step, and by name.
        guards: what its checkpoints recorded of the machine, see `trainer.checkpoint.guards`.
    """

    states: Mapping[int, str] = field(default_factory=dict)
    values: Mapping[int, Mapping[str, float]] = field(default_factory=dict)
    guards: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Verdict:
    """Whether a run came out the same.

    Attributes:
        kind: same bits: weights and scores are equal; same within rounding: the weights are not,
            and every mIoU differs by at most half a unit of the last digit that tables print;
            different: some mIoU differs by more.
        decimals: that tables print.
        scores: mIoU of the best and of the last epoch, then and now, by column of the row.
        weights: sha256 of the final weights, then and now.
        same_until: the last step at which all that both runs left is equal; None without one.
        different_from: the first step at which something differs; None without one.
        first_difference: what differs there.
        facts: what differs in machine, versions, code and data.
        earlier_code: that attempts before the row's ran other code; empty where none did.
    """

    key: str
    attempt: int
    kind: Literal["same bits", "same within rounding", "different"]
    decimals: int
    scores: Mapping[str, tuple[float | None, float | None]]
    weights: tuple[str | None, str | None]
    same_until: int | None
    different_from: int | None
    first_difference: str
    facts: tuple[str, ...]
    earlier_code: str = ""

    def lines(self) -> Iterator[str]:
        """The verdict as text, the answer first."""
        best, last = (self.scores[name][0] for name in _SCORES)
        if self.kind == "same bits":
            weights = str(self.weights[0])[:12]
            yield f"same bits: final weights {weights}, best mIoU {_text(best)}, last {_text(last)}"
        else:
            then = ", ".join(
                f"{name.partition('_')[0]} mIoU {_text(one)} then, {_text(two)} now"
                + ("" if None in (one, two) else f" ({_gap((one, two)):+.4f})")
                for name, (one, two) in self.scores.items()
            )
            digits = quantity(self.decimals, "decimal")
            rounding = f" to {digits}, with other weights"
            yield f"{self.kind}{'' if self.kind == 'different' else rounding}: {then}"
            yield self._since()
        yield from (f"differs: {fact}" for fact in self.facts)
        if self.earlier_code:
            yield f"note: {self.earlier_code}"

    def _since(self) -> str:
        """Where the two runs part."""
        if self.different_from is None:
            return "since which step is not known: the first run left no trace that differs"
        until = f"the same up to step {self.same_until}, " if self.same_until is not None else ""
        return f"{until}different from step {self.different_from} on: {self.first_difference}"


def verdicts_json(verdicts: Iterable[Verdict]) -> str:
    """Verdicts as JSON, see docs/results.md."""
    return json.dumps([asdict(verdict) for verdict in verdicts], indent=1)


def trace_of(run_folder: Path) -> Trace:
    """The traces of a run in its directory."""
    import torch

    from trainer.determinism import digest

    states = {}
    for manifest in manifests(run_folder):
        path = run_folder / CHECKPOINTS / f"{stem(manifest.step)}.pt"
        if path.is_file() and file_sha256(path) == manifest.sha256:
            packed = torch.load(path, map_location="cpu", weights_only=True)
            states[manifest.step] = digest(packed["tensors"])
    last = newest(run_folder)
    return Trace(states, by_step(metric_lines(run_folder)), last.guards if last else {})


def by_step(lines: Sequence[Mapping[str, Any]]) -> dict[int, dict[str, float]]:
    """Logged numbers by step; of a step that was logged and scored both."""
    values: dict[int, dict[str, float]] = {}
    for line in lines:
        numbers = {n: v for n, v in line.items() if isinstance(v, float) and n != "epoch"}
        values.setdefault(int(line["step"]), {}).update(numbers)
    return values


def compare(
    row: Row,
    then: Trace,
    now: Trace,
    *,
    summary: Mapping[str, Any],
    facts: Mapping[str, Any],
    decimals: int,
) -> Verdict:
    """The verdict on a run that was trained again.

    Args:
        row: of the first run.
        then: its traces.
        now: those of the second run.
        summary: the second run's `Summary` as plain data.
        facts: of the process that trained it: host, python, torch, cuda, and code, which is empty
            where it is that of the row.
        decimals: with which the tables print the number.
    """
    scores = {name: (getattr(row, name), summary[name]) for name in _SCORES}
    weights = (row.weights_sha256, summary["weights_sha256"])
    same, differs, text = _parting(then, now)
    if weights[0] == weights[1] and all(one == two for one, two in scores.values()):
        kind: Literal["same bits", "same within rounding", "different"] = "same bits"
    else:
        near = all(abs(_gap(pair)) <= 0.5 * 10.0**-decimals for pair in scores.values())
        kind = "same within rounding" if near else "different"
    return Verdict(
        key=row.key,
        attempt=row.attempt,
        kind=kind,
        decimals=decimals,
        scores=scores,
        weights=weights,
        same_until=same,
        different_from=differs,
        first_difference=text,
        facts=tuple(_fact_lines(row, {**summary, **facts}, then.guards, now.guards)),
    )


def _text(miou_percent: float | None) -> str:
    return "none" if miou_percent is None else f"{miou_percent:.4f}"


def _gap(pair: tuple[float | None, float | None]) -> float:
    """Now minus then; infinite where only one is known."""
    one, two = pair
    if one is None or two is None:
        return 0.0 if one is two else float("inf")
    return two - one


def _parting(then: Trace, now: Trace) -> tuple[int | None, int | None, str]:
    """Last step with equal traces before the first one with different traces, and that one."""
    same = None
    for step in sorted({*then.states, *then.values} & {*now.states, *now.values}):
        differing = list(_differing(step, then, now))
        if differing:
            return same, step, differing[0]
        same = step
    return same, None, ""


def _differing(step: int, then: Trace, now: Trace) -> Iterator[str]:
    """What differs at a step that both runs left traces of; losses first, as they say how far."""
    before, after = then.values.get(step, {}), now.values.get(step, {})
    for name in sorted(before.keys() & after.keys()):
        one, two = before[name], after[name]
        if one != two:
            yield f"{name} {one:.4g} -> {two:.4g} (by {two - one:+.1e})"
    states = then.states.get(step), now.states.get(step)
    if all(states) and states[0] != states[1]:
        yield "the state in the checkpoint"


def _fact_lines(
    row: Row, now: Mapping[str, Any], guards_then: Mapping[str, Any], guards: Mapping[str, Any]
) -> Iterator[str]:
    """What differs in machine, versions, code and data; what one side does not know is left out."""
    for name, word in _FACTS.items():
        one, two = getattr(row, name), now.get(name)
        if not is_same(*(None if value is None else str(value) for value in (one, two))):
            yield f"{word}: {_short(one)} -> {_short(two)}"
    if now["code"]:
        yield f"code: {now['code']}"
    known = {"data", "split", "torch", "cuda", "world_size", "device"}  # said above
    for name in sorted((guards_then.keys() & guards.keys()) - known):
        if guards_then[name] != guards[name]:
            yield f"{name}: {guards_then[name]} -> {guards[name]}"


def _short(value: object) -> str:
    text = str(value)
    return text[:12] if len(text) == 64 else text
