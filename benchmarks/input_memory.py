"""Whether the loader's workers keep their size: ``python -m benchmarks.input_memory``.

Two workers prepare 10,000 samples of each kind; the table shows how large they are on the way
(resident memory without pages of mapped files). A worker that leaks grows from column to column.
Setting: samples (10000).
"""

import multiprocessing
import sys
import tempfile
from pathlib import Path

from benchmarks.table import settings
from datasets.config import DataConfig, SyntheticConfig
from datasets.dataset import open_dataset
from datasets.loading.loader import BatchPlan, batches

COLUMNS, BATCH = 5, 4
DRAWN = SyntheticConfig(num_train=60, num_val=2, width=160, height=120, num_classes=6, seed=1)


def resident_megabytes() -> float:
    """Private memory of all workers."""
    total = 0
    for child in multiprocessing.active_children():
        for line in Path(f"/proc/{child.pid}/status").read_text().splitlines():
            if line.startswith("RssAnon:"):
                total += int(line.split()[1])
    return total / 1024


def sizes(config: DataConfig, plan: BatchPlan) -> list[float]:
    """Megabytes after each part of the run, the first part left out."""
    found = []
    dataset = open_dataset(config)
    for step, _ in enumerate(batches(dataset, config, seed=1, plan=plan), start=1):
        if step % (plan.stop // (COLUMNS + 1)) == 0:
            found.append(resident_megabytes())
    return found[1 : COLUMNS + 1]


def main(words: list[str]) -> None:
    """All ways to make a batch."""
    samples = int(settings(words, {"samples": "10000"})["samples"])
    # A labelled and an unlabelled image with its partner are three samples.
    stop = samples // (3 * BATCH)
    marks = " | ".join(f"{samples * part // (COLUMNS + 1)}" for part in range(2, COLUMNS + 2))
    print(f"| MB after samples | {marks} |\n|---|{'---|' * COLUMNS}")
    with tempfile.TemporaryDirectory() as folder:
        config = DataConfig(root=f"{folder}/drawn", split="n30", crop=96, drawn=DRAWN)
        for on_device in (False, True):
            for cache in (None, Path(folder) / "cache"):
                plan = BatchPlan(
                    batch=BATCH, stop=stop, workers=2, on_device=on_device, cache=cache
                )
                name = f"{'device' if on_device else 'host'}{', decoded cache' if cache else ''}"
                row = " | ".join(f"{size:.1f}" for size in sizes(config, plan))
                print(f"| {name} | {row} |", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
