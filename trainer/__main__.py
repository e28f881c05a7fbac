"""One run without Ray or Slurm: `python -m trainer key=value ...`, also under torchrun."""

import sys


def main(words: list[str]) -> int:
    """Run the command line, after a check that Python found our own package `datasets`."""
    try:
        from datasets.import_guard import check_is_ours

        check_is_ours()
    except (ImportError, RuntimeError) as error:
        print(
            f"trainer: {error}. Start from the checkout with `python -m trainer`, where its own "
            "package `datasets` is found first.",
            file=sys.stderr,
        )
        return 2
    from trainer.cli import run_command_line

    return run_command_line(words)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
