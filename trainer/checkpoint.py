"""Checkpoints that are whole or absent, and that refuse to continue another run."""

import platform
import shutil
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from datasets.files import atomic_path, file_sha256
from trainer.checkpoint_manifest import (
    CHECKPOINTS,
    Manifest,
    manifests,
    read_manifest,
    stem,
)
from trainer.config.fingerprint import config_json, differences, fingerprint
from trainer.config.schema import TrainConfig
from trainer.distributed import Ranks


@dataclass(frozen=True)
class Snapshot:
    """Buffers that are filled again and again: fresh memory costs more than the copy into it."""

    _buffers: dict[tuple[str, ...], Tensor] = field(default_factory=dict)
    _devices: set[torch.device] = field(default_factory=set)

    def of(self, packed: dict[str, Any]) -> dict[str, Any]:
        """The same nested data, its tensors copied; whole when this returns.

        It is overwritten by the next call.
        """
        copied = self._copied(packed, ())
        assert isinstance(copied, dict)
        for device in self._devices:
            torch.cuda.synchronize(device)  # the copies were only begun
        return copied

    def _copied(self, value: Any, place: tuple[str, ...]) -> Any:
        if isinstance(value, Tensor):
            return self._buffer(value, place).copy_(value.detach(), non_blocking=True)
        if isinstance(value, dict):
            return {key: self._copied(inner, (*place, str(key))) for key, inner in value.items()}
        return value

    def _buffer(self, like: Tensor, place: tuple[str, ...]) -> Tensor:
        kept = self._buffers.get(place)
        if kept is None or kept.shape != like.shape or kept.dtype != like.dtype:
            kept = torch.empty_like(like, device="cpu", pin_memory=like.is_cuda)
            self._buffers[place] = kept
        if like.is_cuda:
            self._devices.add(like.device)
        return kept


FORMAT = 1
KEPT = 2  # newest checkpoints that stay; the best one stays beside them


class CheckpointError(ValueError):
    """A checkpoint cannot be used, or belongs to another run."""


