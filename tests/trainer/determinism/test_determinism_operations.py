"""CUDA refuses or randomises some operations; the step is traced for them where no card is.

The list is of torch 2.11 to 2.15: documentation of use_deterministic_algorithms, kernels.
"""

from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from benchmarks.counts import count
from benchmarks.two_steps import Case
from datasets.dataset import open_dataset
from datasets.loading.batches import LabelledBatch
from datasets.loading.loader import BatchPlan, batches
from tests.support.process_groups import run_ranks
from tests.support.tiny_config import tiny_config
from trainer import determinism
from trainer.checkpoint import Checkpoints
from trainer.config.schema import TrainConfig
from trainer.distributed import Ranks
from trainer.evaluate import predict
from trainer.loop import Loop
from trainer.methods.interface import StepInput
from trainer.network.deeplab import normalise
from trainer.objective import Objective
from trainer.optimisers.sgd import SGD
from trainer.run_log import RunLog
from trainer.schedule import Schedule, Stage
from trainer.state import new_state

REFUSED = (
    "upsample_bilinear2d",
    "upsample_bicubic2d",
    "_adaptive_avg_pool2d",
    "adaptive_max_pool2d",
    "grid_sampler",
    "index_put",
    "index_add",
    "index_copy",
    "scatter_add",
    "scatter_reduce",
    "put_",
    "histc",
    "cumsum",
    "median",
    "reflection_pad",
    "replication_pad",
    "bernoulli",
    "native_dropout",
    "rand",
    "nonzero",  # waits for the device
    "_local_scalar_dense",  # item(): waits for the device
    "lift_fresh",  # torch.tensor(): copied from the host
)


# What a step may use on CUDA. One thread for each element of the result:
ELEMENTWISE = """
    __lshift__ __rshift__ _fused_sgd_ abs abs_ add add_ bitwise_and bitwise_not bitwise_or
    bitwise_xor clamp clamp_ clamp_min div div_ eq exp exp_ expm1 fill_ floor floor_divide ge gt
    hardtanh_ hardtanh_backward le lerp lerp_ log log1p logaddexp lt masked_fill masked_fill_
    maximum minimum mul mul_ ne neg pow reciprocal relu_ remainder rsub sqrt sub sub_
    threshold_backward where
"""
# Moves and views:
MOVING = """
    _to_copy _unsafe_view alias arange cat clone constant_pad_nd copy_ detach empty empty_like
    expand flip full gather index_select new_zeros ones_like permute scalar_tensor select slice
    slice_backward split split_with_sizes squeeze stack t transpose unbind unsqueeze view
    zeros_like
"""
# Sums and maxima that torch takes in a fixed order, matrix products under cuBLAS's workspace,
# convolutions under cudnn.deterministic, and kernels without atomics. Of `sort` only values are
# used, or it is stable. torch's own depthwise convolution, which it takes where cuDNN has none,
# adds up the gradient of each weight in one block:
REPEATABLE = """
    _log_softmax _log_softmax_backward_data _softmax _softmax_backward_data all amax amin any
    argmax avg_pool2d avg_pool2d_backward bmm convolution convolution_backward cummax kthvalue
    linalg_vector_norm logsumexp max max_pool2d_with_indices max_pool2d_with_indices_backward mean
    mm native_batch_norm native_batch_norm_backward nll_loss2d_backward nll_loss2d_forward
    searchsorted sort sum upsample_nearest2d upsample_nearest2d_backward
"""
ALLOWED = {*ELEMENTWISE.split(), *MOVING.split(), *REPEATABLE.split()}
# Several ranks besides; batch norm's kernels end their sums in one block, in the order of blocks:
TOGETHER = """
    _foreach_add_ _foreach_copy_ batch_norm_backward_elemt batch_norm_backward_reduce
    batch_norm_elemt batch_norm_gather_stats_with_counts batch_norm_stats
"""


