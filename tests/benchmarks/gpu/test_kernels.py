"""Operators and kernels name the library that computed; a card's names are given as text."""

import torch
from torch import nn

from benchmarks.gpu.kernels import Names, batch_norm_operators, launched_by, library

CUDNN = "sm90_xmma_fprop_implicit_gemm_tf32f32_tf32f32_f32_nhwckrsc_nhwc"


def test_the_library_of_a_real_convolution_is_named() -> None:
    layer, one = nn.Conv2d(2, 2, 3, padding=2, dilation=2), torch.zeros(1, 2, 5, 5)
    both = torch.cat([one, one])

    # On a CPU torch computes one small image by itself.
    alone, together = (launched_by(lambda x=x: layer(x), one.device) for x in (one, both))

    assert not alone.kernels
    assert library([alone]) == "torch's slow_conv_dilated2d"
    assert library([together]) == "oneDNN"
    assert library([alone, together]) == "oneDNN, torch's slow_conv_dilated2d"


def test_a_kernel_of_torch_in_the_backward_pass_is_said() -> None:
    forward = frozenset({"aten::cudnn_convolution", "aten::convolution_backward"})
    slow = "void at::native::col2im_kernel<float>"

    assert library([Names(forward, frozenset({CUDNN}))]) == "cuDNN"
    assert library([Names(forward, frozenset({CUDNN, slow}))]) == f"cuDNN, BUT ALSO {slow}"


def test_an_unknown_library_is_no_library_that_is_known() -> None:
    assert library([Names(frozenset({"aten::other"}))]) == "an unknown library"


def test_operators_of_batch_norm_are_named_without_those_that_only_call_another() -> None:
    names = ("aten::batch_norm", "aten::cudnn_batch_norm", "aten::add")

    assert batch_norm_operators(Names(frozenset(names))) == "cudnn_batch_norm"
