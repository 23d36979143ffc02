"""Clauses on inputs that are wrong or rare: supported, or refused in words."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter

from thalweg.testing.report import Verdict, failed, not_applicable, noted, passed, refused
from thalweg.testing.subject import (
    CLEAR,
    Subject,
    close,
    deliberate,
    describe,
    message,
    refusal,
    seed,
)


def bad_hyper(subject: Subject) -> Verdict:
    """lr = -1 must be refused; NaN elsewhere is noted."""
    defaults = subject.start().optimizer.defaults

    def accepted(name: str, value: Any) -> bool:
        try:
            subject.optimizer(subject.model().parameters(), **{name: value})
        except Exception as error:
            if not deliberate(error):
                raise
            return False
        return True

    if "lr" in defaults:
        try:
            if accepted("lr", -1.0):
                return failed("lr=-1 accepted", "a ValueError that names lr")
        except Exception as error:
            return failed(f"{message(error)} for lr=-1", "a ValueError that names lr")
    nan = float("nan")
    loose = [
        name
        for name, value in defaults.items()
        if (isinstance(value, float) and accepted(name, nan))
        or (
            isinstance(value, tuple)
            and value
            and all(isinstance(v, float) for v in value)
            and accepted(name, (nan, *value[1:]))
        )
    ]
    if loose:
        return noted(f"NaN accepted for {', '.join(loose)}")
    return passed("lr = -1 and NaN in any hyper-parameter are refused")


def empty_list(subject: Subject) -> Verdict:
    """Build with no parameters, and step."""
    try:
        optimizer = subject.optimizer([])
    except (TypeError, ValueError) as error:
        return passed(f"refused: {message(error)}")
    subject.apply(optimizer, [], [])
    return passed("accepted; the step does nothing")


def integer(subject: Subject) -> Verdict:
    """Step on integers: a step that rounds, or does nothing, fails."""
    p = torch.arange(6).reshape(2, 3)
    before = p.clone()
    try:
        subject.apply(subject.optimizer([p]), [p], [torch.ones_like(p)])
    except Exception as error:
        words = ("int", "float", "long", "dtype", "differentiable")
        return refusal(error, *words, expected="integer parameters refused")
    if torch.equal(p, before):
        return failed("a step on integers that does nothing", "an error that names the dtype")
    return failed("integer parameters changed by rounded steps", "an error that names the dtype")


def complex_numbers(subject: Subject) -> Verdict:
    """Complex parameters against pairs of reals."""
    draw = torch.Generator().manual_seed(0)
    start = torch.randn(4, 3, dtype=torch.complex64, generator=draw)
    gradients = [torch.randn(4, 3, dtype=torch.complex64, generator=draw) for _ in range(3)]
    try:
        p = followed(subject, start, gradients)
    except Exception as error:
        return refusal(error, "complex", expected="complex parameters supported")
    if not p.is_complex():
        return failed(describe(p), "a complex parameter to stay complex")
    try:
        pairs = followed(
            subject, torch.view_as_real(start), [torch.view_as_real(g) for g in gradients]
        )
    except CLEAR:
        pairs = None
    if pairs is None:
        return noted("complex parameters run; pairs of reals do not, so nothing to compare with")
    if not close(torch.view_as_real(p), pairs):
        gap = (torch.view_as_real(p) - pairs).abs().max().item()
        return failed(f"{gap:.2g} away", "the step on real and imaginary parts as pairs of reals")
    return passed("complex parameters step as pairs of reals")


def sparse(subject: Subject) -> Verdict:
    """The first step of a sparse gradient against that of the same gradient stored densely."""
    if subject.closure:
        return not_applicable("needs a closure, which gives the gradients")
    start = torch.linspace(-1, 1, 15).reshape(5, 3)
    dense = torch.zeros(5, 3)
    dense[1], dense[3] = torch.tensor([0.5, -1.0, 2.0]), torch.tensor([1.0, 0.1, -0.3])
    try:
        p = followed(subject, start, [dense.to_sparse(1)])
    except Exception as error:
        return refusal(error, "sparse", expected="sparse gradients supported")
    expected = followed(subject, start, [dense])
    if not close(p, expected):
        gap = (p - expected).abs().max().item()
        return failed(f"a first step {gap:.2g} away", "that of the same gradient stored densely")
    return passed("a sparse gradient gives the step of the dense one")


def followed(subject: Subject, start: Tensor, gradients: Sequence[Tensor]) -> Tensor:
    """Where prescribed gradients lead one parameter."""
    p = Parameter(start.clone())
    optimizer = subject.optimizer([p])
    for t, g in enumerate(gradients):
        seed(t)
        # A copy, for the next run of the same gradients; one that keeps stride 0.
        subject.apply(optimizer, [p], [g if not g.is_sparse and 0 in g.stride() else g.clone()])
    return p.detach()


def gradients_like(shape: Sequence[int]) -> list[Tensor]:
    """Three gradients of a shape, the same each time."""
    draw = torch.Generator().manual_seed(3)
    return [torch.randn(*shape, generator=draw) for _ in range(3)]


def alike(
    subject: Subject, start: Tensor, arrange: Callable[[Tensor], Tensor], what: str
) -> Verdict:
    """Another memory layout of the same numbers must take the same steps."""
    gradients = gradients_like(start.shape)
    try:
        expected = followed(subject, start, gradients)
    except CLEAR as error:
        return refused(message(error))
    for layout, order in (("", arrange), (" with contiguous gradients", torch.clone)):
        p = Parameter(arrange(start.clone()))
        strides = p.stride()
        optimizer = subject.optimizer([p])
        try:
            for t, g in enumerate(gradients):
                seed(t)
                subject.apply(optimizer, [p], [order(g.clone())])
        except Exception as error:
            return refusal(error, "stride", "contiguous", expected=f"{what}{layout} supported")
        if not close(p.detach(), expected):
            gap = (p - expected).abs().max().item()
            got = f"{what}{layout} {gap:.2g} away"
            return failed(got, "the steps of the same numbers stored contiguously")
        if p.stride() != strides:
            return failed(f"strides {p.stride()}", f"{strides} as before: the user's storage")
    return passed(f"{what} steps like a contiguous one, whatever the gradient's strides")


def transposed(subject: Subject) -> Verdict:
    """A matrix stored column by column against one stored row by row."""
    start = torch.linspace(-1, 1, 20).reshape(5, 4)
    return alike(subject, start, lambda x: x.t().contiguous().t(), "a transposed parameter")


def channels_last(subject: Subject) -> Verdict:
    """A convolution stored channels last against a contiguous one."""
    start = torch.linspace(-1, 1, 120).reshape(4, 3, 2, 5)
    return alike(
        subject,
        start,
        lambda x: x.contiguous(memory_format=torch.channels_last),
        "a channels-last parameter",
    )


def expanded_gradient(subject: Subject) -> Verdict:
    """A gradient of stride 0, as of sum().backward(), against one stored in full."""
    start = torch.linspace(-1, 1, 12).reshape(4, 3)
    row = torch.tensor([0.5, -1.0, 0.25])
    rows = [scale * row for scale in (1.0, -0.5, 2.0)]
    try:
        expected = followed(subject, start, [r.expand(4, 3).contiguous() for r in rows])
    except CLEAR as error:
        return refused(message(error))
    try:
        p = followed(subject, start, [r.expand(4, 3) for r in rows])
    except Exception as error:
        return refusal(error, "stride", "contiguous", "expand", expected="such gradients supported")
    if not close(p, expected):
        gap = (p - expected).abs().max().item()
        return failed(f"{gap:.2g} away", "the steps of the gradient stored in full")
    return passed("a gradient with stride 0 (sum().backward()) steps like one stored in full")


def scalar(subject: Subject) -> Verdict:
    """0-d parameters: temperatures, gains, log-variances."""
    try:
        p = followed(subject, torch.tensor(0.7), [torch.tensor(g) for g in (0.5, 0.4, 0.6)])
    except Exception as error:
        words = ("0-d", "scalar", "dim", "2d", "2-d", "shape", "ndim", "matri")
        return refusal(error, *words, expected="0-d parameters supported")
    if p.shape != () or not p.isfinite():
        return failed(f"{describe(p)} = {p}", "a finite 0-d parameter")
    if p.item() == torch.tensor(0.7).item():
        return failed("a 0-d parameter that does not move", "an ordinary step")
    return passed("0-d parameters move and stay 0-d")


def empty(subject: Subject) -> Verdict:
    """A parameter with no element: an expert without tokens, a shard of a small bias."""
    full, start = Parameter(torch.ones(3, 2)), torch.zeros(0, 2)
    p = Parameter(start)
    optimizer = subject.optimizer([p, full])
    try:
        for g in gradients_like(full.shape):
            subject.apply(optimizer, [p, full], [torch.zeros(0, 2), g])
    except Exception as error:
        return refusal(
            error, "empty", "element", "numel", "size", expected="empty parameters skipped"
        )
    if not full.isfinite().all() or torch.equal(full, torch.ones(3, 2)):
        return failed("no finite move of the parameter beside an empty one", "an ordinary step")
    return passed("empty parameters are harmless")


def mixed_dtypes(subject: Subject) -> Verdict:
    """float32, bfloat16 and float64 in one group: each steps in its own."""
    dtypes = (torch.float32, torch.bfloat16, torch.float64)
    params = [Parameter(torch.linspace(-1, 1, 12).reshape(4, 3).to(d)) for d in dtypes]
    before = [p.detach().clone() for p in params]
    optimizer = subject.optimizer(params)
    for g in gradients_like((4, 3)):
        try:
            subject.apply(optimizer, params, [g.to(d) for d in dtypes])
        except Exception as error:
            return refusal(error, "dtype", "bfloat16", expected="several dtypes in one group")
        for p, dtype in zip(params, dtypes, strict=True):
            if p.dtype is not dtype:
                return failed(f"{p.dtype} from {dtype}", "each parameter to keep its dtype")
            if not p.isfinite().all():
                return failed(f"NaN or infinity in the {dtype} parameter", "finite ones")
    for p, dtype, start in zip(params, dtypes, before, strict=True):
        if dtype is not torch.bfloat16 and torch.equal(p, start):  # bfloat16 may round a step away
            return failed(f"no move of the {dtype} parameter", "an ordinary step")
    return passed("float32, bfloat16 and float64 in one group keep their dtype and move")