class Recorder(TorchDispatchMode):
    """Counts the operations on tensors of one kind of device that reach the dispatcher."""

    def __init__(self, device_type: str = "cpu") -> None:
        super().__init__()
        self.device_type = device_type
        self.seen: Counter[str] = Counter()
        self.reduced: list[str] = []
        self.arrived = 0  # tensors that came from another device

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        name = function.overloadpacket.__name__
        found = function(*args, **(kwargs or {}))
        tensors = [x for x in tree_leaves((args, kwargs, found)) if isinstance(x, torch.Tensor)]
        devices = {tensor.device.type for tensor in tensors}
        if self.device_type not in devices:
            return found
        self.arrived += len(devices) > 1
        self.seen[name] += 1
        if name == "nll_loss2d_forward" and args[3] != 0:
            self.reduced.append(name)
        if name == "index" and any(i is not None and i.dtype is torch.bool for i in args[1]):
            self.seen["nonzero"] += 1
        return found


def refused(seen: Counter[str]) -> list[str]:
    return [name for name in seen for bad in REFUSED if name.startswith(bad)]


class Enough(Exception):
    """The steps that were wanted are done."""


def steps_on_meta(config: TrainConfig, folder: Path) -> Recorder:
    """The second step of a run whose tensors have no data: nothing can be read back from them."""
    determinism.enable_determinism(config)
    dataset, host = open_dataset(config.data), Ranks(0, 1, torch.device("cpu"))
    state, device = new_state(config, dataset.num_classes, host), torch.device("meta")
    for network in state.networks.values():
        network.to(device)
    state.memory = {name: value.to(device) for name, value in state.memory.items()}
    for name in state.optimisers:
        state.optimisers[name] = SGD.over(state.networks[name], config.optim)
    ranks = Ranks(0, 1, device)
    schedule = Schedule((Stage("", epoch_steps=99, epochs=1),))
    checkpoints = Checkpoints(folder, config, ranks, schedule)
    run_log = RunLog(folder, total_steps=99, epochs=1)
    loop = Loop(config, ranks, dataset, state, checkpoints, run_log, schedule)
    recorder = Recorder("meta")
    with ExitStack() as stack:

        def stop() -> bool:
            if state.step == 2:
                raise Enough
            stack.enter_context(recorder)
            return False

        stack.enter_context(pytest.raises(Enough))
        library = stack.enter_context(torch.library._scoped_library("aten", "IMPL"))
        library.impl("_fused_sgd_", lambda *_, **__: None, "Meta")  # torch has no meta form of it
        loop.run(stop)
    return recorder


STEPS = [
    ["method=supervised_star"],
    ["method=unimatch_star", "loss=kl", "run.augment=host"],
    ["method=supervised_star", "optim.criterion=ohem", "optim.ohem_min_kept_per_image=50"],
    ["method=fixmatch", "loss=kl"],
    ["method=unimatch", "loss=none"],
    ["method=mean_teacher", "loss=kl"],
    ["method=cutmix_seg", "loss=kl"],
    ["method=mt_cutmix", "loss=kl"],
    ["method=cps", "loss=kl"],
    ["method=cps_no_cutmix", "loss=kl"],
    ["method=ps_mt", "loss=kl", "method.ps_mt.warmup_epochs=1"],
    ["method=pc2seg_style", "loss=kl", "method.pc2seg_style.cutout=true"],
    ["method=cac", "loss=kl", "method.cac.supervised_epochs=0"],
    ["method=u2pl", "loss=kl", "method.u2pl.sup_only_epochs=0"],
    ["method=ael", "loss=kl", "loss.views=[mixed,labelled]"],
    ["method=unimatch", "loss=cr"],
    ["method=unimatch_star", "loss=kl"],
    ["loss=kl", "method.teacher=ema", "method.pseudo_labels=teacher", "loss.views=[s1,s2,fp]"],
    ["loss=cr", "loss.on_labeled=true", "loss.cutmix=two_regions", "method.teacher_mode=eval"],
    ["loss=kl", "loss.cutmix=uncut", "loss.divide_by=valid_images", "loss.classes=present"],
    ["loss=kl", "loss.scope=batch", "loss.direction=js", "loss.resolution=feature"],
    ["loss=cr", "method.teacher=ema", "method.ema_buffers=ema", "run.graph=step"],
    ["model=efficientnet_lite0", "model.init=random", "model.width=16", "loss=kl"],
]


# Tensors of a batch: labelled windows have three and masks; the other half adds three, and what the
# method names: boxes, stages of strong views (5). UniMatch adds the bits to keep of both halves.
ARRIVING = {
    "supervised": 4,
    "mean_teacher": 7,
    "cutmix_seg": 8,
    "cps": 7,  # and boxes with CutMix
    "fixmatch": 13,
    "mt_cutmix": 13,
    "unimatch": 15,
    "ps_mt": 20,
    "pc2seg_style": 16,  # holes and their keys
    "cac": 14,  # shift and mirroring
    "u2pl": 10,
    "ael": 18,  # numbers of both halves, pasted images (5), chosen partners (3)
}


