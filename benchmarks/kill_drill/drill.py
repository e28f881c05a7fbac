"""Launches a grid again and again under drawn accidents until it is done, then compares it."""

import os
import re
import shutil
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from benchmarks.kill_drill.compare import differences
from benchmarks.kill_drill.kinds import BLOODLESS, Scene
from benchmarks.kill_drill.moments import Moments
from orchestrator.storage.open import open_root
from tests.support.lab import BASE, TINY, Command, Lab, kill_family

MOMENTS = ("start-up", "training", "publishing")
_HOSTS = ("one", "other")  # scratch folders under a bucket, each as of a host of its own
_METHODS = [(m, loss) for m in ("unimatch_star", "fixmatch_star") for loss in ("kl", "none", "cr")]
_EPOCHS = 4
_LOOK_SECONDS = 0.005
_PATIENCE_SECONDS = 600.0  # of a launch without a step
_BUG = re.compile(r"Traceback|Error at \w+/")  # no launch may say that
_SPREAD_SECONDS = {"start-up": 1.5, "training": 0.5, "publishing": 0.15}
_SLOW_START = 6.0  # so many times as long starts a launch that starts other processes


@dataclass(frozen=True)
class Plan:
    """What to do.

    Attributes:
        backend: inline, ray, slurm, or work: five workers in place of a launch.
        folder: in which everything lies.
        url: of the roots, instead of the folder; empty for none.
        kills: how many.
        cells: of each round.
        ranks: of each cell.
        seed: of the accidents.
        words: further ones of each launch.
    """

    backend: str
    folder: Path
    url: str = ""
    kills: int = 20
    cells: int = 3
    ranks: int = 1
    seed: int = 2026
    words: tuple[str, ...] = ()

    @property
    def launch(self) -> list[str]:
        """The words of a launch."""
        ranks = [f"ranks={self.ranks}"] if self.ranks > 1 else []
        return [f"backend={self.backend}", *ranks, *self.words]


@dataclass
class Tally:
    """What happened.

    Attributes:
        met: how often a kind of accident happened at which moment.
        missed: how often a kind was drawn and found nothing to kill or to fill.
        rounds: grids that were done in the end.
        launches: in all of them.
        attempts: at their cells.
        ends: exit codes of the launches that nobody killed.
        findings: what must not be, in words.
    """

    met: Counter[tuple[str, str]] = field(default_factory=Counter)
    missed: Counter[str] = field(default_factory=Counter)
    rounds: int = 0
    launches: int = 0
    attempts: int = 0
    ends: Counter[int] = field(default_factory=Counter)
    findings: list[str] = field(default_factory=list)

    @property
    def kills(self) -> int:
        """Accidents that were kills."""
        return sum(n for (kind, _), n in self.met.items() if kind not in BLOODLESS)


