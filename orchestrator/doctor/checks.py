"""Checks whether Ray, Slurm, S3, GPU and data work here, and advises where they do not."""

import importlib
import os
import shutil
import uuid
from collections.abc import Callable, Iterable
from contextlib import closing
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Literal

from datasets.known.registry import KNOWN
from datasets.wording import quantity
from orchestrator.options import LaunchOptions
from orchestrator.storage.root import Root
from trainer.config.schema import TrainConfig

_ROOM_FOR_WORKERS = 2**30  # bytes: two workers at crops of 801 pixels, in batches of 4


@dataclass(frozen=True)
class Check:
    """The result of one check, with advice.

    Attributes:
        state: "absent" is fine where the thing is not needed; "broken" is not.
    """

    name: str
    state: Literal["works", "absent", "broken"]
    text: str
    advice: str = ""


def examine(options: LaunchOptions, root: Root) -> Iterable[Check]:
    """Every check, one after the other.

    Args:
        options: of the launch that is planned; `ray_address` and slurm.KEY count.
        root: that the options name.
    """
    yield check_gpu()
    yield check_shm()
    yield check_fast()
    yield check_root(root)
    yield check_ray(options, root)
    yield from check_slurm(options, root)
    if not root.costs_requests:  # keys for one bucket need not list them all
        yield check_s3(options)
    for recipe, known in KNOWN.items():
        if known.read_spec is None:  # others lie in a folder that the user names
            yield check_data_of(recipe)


def check_gpu() -> Check:
    """Torch and the cards it can use, or why it can use none."""
    try:
        from trainer.hardware.gpu import gpu_facts, judge

        verdict = judge(gpu_facts())
    except ImportError as error:
        return Check("torch", "broken", str(error), "Install it: make setup.")
    if verdict.state == "works":
        return Check("GPU", "works", verdict.text)
    text = f"{verdict.state}: {verdict.text}"
    if verdict.is_fault:
        return Check("GPU", "broken", text, verdict.advice)
    return Check("GPU", "absent", text, "Fine on a login node, and for small grids on CPUs.")


def check_shm() -> Check:
    """Shared memory, through which loader workers hand over their batches."""
    from datasets.loading.shared_memory import SHARED, free_bytes

    free = free_bytes()
    text = f"{SHARED} has {free / 2**20:.0f} MiB free"
    if free < _ROOM_FOR_WORKERS:
        advice = (
            "Enough without loader workers (run.loader_workers=0). In batches of 4 one takes about "
            "60 MiB at crops of 321 pixels, 370 MiB at 801. docker: --shm-size=2g or --ipc=host."
        )
        return Check("shared memory", "absent", text, advice)
    return Check("shared memory", "works", f"{text} for loader workers")


def check_fast() -> Check:
    """The decoder of the extra `fast`, which saves time and changes no bit."""
    from datasets.images.png import decoder

    if decoder() is None:
        text = "no kornia-rs: Pillow decodes PNG in about 2.4 times the time, to the same bytes"
        return Check("extra fast", "absent", text, "Fine; else pip install kornia-rs.")
    return Check("extra fast", "works", f"kornia-rs {version('kornia-rs')} decodes PNG")


def check_root(root: Root) -> Check:
    """Where runs and results lie: writable, with locks, with room."""
    probe = root.probe()
    if not probe.works:
        return Check(probe.kind, "broken", f"root={root.address}: {probe.text}", probe.advice)
    return Check(probe.kind, "works", probe.text, probe.advice)


def check_ray(options: LaunchOptions, root: Root) -> Check:
    """Start or join Ray, as a launch would."""
    from orchestrator.backends.ray.cluster import ClusterUnreachable, scratch_folder
    from orchestrator.backends.ray.messages import Connect
    from orchestrator.backends.ray.supervisor import RaySupervisor

    shared = root.grid("doctor").folder.resolve()
    try:
        with scratch_folder(options, shared) as scratch:
            wanted, log = Connect(options, scratch, code=""), scratch / "ray.log"
            ray = RaySupervisor(wanted, log, on_message=_ignore, is_stopping=lambda: False)
            with closing(ray):
                where = "an own one starts" if ray.cluster.is_own else options.ray_address
                text = f"{where}: {ray.cluster.cpus:g} CPUs, {ray.cluster.gpus:g} GPUs"
        shutil.rmtree(shared, ignore_errors=True)
    except (ClusterUnreachable, OSError, ValueError) as error:
        advice = "backend=inline needs none; slurm.controller=plain brings Slurm without Ray."
        return Check("Ray", "broken", str(error), advice)
    return Check("Ray", "works", text)


def _ignore(text: str) -> None:
    """Show nothing: the result of the check says it."""