@pytest.mark.parametrize("overrides", STEPS, ids=" ".join)
def test_a_step_neither_waits_for_the_device_nor_uses_what_cuda_refuses(
    drawn_root: Path, tmp_path: Path, overrides: list[str]
) -> None:
    config = tiny_config(drawn_root, "run.augment=device", "run.log_steps=1000", *overrides)

    recorder = steps_on_meta(config, tmp_path)

    assert recorder.seen["convolution"] > 20
    assert recorder.seen["convolution_backward"] > 20
    assert recorder.seen["nll_loss2d_forward"] >= 1
    assert recorder.seen["_fused_sgd_"] == (4 if config.method.algorithm == "cps" else 2)
    assert set(recorder.seen) <= ALLOWED
    assert refused(recorder.seen) == []
    assert recorder.reduced == []
    # The tensors of the batch and nothing else: pinned memory makes these copies free.
    num_tensors = 14 if "run.augment=host" in overrides else ARRIVING[config.method.algorithm]
    assert recorder.arrived == num_tensors + ("method=cps" in overrides)


def ohem_step_of_a_rank(root: str) -> list[str]:
    """What a loss over two ranks asks of the dispatcher."""
    ranks = Ranks(torch.distributed.get_rank(), 2, torch.device("cpu"))
    config = tiny_config(
        Path(root), "method=supervised_star", "optim.criterion=ohem", "optim.batch=1"
    )
    dataset = open_dataset(config.data)
    state = new_state(config, dataset.num_classes, ranks)
    plan = BatchPlan(
        batch=config.batch,
        stop=1,
        rank=ranks.rank,
        world_size=2,
        num_channel_bits=state.networks["student"].num_channel_bits,
        unlabelled=False,
    )
    ((labelled, _),) = batches(dataset, config.data, seed=1, plan=plan)
    assert isinstance(labelled, LabelledBatch)
    normalise(labelled.images)  # makes the constants
    with Recorder() as recorder:
        given = StepInput(state.networks, state.memory, labelled, None)
        Objective.of(config, ranks)(given, weight=0.0).loss.backward()
        ranks.sum_gradients(state.networks["student"].parameters())
    assert recorder.seen["convolution"] > 20
    return refused(recorder.seen)


def test_ranks_do_not_wait_for_their_devices_either(drawn_root: Path) -> None:
    assert run_ranks(ohem_step_of_a_rank, 2, str(drawn_root)) == [[], []]


@pytest.mark.parametrize("model", ["resnet8", "efficientnet_lite0"])
def test_what_ranks_use_on_cuda_repeats_its_bits(model: str) -> None:
    operations = count(Case(model=model, crop=33, batch=2, classes=5), 3).operations

    assert operations["batch_norm_backward_reduce"] > 20
    assert set(operations) <= {*ALLOWED, *TOGETHER.split()}


def test_evaluation_uses_none_either(drawn_root: Path) -> None:
    for mode in ("whole", "slide"):
        config = tiny_config(drawn_root, f"evaluation.mode={mode}")
        state = new_state(config, 6, Ranks(0, 1, torch.device("cpu")))
        images = torch.zeros(1, 3, 50, 70, dtype=torch.uint8)
        predict(state.networks["student"].eval(), images, config)  # makes the constants
        with Recorder() as recorder, torch.no_grad():
            predict(state.networks["student"], images, config)
        assert refused(recorder.seen) == []


def test_the_recorder_catches_what_it_should() -> None:
    with Recorder() as recorder:
        x = torch.zeros(1, 2, 3, 3, requires_grad=True)
        torch.nn.functional.interpolate(x, scale_factor=2, mode="bilinear").sum().backward()
        torch.nn.functional.cross_entropy(x, torch.zeros(1, 3, 3, dtype=torch.int64))
        x.detach()[x.detach() > 0].sum()

    assert {"upsample_bilinear2d", "nonzero"} <= set(refused(recorder.seen))
    assert recorder.reduced == ["nll_loss2d_forward"]
