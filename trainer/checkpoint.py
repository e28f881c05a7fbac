"""The checkpoints of a run: copied, written in the background, and read back.

A checkpoint is whole or it does not exist, and it refuses to continue a run with another
configuration, world size or kind of machine: the result would not be the seeded one.
"""

import platform
import shutil
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from datasets.files import atomic_path, file_sha256
from datasets.identity import DataIdentity
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
from trainer.schedule import Schedule


class Completion(Protocol):
    """Something under way on a device, such as a CUDA event."""

    def synchronize(self) -> object:
        """Return when it is done."""


def work_so_far(device: torch.device) -> Completion | None:
    """All that was asked of a device; None where nothing is under way, as on a CPU."""
    if device.type != "cuda":
        return None
    # Blocking: the thread that waits sleeps.
    event = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
    event.record(torch.cuda.current_stream(device))
    return event


@dataclass(frozen=True)
class Snapshot:
    """Copies of tensors in CPU memory, so that training may go on while a thread writes them.

    The buffers are kept from one checkpoint to the next: allocating fresh memory costs more than
    copying into it.

    Attributes:
        mark: what to wait for until the copies that were asked of a device are complete.
    """

    mark: Callable[[torch.device], Completion | None] = work_so_far
    _buffers: dict[tuple[str, ...], Tensor] = field(default_factory=dict)

    def of(self, packed: dict[str, Any]) -> Callable[[], dict[str, Any]]:
        """Begin to copy every tensor in nested data to the CPU.

        A device does what it is asked in order, so the copies are of the tensors as they are now.
        The next call overwrites them.

        Returns:
            A function for any thread that waits for the copies and gives the data with them.
        """
        devices: set[torch.device] = set()
        copied = self._copied(packed, (), devices)
        under_way = [self.mark(device) for device in devices]

        def complete() -> dict[str, Any]:
            for copies in under_way:
                if copies is not None:
                    copies.synchronize()
            assert isinstance(copied, dict)
            return copied

        return complete

    def _copied(self, value: Any, place: tuple[str, ...], devices: set[torch.device]) -> Any:
        """A copy of nested data; `place` is the path of keys that leads to it."""
        if isinstance(value, Tensor):
            devices.add(value.device)
            return self._buffer(value, place).copy_(value.detach(), non_blocking=True)
        if isinstance(value, dict):
            return {
                key: self._copied(inner, (*place, str(key)), devices)
                for key, inner in value.items()
            }
        return value

    def _buffer(self, like: Tensor, place: tuple[str, ...]) -> Tensor:
        kept = self._buffers.get(place)
        if kept is None or kept.shape != like.shape or kept.dtype != like.dtype:
            # Only into pinned memory does a copy from the GPU run without the host.
            kept = torch.empty_like(like, device="cpu", pin_memory=like.is_cuda)
            self._buffers[place] = kept
        return kept


FORMAT = 2  # of the packed state; one of the guards, so an unknown format is refused
READABLE = (1, 2)
BEST = "best"
KEPT = 2  # newest checkpoints that are not removed; best.pt is kept besides


class CheckpointError(ValueError):
    """A checkpoint cannot be used, or belongs to another run."""


