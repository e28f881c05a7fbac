"""The table of `docs/seeds.md`: `python -m benchmarks.seeds`, or less with `repetitions=200`."""

import sys

from benchmarks.seeds.simulation import Outcome, Scenario, simulate

CASES = {
    "no effect, 1 column": Scenario(1, (0.0,) * 3, max_seeds=12),
    "no effect, 3 columns": Scenario(3, (0.0,) * 3),
    "no effect, 3 columns, 8 rivals": Scenario(3, (0.0,) * 8),
    "no effect, heavy tails (t, 2)": Scenario(3, (0.0,) * 3, "heavy tails"),
    "no effect, scores in steps": Scenario(3, (0.0,) * 3, "in steps"),
    "one of three: 1 sd": Scenario(3, (1.0, 0.0, 0.0)),
    "all 0.5 sd, 3 columns": Scenario(3, (0.5,) * 3),
    "all 1 sd, 3 columns": Scenario(3, (1.0,) * 3),
    "all 2 sd, 3 columns": Scenario(3, (2.0,) * 3),
    "all 1 sd, 1 column": Scenario(1, (1.0,) * 3, max_seeds=12),
    "all 2 sd, 1 column": Scenario(1, (2.0,) * 3, max_seeds=12),
    "assumption broken, no effect": Scenario(3, (0.0,) * 3, "columns depend"),
}


def main(words: list[str]) -> int:
    """Print a line for each case; `repetitions=N` sets how often each is drawn."""
    repetitions = int(dict(word.partition("=")[::2] for word in words).get("repetitions", 1500))
    print("| case | false decision, % | power, % | runs |")
    print("|---|---|---|---|")
    for name, scenario in CASES.items():
        print(line(name, simulate(scenario, repetitions, seed=1)), flush=True)
    return 0


def line(name: str, outcome: Outcome) -> str:
    """A case; each number for the design, five fixed seeds, and all seeds fixed."""
    parts = [
        " / ".join(f"{100 * value:.1f}" for value in outcome.false),
        " / ".join(f"{100 * value:.0f}" for value in outcome.power) if any(outcome.power) else "",
        " / ".join(f"{value:.1f}" for value in outcome.runs),
    ]
    return f"| {name} | {' | '.join(parts)} |"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