def check_slurm(options: LaunchOptions, root: Root) -> Iterable[Check]:
    """The controller, its limits, and whether the jobs of a launch would be accepted."""
    from slurm.cluster import site
    from slurm.commands import SlurmMissing, SlurmRefused, SlurmSilent

    try:
        here = site()
    except SlurmMissing:
        advice = "Start from a login node; or run on Ray."
        yield Check("Slurm", "absent", "its commands are not here", advice)
        return
    except (SlurmSilent, SlurmRefused) as error:
        advice = "Ask the site, or check SLURM_CONF; running jobs go on meanwhile."
        yield Check("Slurm", "broken", str(error), advice)
        return
    limit = f", {quantity(here.max_submitted, 'job')} at once" if here.max_submitted else ""
    accounting = "accounting" if here.has_accounting else "no accounting (not needed)"
    text = f"{here.version} ({here.cluster}), arrays to {here.max_array_size}{limit}"
    yield Check("Slurm", "works", f"{text}, {accounting}")
    if not here.can_requeue:
        advice = "Jobs ask for --requeue themselves; `doctor --drill` shows whether that counts."
        yield Check("requeue", "absent", "JobRequeue=0", advice)
    yield check_submission(options, root)


def check_submission(options: LaunchOptions, root: Root) -> Check:
    """Whether Slurm would take the job of a cell, without submitting it."""
    from orchestrator.backends.slurm.launch import gpus_for
    from orchestrator.backends.slurm.registry import check_options, job_spec_of
    from orchestrator.trial import Trial
    from slurm.commands import SlurmFull, SlurmRefused, SlurmSilent
    from slurm.job_array import JobArray

    folder = root.folder / "drill" / f"test-{uuid.uuid4().hex[:8]}"
    try:
        check_options(options)
        cpus = [options.cpus_for(TrainConfig(), device) for device in ("cpu", "cuda")]
        trial = Trial("doctor", "", "", root.address, "slurm", "", ranks=options.ranks)
        trial = replace(trial, cpus_per_rank=cpus[0], cpus_beside_gpu=cpus[1])
        trial = trial.on_gpus(gpus_for(options))
        batch = JobArray.write(folder, {"doctor": _nothing}, job_spec_of(trial, options.slurm))
        text = batch.test()
    except (SlurmFull, SlurmRefused, SlurmSilent, ValueError) as error:
        advice = "Set slurm.partition, slurm.account, slurm.minutes as your site names them."
        return Check("submission", "broken", str(error), advice)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return Check("submission", "works", text)


def check_s3(options: LaunchOptions) -> Check:
    """Whether an object store is meant, and reachable."""
    endpoint = os.environ.get("AWS_ENDPOINT_URL", "")
    has_keys = "AWS_ACCESS_KEY_ID" in os.environ or (Path.home() / ".aws" / "credentials").exists()
    if not has_keys:
        advice = "Only for data or results in a bucket: set AWS_ACCESS_KEY_ID and its secret."
        return Check("S3", "absent", "no credentials", advice)
    try:
        fsspec = importlib.import_module("fsspec")
        buckets = fsspec.filesystem("s3", skip_instance_cache=True).ls("")
    except (OSError, ImportError, ValueError) as error:
        advice = "Check AWS_ENDPOINT_URL, the keys, and that they may list buckets."
        return Check("S3", "broken", f"{endpoint or 'AWS'}: {error}", advice)
    return Check("S3", "works", f"{endpoint or 'AWS'}: {quantity(len(buckets), 'bucket')}")


def check_data_of(recipe: str) -> Check:
    """Whether a recipe's data is in place."""
    from datasets.dataset import open_dataset
    from trainer.config.compose import compose

    if KNOWN[recipe].draw_spec is not None:
        return Check(f"data: {recipe}", "works", "drawn when first needed")
    config = compose([f"recipe={recipe}", "model=resnet50"])
    try:
        split = open_dataset(config.data).split
    except (ValueError, OSError) as error:
        return Check(f"data: {recipe}", "absent", str(error))
    num_images = len(split.labelled) + len(split.unlabelled)
    return Check(
        f"data: {recipe}",
        "works",
        f"{quantity(num_images, 'image')}, {len(split.validation)} to score",
    )


def exit_code_of(checks: Iterable[Check]) -> int:
    """0 unless something is broken; what is only absent may not be wanted."""
    return 20 if any(check.state == "broken" for check in checks) else 0


def show_check(check: Check, on_message: Callable[[str, str], None]) -> None:
    """Print a check in the colour of its state, and its advice."""
    colour = {"works": "green", "absent": "dim", "broken": "red"}[check.state]
    on_message(f"{check.state:7} {check.name}: {check.text}", colour)
    if check.advice:
        on_message(f"        {check.advice}", "")


def _nothing() -> None:
    """The call of a job that is never submitted."""
