"""`python -m orchestrator VERB GRID [key=value ...]`: runs the verb; errors become exit codes."""

import sys
from collections.abc import Callable, Sequence

HELP = """\
usage: python -m orchestrator VERB GRID [key=value ...]

{verbs}

`python -m orchestrator VERB --help` lists the settings of a verb, with examples and what its exit
codes mean. --traceback prints more of an error. GRID is the path of a YAML file, or one of
{grids}
Any key=value that is no option of the verb is a setting of the training for every cell, such as
optim.epochs=2 (`python -m trainer --help` lists them).

Ctrl-C or SIGTERM: running cells checkpoint and end; the same command goes on from there.
With backend=slurm the jobs go on by themselves instead, and the same command watches them again.
With root=s3://bucket/prefix (AWS_ENDPOINT_URL and credentials as for all S3 tools) a run trains in
`scratch` and is pushed with every checkpoint; tables, reports and exports are written below
./outputs/BUCKET/PREFIX and put under the root as well. With Slurm, `scratch` holds the jobs' own
files: a folder that login node and nodes share.
Exit codes: 0 everything wanted is done; 1 a manuscript's numbers are not today's, or a number
did not come out again; 2 usage or configuration; 10 cells are still to do; 11 some cells failed
for good, or the program itself did; 20 Ray, Slurm or the object store is unreachable.
"""


def main(words: Sequence[str]) -> int:
    """Run one verb; returns the exit code."""
    try:
        from datasets.import_guard import check_is_ours

        check_is_ours()
    except (ImportError, RuntimeError) as error:
        return _complain(
            f"{error}. Start from the checkout with `python -m orchestrator`, where its own "
            "package `datasets` is found first."
        )
    from datasets.command_errors import without_flag

    words, shows_traceback = without_flag(words)
    is_json = "--json" in words
    return _exit_code_of(lambda: _run(words), is_json=is_json, shows_traceback=shows_traceback)


def help_text() -> str:
    """The list of the verbs, with today's grids."""
    from orchestrator.commands.verbs import grid_lines, list_of_verbs

    return HELP.format(verbs=list_of_verbs(), grids="\n".join(grid_lines()))


def _run(words: Sequence[str]) -> int:
    """Find the verb, or explain what is wrong with the words."""
    from datasets.cli import HELP_FLAGS
    from datasets.wording import did_you_mean
    from orchestrator.commands.request import split_flags
    from orchestrator.commands.verbs import VERBS
    from orchestrator.options import joined

    is_help = bool(HELP_FLAGS & set(words)) or words[:1] == ["help"]
    flags, rest = split_flags(words if is_help else joined(words))
    rest = rest[rest[:1] == ["help"] :]
    if not words or (is_help and not rest):
        print(help_text(), end="")
        return 0 if words else 2
    name = rest[0] if rest else ""
    if name not in VERBS:
        hints = (did_you_mean(word.lstrip("-"), VERBS) for word in (name, *flags))
        hint = next(filter(None, hints), "")
        wrong = f"Unknown {name!r}.{hint}" if name else "No verb."
        raise ValueError(f"{wrong} Verbs: {', '.join(VERBS)}. --help says more.")
    if is_help:
        print(VERBS[name].text(name), end="")
        return 0
    return VERBS[name].start(name, rest[1:], flags)


def _exit_code_of(run: Callable[[], int], *, is_json: bool, shows_traceback: bool) -> int:
    """The exit code of a command; an error becomes a sentence, and with --json also JSON."""
    try:
        return run()
    except Exception as error:  # noqa: BLE001 - every error becomes a sentence and an exit code
        from datasets.command_errors import error_text
        from orchestrator.commands.errors import kind_of, sentence_of
        from orchestrator.commands.output import print_json

        kind = kind_of(error)
        text = error_text(error, sentence_of(error), shows_traceback=shows_traceback)
        if is_json:
            answer = {"code": kind.code, "exit_code": kind.exit_code, "text": text}
            print_json({"error": answer})
        return _complain(text, code=kind.exit_code)


def _complain(text: str, *, code: int = 2) -> int:
    print(f"orchestrator: {text}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
