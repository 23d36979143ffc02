"""Kernels that can be differentiated twice, chosen inside the instruments."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel


@contextmanager
def differentiable_kernels(model: nn.Module) -> Iterator[None]:
    r"""Run attention and recurrent layers on kernels with second derivatives and forward mode.

    The fused attention kernels have first derivatives only; the mathematical one,
    :math:`\operatorname{softmax}(Q K^\top / \sqrt{s}) V` written out, has all. The fused recurrent
    layers lack forward mode (oneDNN) or second derivatives (cuDNN): both are switched off, where
    the model has a recurrent layer.

    Parameters
    ----------
    model
        The network that will be run inside the block.

    Examples
    --------
    >>> x = torch.ones(1, 2, 4, requires_grad=True)
    >>> with differentiable_kernels(nn.Identity()):
    ...     y = nn.functional.scaled_dot_product_attention(x, x, x).square().sum()
    >>> (g,) = torch.autograd.grad(y, x, create_graph=True)
    >>> torch.autograd.grad(g.sum(), x)[0].shape
    torch.Size([1, 2, 4])
    """
    with ExitStack() as stack:
        stack.enter_context(sdpa_kernel(SDPBackend.MATH))
        fast = torch.backends.mha.get_fastpath_enabled()
        torch.backends.mha.set_fastpath_enabled(False)
        stack.callback(torch.backends.mha.set_fastpath_enabled, fast)
        if any(isinstance(module, nn.RNNBase) for module in model.modules()):
            # not their flags(): that touches TF32 as well, which warns where there is none
            libraries: tuple[Any, Any] = (torch.backends.mkldnn, torch.backends.cudnn)
            for library in libraries:
                stack.callback(setattr, library, "enabled", library.enabled)
                library.enabled = False
        yield