@dataclass(frozen=True)
class Checkpoints:
    """The checkpoint folder of one run; files are written by a thread while training goes on.

    Attributes:
        epoch_steps: steps per epoch, to name the epoch in a manifest.
        data: fingerprint of the data where the configuration does not say which they are.
    """

    run_folder: Path
    config: TrainConfig
    ranks: Ranks
    epoch_steps: int
    data: str = ""
    _writer: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1))
    _pending: list[Future[None]] = field(default_factory=list)
    _snapshot: Snapshot = field(default_factory=Snapshot)

    @property
    def folder(self) -> Path:
        """Where the files lie."""
        return self.run_folder / CHECKPOINTS

    def save(self, packed: dict[str, Any]) -> None:
        """Write a step, then drop all but the newest. The tensors are copied before this returns.

        Raises:
            OSError: an earlier write failed; the newest checkpoint that is whole stays.
        """
        self._start(self._write_step, packed)

    def save_best(self, packed: dict[str, Any]) -> None:
        """Write the weights of the best epoch so far, likewise."""
        self._start(self._write_best, packed)

    def finish(self) -> None:
        """Wait until every file is written.

        Raises:
            OSError: one of them could not be.
        """
        while self._pending:
            self._pending.pop(0).result()

    def _start(self, write: Callable[[dict[str, Any]], None], packed: dict[str, Any]) -> None:
        """One write at a time: a slow disk slows training, it does not fill the memory."""
        self.finish()
        self._pending.append(self._writer.submit(write, self._snapshot.of(packed)))

    def _write_step(self, packed: dict[str, Any]) -> None:
        self._write(stem(packed["step"]), packed)
        for old in manifests(self.run_folder)[KEPT:]:
            for suffix in (".json", ".pt"):  # the commit record goes first
                (self.folder / (stem(old.step) + suffix)).unlink(missing_ok=True)

    def _write_best(self, packed: dict[str, Any]) -> None:
        self._write("best", packed)

    def best(self) -> Manifest | None:
        """The commit record of the best weights."""
        return read_manifest(self.folder / "best.json")

    def newest(self) -> dict[str, Any] | None:
        """What the newest whole checkpoint holds; None when there is none.

        Rank 0 chooses: on a shared disk the others may see the folder as it was a moment ago.

        Raises:
            CheckpointError: it was written by another configuration, world size or machine kind.
        """
        step = self.ranks.broadcast_int(self._newest_whole() if self.ranks.is_first else -1)
        if step < 0:
            return None
        path = self.folder / (stem(step) + ".pt")
        manifest = read_manifest(path.with_suffix(".json"))
        if manifest is None:
            raise CheckpointError(
                f"Rank {self.ranks.rank} does not see {path}, from which rank 0 goes on; "
                "put the run's folder on a disk that all nodes share."
            )
        self._refuse_foreign(path, manifest)
        return dict(torch.load(path, map_location="cpu", weights_only=True))

    def _newest_whole(self) -> int:
        """Step of the newest checkpoint whose bytes are those its manifest promises; -1 without."""
        for manifest in manifests(self.run_folder):
            path = self.folder / (stem(manifest.step) + ".pt")
            if path.is_file() and file_sha256(path) == manifest.sha256:
                return manifest.step
        return -1

    def remove_leftovers(self) -> None:
        """Remove what an interrupted write left behind."""
        for path in self.folder.glob("*.tmp"):
            path.unlink(missing_ok=True)

    def _write(self, name: str, packed: dict[str, Any]) -> None:
        """Data, then its manifest; each by rename, so a reader never sees a part."""
        self.folder.mkdir(parents=True, exist_ok=True)
        data = self.folder / f"{name}.pt"
        record = data.with_suffix(".json")
        try:
            with atomic_path(data, part=self.folder / f"{name}.pt.tmp", durable=True) as part:
                torch.save(packed, part)
                sha256, size = file_sha256(part), part.stat().st_size
            with atomic_path(record, part=self.folder / f"{name}.json.tmp", durable=True) as part:
                part.write_text(self._manifest(packed["step"], sha256, size).text())
        except (OSError, RuntimeError) as error:  # torch.save reports a full disk as RuntimeError
            raise _disk_error(error, self.folder) from error

    def _manifest(self, step: int, sha256: str, size: int) -> Manifest:
        """The commit record of one file."""
        return Manifest(
            step=step,
            epoch=step // self.epoch_steps,
            sha256=sha256,
            size=size,
            fingerprint=fingerprint(self.config),
            config_json=config_json(self.config),
            guards=self._guards(),
        )

    def _guards(self) -> dict[str, str | int]:
        """Those of this run."""
        own = guards(self.config, self.ranks)
        return {**own, "data": self.data} if self.data else own

    def _refuse_foreign(self, path: Path, manifest: Manifest) -> None:
        """Compare the guards a checkpoint carries with this run's."""
        cure = f"Choose another folder, or remove {self.run_folder} to start again from step 0."
        expected = fingerprint(self.config)
        if manifest.fingerprint != expected:
            changed = "; ".join(differences(manifest.config_json, self.config))
            raise CheckpointError(
                f"{path} was written by another configuration ({manifest.fingerprint[:8]}, this "
                f"run is {expected[:8]}): {changed or 'fields were added or removed'}. {cure}"
            )
        own = self._guards()
        changed = "; ".join(
            f"{name} was {manifest.guards.get(name, 'absent')} and is {value}"
            for name, value in own.items()
            if manifest.guards.get(name) != value
        )
        if changed:
            raise CheckpointError(
                f"{path} cannot go on bit for bit: {changed}. Run it as it was started. {cure}"
            )


def guards(config: TrainConfig, ranks: Ranks) -> dict[str, str | int]:
    """What moves the last bits without being part of the fingerprint."""
    common: dict[str, str | int] = {
        "format": FORMAT,
        "world_size": ranks.world_size,
        "threads": config.run.threads,
        "torch": torch.__version__,
    }
    if ranks.device.type != "cuda":
        capability = torch.backends.cpu.get_cpu_capability()
        return common | {"device": f"cpu {platform.machine()}", "capability": capability}
    card = torch.cuda.get_device_properties(ranks.device)
    return common | {
        "device": f"cuda {card.name}",
        "multiprocessors": card.multi_processor_count,
        "cuda": torch.version.cuda or "",
        "cudnn": torch.backends.cudnn.version() or 0,  # type: ignore[no-untyped-call]
    }


def _disk_error(error: Exception, folder: Path) -> OSError:
    """The error with the free space beside it; nothing was overwritten."""
    free = shutil.disk_usage(folder).free
    number = error.errno if isinstance(error, OSError) else None
    if number is None and free < 64 * 2**20:
        number = 28  # ENOSPC, which torch.save hides
    return OSError(
        number or 5,
        f"Could not write a checkpoint in {folder} ({error}; {free / 2**20:.0f} MiB free). The "
        "older checkpoint is whole: make room and launch again",
    )
