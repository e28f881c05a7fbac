"""The verbs by their words, each with all that `--help` says about it, in the order of the list."""

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Protocol, cast

from datasets.cli import VerbHelp, aligned
from datasets.storage.open import folder_of, is_url
from datasets.wording import did_you_mean, did_you_mean_path
from orchestrator.commands.output import print_note
from orchestrator.options import describe
from sweeps.grid import grid_names

PROGRAM = "python -m orchestrator"

_ROOT = ("root", "scratch")
_READ = (*_ROOT, "only")
_TABLES = (*_READ, "epoch")
_OF_WORKER = (*_READ, "gpus_per_rank", "gpu_memory_gb", "retries", "hang_minutes", "on_event")
_SETTING = "Any other key=value is a setting of the training for every cell, such as optim.epochs=2"
_JSON = "the answer, or an error, for programs: docs/json.md has the keys and codes"
_LIST = "(`python -m trainer --help` lists them)."


class VerbFunction(Protocol):
    """What a verb does: what stands behind the verb and the key=value words in, exit code out."""

    def __call__(self, target: str, words: Sequence[str], /, *, json: bool) -> int:
        """Run the verb; returns the exit code."""


@dataclass(frozen=True)
class Verb:
    """A verb of the command line.

    Attributes:
        function: what it does, as module.function of this folder. A name and no import, since
            most verbs must answer without what the others need.
        help: its own forms, settings, examples and exit codes.
        options: of a launch that mean something to it; None for all of them.
        target: what must stand behind it: a grid, a cell, or nothing.
        flags: that it takes.
    """

    function: str
    help: VerbHelp
    options: Sequence[str] | None = _READ
    target: str = "grid"
    flags: tuple[str, ...] = ("--json",)

    @property
    def run(self) -> VerbFunction:
        """The function, imported now."""
        module, _, name = self.function.partition(".")
        function = getattr(import_module(f"orchestrator.commands.{module}"), name)
        return cast(VerbFunction, function)

    def text(self, word: str) -> str:
        """What `--help` prints behind this verb."""
        more = [
            *aligned("--json", _JSON),
            "",
            "Options, with their defaults:",
            *describe(self.options),
        ]
        if self.target == "grid":
            more += [_SETTING, f"{_LIST} GRID is a YAML file, or one of", *grid_lines()]
        return self.help.text(PROGRAM, word, more=more)

    def start(self, word: str, words: Sequence[str], flags: Sequence[str]) -> int:
        """Run the verb, once it has its target and no flag that it does not know.

        Raises:
            ValueError: the words or flags are not those of this verb; or an error of its own.
        """
        unknown = [flag for flag in flags if flag not in self.flags]
        if unknown:
            text = f"{word} takes {', '.join(self.flags)}, not {' '.join(unknown)}"
            near = did_you_mean(unknown[0], self.flags)
            raise ValueError(f"{text}; {PROGRAM} {word} --help says more.{near}")
        target, rest = "", list(words)
        if self.target:
            # The path of a grid's file may hold `=` itself.
            if not rest or ("=" in rest[0] and not Path(rest[0]).expanduser().is_file()):
                example = f"{PROGRAM} {self.help.examples[0]}"
                raise ValueError(f"{word} needs a {self.target}: {example}")
            target, *rest = rest
        self._check_words(word, rest)
        if self.options is not None:
            _note_absent_root(rest)
        own = [flag for flag in flags if flag != "--json"]
        return self.run(target, [*rest, *own], json="--json" in flags)

    @property
    def own_words(self) -> list[str]:
        """Keys of key=value words that are no option of a launch."""
        names = [name.partition("=")[0] for name, _ in self.help.settings]
        return [name for name in names if not name.startswith("-")]

    def _check_words(self, word: str, words: Sequence[str]) -> None:
        """Refuse words of other verbs, and what is nearly a word of this one.

        All other words are options of the launch or settings, which `options.parse` looks at.
        """
        for key in (key for key, equals, _ in (text.partition("=") for text in words) if equals):
            takers = [name for name, verb in VERBS.items() if key in verb.own_words]
            if takers and word not in takers:
                raise ValueError(f"{word} takes no {key}=; it is a word of {' and '.join(takers)}.")
            near = did_you_mean(key, self.own_words, cutoff=LIKE)
            if near and not takers:
                text = f"Unknown setting {key!r}.{near}"
                raise ValueError(f"{text} {PROGRAM} {word} --help says more.")