class Drill:
    """Rounds of one grid, each under a root of its own.

    Args:
        plan: what to do.
        scene: what accidents can meet.
    """

    def __init__(self, plan: Plan, scene: Scene) -> None:
        self.plan, self.scene = plan, scene
        self.tally = Tally(findings=scene.findings)
        self._data = plan.folder / "drawn"
        self._kinds = scene.kinds(plan.backend)

    def run(self) -> Tally:
        """The whole drill; Ctrl-C ends it early."""
        calm = self._lab(self.plan.folder / "calm", "")
        backend = "inline" if self.plan.ranks == 1 else "ray"
        calm.run("launch", f"backend={backend}", *self.plan.launch[1 : 1 + (self.plan.ranks > 1)])
        last_steps = {key: row.steps or 0 for key, row in calm.rows().items()}
        try:
            while self.tally.kills < self.plan.kills:
                self._round(calm, last_steps)
        except KeyboardInterrupt:
            print("interrupted: the table is of what happened until now", flush=True)
        finally:
            self._leave()
        return self.tally

    def _leave(self) -> None:
        """Nothing that was started goes on."""
        kill_family(self.scene.launch.pid)

    def _lab(self, folder: Path, url: str) -> Lab:
        """A lab with the grid."""
        lab = Lab(folder, self._data, url)
        folder.mkdir(parents=True)
        pairs = [_METHODS[number % len(_METHODS)] for number in range(self.plan.cells)]
        seeds = range(1, 2 + (self.plan.cells - 1) // len(_METHODS))
        spec = {
            "title": "Kills",
            "overrides": [f"optim.epochs={_EPOCHS}", "optim.lr=0.05", *TINY],
            "seeds": list(seeds),
            "cells": [
                {"base": {**BASE, "method": method, "loss": loss}}
                for method, loss in dict.fromkeys(pairs)
            ],
        }
        lab.grid.write_text(yaml.safe_dump(spec))
        return lab

    def _round(self, calm: Lab, last_steps: dict[str, int]) -> None:
        """One grid to its end, and what differs from the undisturbed one."""
        number = self.tally.rounds + 1
        url = f"{self.plan.url}/round-{number}" if self.plan.url else ""
        folder = (self.scene.disk.folder if self.scene.disk else self.plan.folder) / f"{number}"
        lab = self._lab(folder, url)
        while self._launch(lab, last_steps) != 0:
            self._heal()
        self._heal()
        found = differences(calm, lab)
        self.scene.findings += [f"round {number}: {line}" for line in found]
        self.tally.rounds += 1
        self.tally.attempts += sum(lab.attempts(key) for key in last_steps)
        sums = f"{self.tally.kills} kills, {self.tally.launches} launches, {len(found)} differences"
        print(f"{time.strftime('%T')} round {number}: {sums} here", flush=True)
        print(*found, sep="\n", end="\n" if found else "", flush=True)
        if not found:
            shutil.rmtree(folder)
            if url:
                shutil.rmtree(lab.opened.printed, ignore_errors=True)

    def _heal(self) -> None:
        """What still waits to harm requests would meet the drill's own."""
        if self.scene.gateway:
            self.scene.gateway[1].heal()

    def _launch(self, lab: Lab, last_steps: dict[str, int]) -> int | None:
        """One launch under accidents; its exit code, None where an accident ended it."""
        draws = self.scene.draws
        lab = Lab(lab.folder, lab.data, lab.url, _HOSTS[draws.integer(0, 1)])
        moments = Moments(lab, open_root(lab.address, str(lab.folder / lab.host)), last_steps)
        launch = Output(lab.start("launch", *self.plan.launch))
        self.scene.lab, self.scene.launch = lab, launch.command
        print(f"{time.strftime('%T')} launch", flush=True)
        self.tally.launches += 1
        is_killed = False
        moment = MOMENTS[draws.integer(0, 2)]
        while not is_killed and self.tally.kills < self.plan.kills:
            if not self._wait(moment, moments):
                break
            kind = self._draw_kind()
            print(f"{time.strftime('%T')} {moment}: {kind}", flush=True)
            if self.scene.happen(kind):
                self.tally.met[kind, moment] += 1
            else:
                self.tally.missed[kind] += 1
            # The launch is dead even where the root could not be made read-only in time.
            is_killed = kind in ("launch", "everything", "read-only")
            moment = MOMENTS[draws.integer(1, 2)]
        return None if is_killed else self._end(launch)

    def _draw_kind(self) -> str:
        """A kill, or in one of eight cases another accident."""
        draws, kinds = self.scene.draws, self._kinds
        others = [kind for kind in kinds if kind in BLOODLESS]
        kills = [kind for kind in kinds if kind not in BLOODLESS]
        chosen = others if others and draws.integer(1, 8) == 1 else kills
        return chosen[draws.integer(0, len(chosen) - 1)]

    def _wait(self, moment: str, moments: Moments) -> bool:
        """Wait for a moment of the launch; False where it ended before."""
        seen, give_up = moments.steps(), time.monotonic() + _PATIENCE_SECONDS
        holds = {
            "start-up": lambda: True,
            "training": lambda: moments.steps() > seen,
            "publishing": moments.is_publishing,
        }[moment]
        spread = _SPREAD_SECONDS[moment]
        if moment == "start-up" and self.plan.backend != "inline":
            spread *= _SLOW_START
        while not holds():
            if self._has_ended():
                return False
            if time.monotonic() > give_up:
                self.scene.findings.append(f"no {moment} for {_PATIENCE_SECONDS:g} s")
                return False
            time.sleep(_LOOK_SECONDS)
        time.sleep(self.scene.draws.uniform(0.0, spread))
        return not self._has_ended()

    def _has_ended(self) -> bool:
        return self.scene.launch.poll() is not None

    def _end(self, launch: "Output") -> int:
        """Wait for the end of a launch that nobody killed."""
        code, text = launch.end()
        self.tally.ends[code] += 1
        last = text.strip().splitlines()[-1:] if code else []
        print(f"{time.strftime('%T')} a launch ended with {code}", *last, flush=True)
        if code in (1, -9) or _BUG.search(text):
            self.scene.findings.append(f"a launch ended with {code}: {text[-1500:]}")
        return code


class Output:
    """What a launch prints, read while it runs, so that it never waits for a reader."""

    def __init__(self, command: Command) -> None:
        self.command = command
        self._lines: list[str] = []
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        assert self.command.stdout is not None
        with self.command.stdout as stream:
            self._lines.extend(stream)

    def end(self) -> tuple[int, str]:
        """Its exit code and what it printed; a launch that takes for ever is killed."""
        give_up = time.monotonic() + _PATIENCE_SECONDS
        while self.command.poll() is None and time.monotonic() < give_up:
            time.sleep(_LOOK_SECONDS * 4)
        if self.command.poll() is None:
            os.kill(self.command.pid, 9)
        code = self.command.wait(60)
        self._thread.join(10)
        return code, "".join(self._lines)
