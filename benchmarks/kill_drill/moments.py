"""Where a running grid stands, read from the files of its runs on this machine."""

from collections.abc import Collection, Mapping
from pathlib import Path

from orchestrator.storage.paths import RunPaths
from orchestrator.storage.root import Root
from tests.support.lab import Lab
from trainer.checkpoint_manifest import newest_step


class Moments:
    """Looks at the cells that have no row yet.

    Args:
        lab: whose launch runs.
        root: of the lab, opened with the scratch folder of its host.
        last_steps: step of the last checkpoint of every cell.
    """

    def __init__(self, lab: Lab, root: Root, last_steps: Mapping[str, int]) -> None:
        self._root = root
        self._is_bucket = bool(lab.url)
        self._last_steps = last_steps
        # Under a bucket this is a request, so it is asked once for each launch.
        names = root.results("rows").names()
        self._open = {key for key in last_steps if not any(n.startswith(f"{key}.a") for n in names)}

    def steps(self) -> int:
        """Checkpointed steps of all cells without a row."""
        return sum(self._step(key) for key in self._open)

    def is_publishing(self) -> bool:
        """Whether some cell has its last checkpoint and not yet its outcome."""
        ending = [key for key in self._open if self._step(key) == self._last_steps[key]]
        done = {key for key in ending if self._has_outcome(key)}
        self._open -= done
        return len(done) < len(ending)

    def _step(self, key: str) -> int:
        return max((newest_step(paths.folder) or 0 for paths in self._runs(key)), default=0)

    def _has_outcome(self, key: str) -> bool:
        return any(p.outcome(p.newest_attempt()).exists() for p in self._runs(key))

    def _runs(self, key: str) -> Collection[RunPaths]:
        """Its run directories: with a bucket, one on each host that had it."""
        if not self._is_bucket:
            return [self._root.run(key)]
        folders: list[Path] = sorted(self._root.folder.glob(f"*/runs/{key}"))
        return [RunPaths(folder) for folder in folders]