def _note_absent_root(words: Sequence[str]) -> None:
    """Say that the folder of results of a reading verb is not there, but one of a like name."""
    roots = [word.partition("=")[2] for word in words if word.startswith("root=")]
    path = folder_of(roots[-1]) if roots and not is_url(roots[-1]) else None
    near = did_you_mean_path(path) if path is not None and not path.exists() else ""
    if near:
        print_note(f"note: there is no folder {path} yet.{near}", "yellow")


LIKE = 0.75  # of a word and a misspelt one; no option of a launch is so like another word


def _help(
    form: str,
    note: str,
    *examples: str,
    exits: Mapping[int, str] | None = None,
    settings: Sequence[tuple[str, str]] = (),
) -> VerbHelp:
    """The help of a verb with one form, and the exit codes that all verbs share."""
    shared = {
        0: "done",
        2: "usage or configuration; nothing was done",
        11: "the program itself failed",
        20: "Ray, Slurm or the object store is unreachable",
    }
    return VerbHelp(((form, note),), examples, shared | dict(exits or {}), tuple(settings))


_OF_RUNS = {
    0: "everything wanted is done",
    10: "cells are still to do, or another launch has the grid",
    11: "some cells failed for good, or the program itself did",
}
_OF_STATES = _OF_RUNS | {10: "cells are still to do"}