@dataclass(frozen=True)
class Checkpoints:
    """The checkpoint folder of one run; files are written by a thread while training goes on.

    Attributes:
        schedule: to name the epoch in a manifest.
        run_folder: of the run; the checkpoints lie in a folder below it.
        data: which images, masks and lists the run reads; the configuration only says where they
            are. None leaves them out of the guards.
        snapshot: copies what is written.
    """

    run_folder: Path
    config: TrainConfig
    ranks: Ranks
    schedule: Schedule
    data: DataIdentity | None = None
    snapshot: Snapshot = field(default_factory=Snapshot)
    _writer: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1))
    _pending: list[Future[None]] = field(default_factory=list)

    @property
    def folder(self) -> Path:
        """The folder with the `.pt` files and their manifests."""
        return self.run_folder / CHECKPOINTS

    def save(self, packed: dict[str, Any]) -> None:
        """Write the state of a step in the background, then remove all but the newest two.

        Training may change the tensors at once: their device copies them before, and the thread
        that writes waits for it.

        Args:
            packed: what `TrainState.pack` gives.

        Raises:
            OSError: an earlier write failed; the newest checkpoint that is whole stays.
        """
        self._start(self._write_step, packed)

    def save_best(self, packed: dict[str, Any]) -> None:
        """Write the weights of the best epoch so far, in the background as well."""
        self._start(partial(self._write, BEST), packed)

    def keep(self, name: str, packed: dict[str, Any]) -> None:
        """Write weights that a later stage needs, in the background as well; they stay."""
        self._start(partial(self._write, name), packed)

    def keep_best(self, name: str) -> None:
        """Keep the weights of the best epoch so far under another name."""
        self.finish()
        self.keep(name, read_packed(self.folder / f"{BEST}.pt"))

    def kept_weights(self, name: str) -> dict[str, Tensor] | None:
        """The weights that were kept under a name; None where they are missing or damaged."""
        self.finish()
        path = self.folder / f"{name}.pt"
        manifest = read_manifest(path.with_suffix(".json"))
        if manifest is None or not path.is_file() or file_sha256(path) != manifest.sha256:
            return None
        weights: dict[str, Tensor] = read_packed(path)["weights"]
        return weights

    def finish(self) -> None:
        """Wait until every file is written.

        Raises:
            OSError: one of them could not be.
        """
        while self._pending:
            self._pending.pop(0).result()

    def _start(self, write: Callable[[dict[str, Any]], None], packed: dict[str, Any]) -> None:
        """Begin a write, after the one before it has ended.

        One at a time, so that a slow disk slows training and does not fill the memory.
        """
        self.finish()  # before the snapshot, whose buffers the earlier write still reads
        complete = self.snapshot.of(packed)
        self._pending.append(self._writer.submit(lambda: write(complete())))

    def _write_step(self, packed: dict[str, Any]) -> None:
        self._write(stem(packed["step"]), packed)
        for old in manifests(self.run_folder)[KEPT:]:
            # The manifest goes first: a kill in between leaves a .pt that nobody counts.
            for suffix in (".json", ".pt"):
                (self.folder / (stem(old.step) + suffix)).unlink(missing_ok=True)

    def best(self) -> Manifest | None:
        """The manifest of the best weights; None before the first evaluation."""
        return read_manifest(self.folder / f"{BEST}.json")

    def newest(self) -> dict[str, Any] | None:
        """The packed state in the newest undamaged checkpoint; None when there is none.

        Rank 0 chooses for all: on a network disk the other ranks may still see an older listing of
        the folder.

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
        return read_packed(path)

    def _newest_whole(self) -> int:
        """Step of the newest checkpoint whose bytes have the sha256 of its manifest, or -1."""
        for manifest in manifests(self.run_folder):
            path = self.folder / (stem(manifest.step) + ".pt")
            if path.is_file() and file_sha256(path) == manifest.sha256:
                return manifest.step
        return -1

    def remove_leftovers(self) -> None:
        """Remove the temporary files of interrupted writes."""
        for path in self.folder.glob("*.tmp"):
            path.unlink(missing_ok=True)

    def _write(self, name: str, packed: dict[str, Any]) -> None:
        """Write the data, then its manifest, each by rename, so that no reader sees a part.

        In this order, because the manifest says that the data are complete.
        """
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
        """The manifest of one file."""
        return Manifest(
            step=step,
            epoch=self.schedule.epochs_done(step),
            sha256=sha256,
            size=size,
            fingerprint=fingerprint(self.config),
            config_json=config_json(self.config),
            guards=self._guards(),
        )

    def _guards(self) -> dict[str, str | int]:
        """The guards of this run, with the identity of its data."""
        own = guards(self.config, self.ranks)
        if self.data is None:
            return own
        return {**own, "data": self.data.fingerprint, "split": self.data.split.checksum}

    def _refuse_foreign(self, path: Path, manifest: Manifest) -> None:
        """Raise if the checkpoint was written by another configuration or under other guards."""
        cure = f"Choose another folder, or remove {self.run_folder} to start again from step 0."
        expected = fingerprint(self.config)
        if manifest.fingerprint != expected:
            changed = "; ".join(differences(manifest.config_json, self.config))
            raise CheckpointError(
                f"{path} was written by another configuration ({manifest.fingerprint[:8]}, this "
                f"run is {expected[:8]}): {changed or 'fields were added or removed'}. {cure}"
            )
        then = manifest.guards
        differing = [
            f"{name} was {then.get(name, 'absent')} and is {value}"
            for name, value in guards(self.config, self.ranks).items()
            if then.get(name) != value and not _is_readable(name, manifest)
        ]
        if self.data is not None:  # older checkpoints do not say which data they are of
            data, lists = str(then.get("data", "")), str(then.get("split", ""))
            differing += self.data.changes_since(data, lists)
        if differing:
            raise CheckpointError(
                f"{path} cannot go on bit for bit: {'; '.join(differing)}. Run it as it was "
                f"started. {cure}"
            )


def _is_readable(guard: str, manifest: Manifest) -> bool:
    """Whether the guard is the format, and an older one that can be read."""
    return guard == "format" and manifest.guards.get(guard) in READABLE


def read_packed(path: Path) -> dict[str, Any]:
    """What a `.pt` file holds, with the tensors under today's names.

    Format 1 knew one trained network and its average: student.X, ema.X and momentum.X.
    """
    packed: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    tensors: dict[str, Tensor] = packed.get("tensors", {})
    if any(name.startswith("student.") for name in tensors):
        renamed = {}
        for name, value in tensors.items():
            kind, _, rest = name.partition(".")
            parent = "momentum.student" if kind == "momentum" else f"network.{kind}"
            renamed[f"{parent}.{rest}"] = value
        packed["tensors"] = renamed
    return packed


def guards(config: TrainConfig, ranks: Ranks) -> dict[str, str | int]:
    """Facts that change the last bits of a run although the fingerprint leaves them out.

    A checkpoint records them; a run resumes only where all of them are equal.
    """
    common: dict[str, str | int] = {
        "format": FORMAT,
        "world_size": ranks.world_size,
        "threads": config.run.threads,
        "torch": torch.__version__,
    }
    if ranks.device.type != "cuda":
        capability = torch.backends.cpu.get_cpu_capability()
        return common | {"device": f"cpu {platform.machine()}", "capability": capability}
    # cuBLAS and cuDNN choose kernels by card and by the number of its multiprocessors.
    card = torch.cuda.get_device_properties(ranks.device)
    return common | {
        "device": f"cuda {card.name}",
        "multiprocessors": card.multi_processor_count,
        "cuda": torch.version.cuda or "",
        "cudnn": torch.backends.cudnn.version() or 0,  # type: ignore[no-untyped-call]
    }


def _disk_error(error: Exception, folder: Path) -> OSError:
    """An OSError that also says how much space is free; no older checkpoint was touched."""
    free = shutil.disk_usage(folder).free
    number = error.errno if isinstance(error, OSError) else None
    if number is None and free < 64 * 2**20:
        number = 28  # ENOSPC: torch.save raises a RuntimeError without it
    return OSError(
        number or 5,
        f"Could not write a checkpoint in {folder} ({error}; {free / 2**20:.0f} MiB free). The "
        "older checkpoint is whole: make room and launch again",
    )