VERBS: dict[str, Verb] = {
    "plan": Verb(
        "cells.plan_verb",
        _help(
            "GRID [probe=yes] [price=2.5]",
            "what would run, why, for how long and for how much",
            "plan paper root=outputs",
            "plan paper only=voc.* gpu_memory_gb=24 --json",
            "plan demo probe=yes price=2.5 budget=10h",
            settings=[
                ("show=120", "how many cells, in the grid's order; or all"),
                ("probe=no", "yes: time 20 steps of each kind of cell here, in one process"),
                ("price=", "of a GPU-hour, or of a core-hour without GPUs"),
            ],
        ),
        options=None,
    ),
    "launch": Verb(
        "cells.launch_verb",
        _help(
            "GRID",
            "run what is missing, cut off or failed; what is done stays",
            "launch demo backend=inline on_event='cat >> events.jsonl'",
            "launch paper backend=slurm slurm.partition=gpu root=/shared/ipix",
            "launch paper root=outputs budget=300h until=2026-12-01T08:00",
            exits=_OF_RUNS,
        ),
        options=None,
    ),
    "resume": Verb(
        "cells.resume_verb",
        _help(
            "GRID",
            "run again only what failed or was cut off, from its last checkpoint",
            "resume paper root=outputs",
            exits=_OF_RUNS,
        ),
        options=None,
    ),
    "work": Verb(
        "cells.work_verb",
        _help(
            "GRID [while_idle=10m]",
            "on any machine: run cells nobody runs, one by one, no controller",
            "work paper root=s3://bucket/paper while_idle=10m",
            exits={
                0: "everything is done, or others run the rest",
                10: "cells are left: a signal came, or they need a launch",
                11: "some cells failed here, or the program itself did",
            },
            settings=[("while_idle=0s", "how long it waits without a free cell: 90s, 10m, 2h")],
        ),
        options=_OF_WORKER,
    ),
    "status": Verb(
        "cells.status_verb",
        _help(
            "GRID [show=all|N]",
            "cells: state, epoch, mIoU, speed, time left, where, why",
            "status paper root=outputs",
            "status paper show=all --json",
            exits=_OF_STATES,
            settings=[("show=120", "how many cells, the interesting ones first; or all")],
        ),
    ),
    "watch": Verb(
        "cells.watch_verb",
        _help(
            "GRID",
            "the same, kept fresh until nothing can change or Ctrl-C",
            "watch paper root=outputs",
            exits=_OF_STATES,
        ),
    ),
    "tables": Verb(
        "results.tables_verb",
        _help(
            "GRID [--explain NUMBER|CELL] [--check paper.tex]",
            "print the tables and write them",
            "tables paper root=outputs",
            "tables paper --explain table3/321/ipixmatch",
            exits={1: "--check found numbers that are not today's"},
            settings=[
                ("--explain WHAT", "the runs behind a number, by its name or as it is printed"),
                ("--check FILE", "compare the numbers of a manuscript in LaTeX with today's"),
            ],
        ),
        options=_TABLES,
    ),
    "diff": Verb(
        "results.diff_verb",
        _help(
            "GRID with=ROOT|commit:HASH|paper",
            "how the results differ, the largest first, and why",
            "diff paper root=outputs with=other_root",
            "diff paper with=paper --json",
            settings=[("with=OTHER", "a second root, commit:HASH, or paper for its values")],
        ),
        options=_TABLES,
    ),
    "reproduce": Verb(
        "results.reproduce_verb",
        _help(
            "GRID NUMBER|CELL [code=now]",
            "train what is behind a number again: the same bits?",
            "reproduce paper table3/321/ipixmatch/resnet50-p1-1of16",
            exits={
                1: "a run did not come out the same",
                10: "a signal came; the same command goes on",
            },
            settings=[("code=row", "the stored code of the row's commit; now: this checkout")],
        ),
        options=_TABLES,
    ),
    "report": Verb(
        "results.report_verb",
        _help(
            "GRID",
            "one HTML file: tables, curves, confusion, pictures (also PNG), cost, provenance",
            "report paper root=outputs",
        ),
        options=_TABLES,
    ),
    "figures": Verb(
        "results.figures_verb",
        _help(
            "GRID",
            "the report's charts for a paper: PDF, SVG, PNG",
            "figures paper root=outputs",
        ),
        options=_TABLES,
    ),
    "query": Verb(
        "results.query_verb",
        _help(
            'GRID "SQL"',
            "ask the results (views rows, counted, history, confusion)",
            'query paper "SELECT key, best_miou_percent FROM counted"',
            'query paper "FROM history" --json',
        ),
    ),
    "export": Verb(
        "results.export_verb",
        _help(
            "GRID [to=csv|tensorboard|mlflow|wandb]",
            "write the counted runs for another tool",
            "export paper to=tensorboard",
            settings=[("to=csv", "the tool: csv, tensorboard, mlflow or wandb")],
        ),
    ),
    "compact": Verb(
        "upkeep.compact_verb",
        _help(
            "GRID",
            "many small result files under the root become one",
            "compact paper root=outputs",
        ),
        options=_ROOT,
    ),
    "cancel": Verb(
        "upkeep.cancel_verb",
        _help(
            "GRID",
            "end the grid's Slurm jobs; running cells checkpoint first",
            "cancel paper root=/shared/ipix",
        ),
        options=_ROOT,
    ),
    "logs": Verb(
        "upkeep.logs_verb",
        _help(
            "CELL [-f]",
            "what the cell's newest attempt and its job wrote",
            "logs synthetic.1of2.resnet14_w8.c32.fixmatch.none.s12345 root=outputs -f",
            settings=[("-f", "go on with what is written from now on, until Ctrl-C")],
        ),
        options=_ROOT,
        target="cell",
        flags=("--json", "-f"),
    ),
    "doctor": Verb(
        "upkeep.doctor_verb",
        _help(
            "[--drill]",
            "what of Ray, Slurm, S3, GPU, data works here",
            "doctor root=s3://bucket/paper",
            "doctor --drill slurm.partition=gpu",
            exits={20: "something that this machine has does not work"},
            settings=[("--drill", "also try jobs in Slurm")],
        ),
        options=None,
        target="",
        flags=("--json", "--drill"),
    ),
}


def grid_lines() -> list[str]:
    """The names of today's grids, in lines of help."""
    return textwrap.wrap(", ".join(grid_names()), 98, initial_indent="  ", subsequent_indent="  ")


def list_of_verbs() -> str:
    """A line for each verb: its form and what it does."""
    return "\n".join(
        line
        for word, verb in VERBS.items()
        for form, note in verb.help.forms
        for line in aligned(f"{word:9} {form}", note)
    )
