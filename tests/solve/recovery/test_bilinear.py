"""Blind deconvolution and demixing: gradients, the card's table, ambiguities, bad input."""

import math
import statistics

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from thalweg.core import Reason
from thalweg.solve.recovery import (
    Bilinear,
    BlindDeconvolution,
    BlindDemixing,
    CodedDiffraction,
    blind_wirtinger_flow,
    regularized_blind_descent,
)
from thalweg.solve.recovery.bilinear_flow import penalty, penalty_gradient

METHODS = (blind_wirtinger_flow, regularized_blind_descent)
every = pytest.mark.parametrize("method", METHODS, ids=lambda m: m.__name__)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def steps_to(error, problem, method=blind_wirtinger_flow, **how):
    def stop(result):
        if result.trace["error"][-1] <= error:
            raise StopIteration

    result = method(problem, tol=0.0, callback=stop, **how)
    return int(result.trace["step"][-1]) if result.trace["error"][-1] <= error else None


def dense_model(problem, z):
    """y, entry by entry as it is defined."""
    m = problem.y.shape[-1]
    rows = torch.arange(m).double()[:, None] * torch.arange(problem.width)
    B = torch.polar(torch.ones_like(rows), -2 * math.pi * rows / m) / m**0.5
    B = problem.B if isinstance(problem.B, torch.Tensor) else B
    A = problem.A
    return torch.stack(
        [
            sum((B[j] @ z.h[i]) * (z.x[i].conj() @ A[i, j]) for i in range(problem.n_sources))
            for j in range(m)
        ]
    ), B


def test_the_model_is_the_sum_it_is_said_to_be():
    problem = BlindDemixing.random(2, 30, 4, 3, generator=seeded())
    z = problem.start("random", seeded(1))
    y, B = dense_model(problem, z)
    torch.testing.assert_close(problem.forward(z), y)
    torch.testing.assert_close(B.mH @ B, torch.eye(4, dtype=B.dtype))
    given_rows = BlindDemixing(problem.y, problem.A, B=B)
    torch.testing.assert_close(given_rows.forward(z), y)
    w = torch.randn(5, 30, dtype=B.dtype, generator=seeded(2))
    torch.testing.assert_close(problem.left_adjoint(w), given_rows.left_adjoint(w))
    torch.testing.assert_close(problem.left_adjoint(w), w @ B.conj())


@pytest.mark.parametrize("s", [1, 2])
def test_operators_are_the_matrices_they_stand_for(s):
    masks = [CodedDiffraction.random((4, 5), 3, generator=seeded(i)) for i in range(s)]
    eye = torch.eye(20, dtype=torch.complex128).reshape(20, 4, 5)
    A = torch.stack([operator.forward(eye).mT for operator in masks])
    z = BlindDemixing.random(s, 60, 3, 20, generator=seeded(9)).truth
    dense = BlindDemixing(BlindDemixing(A[0, :, 0], A, 3).forward(z), A, 3, truth=z)
    problem = BlindDemixing(dense.y, masks, 3, truth=z)
    torch.testing.assert_close(problem.gain, dense.gain)
    torch.testing.assert_close(problem.start().dense(), dense.start().dense())
    one, two = (blind_wirtinger_flow(p, max_steps=5, tol=0.0).x for p in (problem, dense))
    torch.testing.assert_close(one.dense(), two.dense())
    if s == 1:
        single = BlindDeconvolution(dense.y, masks[0], 3)
        torch.testing.assert_close(single.forward(z), dense.y)
    with pytest.raises(ValueError, match="operators of one size"):
        BlindDemixing(dense.y, [masks[0], CodedDiffraction.random((4, 4), 3)], 3)


def test_it_is_a_sum_of_convolutions():
    """With A_i = sqrt(m) F C_i, x conjugate: the Fourier transform of sum h_i * (C_i x_i)."""
    m, C = 24, torch.randn(2, 24, 3, dtype=torch.float64, generator=seeded())
    h = torch.randn(2, 4, dtype=torch.float64, generator=seeded(1))
    x = torch.randn(2, 3, dtype=torch.float64, generator=seeded(2))
    padded = torch.cat([h, torch.zeros(2, m - 4).double()], 1)
    convolved = sum(
        torch.stack([(padded[i].flip(0).roll(k + 1) * (C[i] @ x[i])).sum() for k in range(m)])
        for i in range(2)
    )
    A = torch.fft.fft(C.to(torch.complex128), dim=-2)
    problem = BlindDemixing(torch.fft.fft(convolved) / m**0.5, A, 4)
    assert problem.residual(Bilinear(h + 0j, x + 0j)) < 1e-14


@pytest.mark.parametrize("real", [False, True])
def test_closed_forms_are_half_of_what_autograd_returns(real):
    problem = BlindDemixing.random(2, 40, 5, 4, generator=seeded(3))
    if real:
        B = 3 * torch.linalg.qr(torch.randn(40, 5, dtype=torch.float64, generator=seeded(4))).Q
        problem = BlindDemixing(problem.y.real, 2 * problem.A.real, B=B)
    z = Bilinear(*(v.requires_grad_() for v in problem.start("random", seeded(5))))
    g = problem.gradient(z, problem.misfit(z))
    half = torch.autograd.grad(problem.value(z), z)
    for closed, auto in zip(g, half, strict=True):
        torch.testing.assert_close(closed, auto / 2, rtol=1e-12, atol=1e-12)
    # Penalties that are all at work: short d, small coherence.
    d = torch.full((2, 1), 0.05, dtype=torch.float64)
    mu2, rho = torch.tensor([[0.1], [0.2]]).double(), torch.tensor(0.7).double()
    half = torch.autograd.grad(penalty(problem, z, d, mu2, rho), z)
    for closed, auto in zip(penalty_gradient(problem, z, d, mu2, rho), half, strict=True):
        assert auto.abs().min() > 0
        torch.testing.assert_close(closed, auto / 2, rtol=1e-11, atol=1e-11)


def test_one_step_is_the_formula():
    problem = BlindDemixing.random(2, 60, 5, 4, generator=seeded(6))
    z = problem.start()
    r = problem.misfit(z)
    _, B = dense_model(problem, z)
    A = problem.A
    new = blind_wirtinger_flow(problem, start=z, max_steps=1, tol=0.0).x
    for i in range(2):
        grad_h = B.mH @ (r * (A[i] @ z.x[i].conj()).conj())
        grad_x = A[i].mT @ (r.conj() * (B @ z.h[i]))
        h = z.h[i] - 0.3 / z.x[i].norm() ** 2 * grad_h / problem.gain[i]
        x = z.x[i] - 0.3 / z.h[i].norm() ** 2 * grad_x / problem.gain[i]
        torch.testing.assert_close(new.h[i], h)
        torch.testing.assert_close(new.x[i], x)


@pytest.mark.parametrize("coherence", [None, 0.9])
def test_one_step_of_the_baseline_is_its_formula(coherence):
    r"""z - (eta / d) grad (f + G): all three penalties of G at work."""
    problem = BlindDemixing.random(2, 60, 5, 4, generator=seeded(6))
    problem = BlindDemixing(
        problem.y, torch.as_tensor(problem.A) / problem.gain.sqrt().view(2, 1, 1), 5
    )
    torch.testing.assert_close(problem.gain, torch.ones(2).double())  # d is what it is in the paper
    z = problem.start()
    long = torch.tensor([[6.0], [0.1]], dtype=torch.float64)  # one long h, one long x
    z = Bilinear((z.h * long).requires_grad_(), (z.x / long).requires_grad_())
    _, B = dense_model(problem, z)
    d = [float(z.h[i].detach().norm() * z.x[i].detach().norm()) for i in range(2)]
    rho = 0.8 * sum(each**2 for each in d)

    def excess(t):
        return (t - 1).clamp(min=0).square()

    G = 0
    for i in range(2):
        seen = (B @ z.h[i]).abs().square()
        mu2 = (
            float(seen.detach().max() / seen.detach().mean()) if coherence is None else coherence**2
        )
        parts = z.h[i].abs().square().sum(), z.x[i].abs().square().sum()
        G = G + rho * sum(excess(part / (2 * d[i])) for part in parts)
        G = G + rho * excess(60 * seen / (8 * d[i] * mu2)).sum()
    expected = torch.autograd.grad(problem.value(z) + G, z)
    z = Bilinear(*(v.detach() for v in z))
    new = regularized_blind_descent(
        problem, start=z, weight=0.8, coherence=coherence, step_size=0.01, max_steps=1, tol=0.0
    ).x
    for factor, before, gradient in zip(new, z, expected, strict=True):
        step = (
            0.01 / torch.tensor(d, dtype=torch.float64)[:, None] * gradient / 2
        )  # autograd returns twice Wirtinger's
        torch.testing.assert_close(factor, before - step, rtol=1e-10, atol=1e-12)


def test_random_starts_have_the_norm_that_the_data_suggest():
    """The squared norm of both factors is the norm of y over that of one source in the data."""
    drawn = BlindDemixing.random(3, 200, 5, 6, generator=seeded(0))
    for c in (1.0, 7.0):
        problem = BlindDemixing(drawn.y, c * drawn.A, 5)
        z = problem.start("random", seeded(1))
        unit = c**2 * torch.as_tensor(drawn.A).abs().square().mean((-2, -1))  # of h and x of norm 1
        expected = drawn.y.norm() / (3 * unit).sqrt()
        for factor in z:
            torch.testing.assert_close(factor.norm(dim=-1).square(), expected)
            assert not torch.equal(factor[0], factor[1])


def test_the_spectral_start_is_the_leading_triple():
    problem = BlindDemixing.random(2, 80, 5, 4, generator=seeded(7))
    _, B = dense_model(problem, problem.truth)
    z = problem.start()
    for i in range(2):
        M = B.mH @ torch.diag(problem.y) @ problem.A[i].conj() / problem.gain[i]
        U, S, Vh = torch.linalg.svd(M)
        torch.testing.assert_close(z.dense()[i], S[0] * torch.outer(U[:, 0], Vh[0]))
        assert z.h[i].norm() == pytest.approx(float(z.x[i].norm()))


# sources, measurements, step, the card's steps of three draws: within 20 % of their range
TABLE = [
    (1, 100, 0.5, 58, 72),
    (2, 200, 0.3, 96, 122),
    (3, 300, 0.3, 98, 105),
]  # fmt: skip


@pytest.mark.parametrize("s, m, step_size, low, high", TABLE)
def test_steps_to_1e_6(s, m, step_size, low, high):
    problems = [BlindDemixing.random(s, m, generator=seeded(seed)) for seed in range(3)]
    steps = [steps_to(1e-6, problem, step_size=step_size) for problem in problems]
    assert None not in steps
    assert 0.8 * low <= min(steps) and max(steps) <= 1.2 * high
    for problem in problems:
        assert 0.35 < problem.error(problem.start()) < 0.7
        x = blind_wirtinger_flow(problem).x
        ratio = x.h.norm(dim=-1) / x.x.norm(dim=-1)
        assert ((ratio > 0.5) & (ratio < 2)).all()


@pytest.mark.slow
@pytest.mark.parametrize("s, m, low, high", [(1, 100, 316, 386), (3, 300, 306, 327)])
def test_a_step_of_a_tenth(s, m, low, high):
    steps = [
        steps_to(1e-6, BlindDemixing.random(s, m, generator=seeded(seed)), step_size=0.1)
        for seed in range(3)
    ]
    assert 0.8 * low <= min(steps) and max(steps) <= 1.2 * high


def test_sources_of_different_strengths():
    strengths = torch.linspace(1, 1 / 3, 3, dtype=torch.float64)
    for seed in range(2):
        problem = BlindDemixing.random(3, 300, strengths=strengths, generator=seeded(seed))
        assert 80 <= steps_to(1e-6, problem) <= 130


@pytest.mark.parametrize("s, m, low, high", [(1, 100, 67, 78), (2, 200, 101, 123)])
def test_random_starts_do_as_well(s, m, low, high):
    for seed in range(3):
        problem = BlindDemixing.random(s, m, generator=seeded(seed))
        k = steps_to(1e-6, problem, start="random", generator=seeded(100 + seed))
        assert k is not None and 0.8 * low <= k <= 1.25 * high


@pytest.mark.slow
def test_more_measurements_take_fewer_steps():
    """The card: 100, 69, 53 for m = 200, 400, 800."""
    medians = [
        statistics.median(
            steps_to(1e-6, BlindDemixing.random(2, m, generator=seeded(seed))) for seed in range(4)
        )
        for m in (200, 400, 800)
    ]
    for median, expected in zip(medians, (100, 69, 53), strict=True):
        assert abs(median - expected) <= 0.15 * expected


@pytest.mark.slow
def test_the_regularizer_does_not_save_steps():
    plain, regularized = [], []
    for seed in range(5):
        problem = BlindDemixing.random(2, 200, generator=seeded(seed))
        plain.append(steps_to(1e-6, problem))
        regularized.append(steps_to(1e-6, problem, regularized_blind_descent))
    assert statistics.mean(plain) <= statistics.mean(regularized)


def test_deconvolution_is_demixing_of_one_source():
    demixing = BlindDemixing.random(1, 100, generator=seeded(8))
    problem = BlindDeconvolution(demixing.y, demixing.A[0], 10, truth=demixing.truth)
    one, two = (blind_wirtinger_flow(p) for p in (demixing, problem))
    assert torch.equal(one.x.h, two.x.h) and torch.equal(one.x.x, two.x.x)
    assert problem.error(two.x) < 1e-8
    strengths = torch.tensor([3.0])
    one, two = (
        kind.random(1, 50, 4, 5, strengths=strengths, generator=seeded(9))
        for kind in (BlindDemixing, BlindDeconvolution)
    )
    assert torch.equal(one.y, two.y) and torch.equal(one.truth.h, two.truth.h)
    assert float(two.truth.h.norm()) == pytest.approx(3.0)


@settings(deadline=None, max_examples=15)
@given(modulus=st.floats(0.1, 10), angle=st.floats(0, 6.3), seed=st.integers(0, 100))
def test_how_a_source_is_shared_between_its_factors_does_not_matter(modulus, angle, seed):
    problem = BlindDemixing.random(2, 40, 5, 4, generator=seeded(seed))
    alpha = torch.tensor([[modulus], [1 / modulus]]) * torch.exp(torch.tensor(1j * angle))
    alpha = alpha.to(torch.complex128)
    z = problem.start("random", seeded(seed + 1))
    other = Bilinear(alpha * z.h, z.x / alpha.conj())
    for measure in (problem.value, problem.residual, problem.error):
        torch.testing.assert_close(measure(other), measure(z), rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(other.dense(), z.dense())
    shared = Bilinear(alpha * problem.truth.h, problem.truth.x / alpha.conj())
    assert problem.error(shared) < 1e-14
    # The steps, too: each factor moves by the other's scale.
    one, two = (blind_wirtinger_flow(problem, start=v, max_steps=2, tol=0.0).x for v in (z, other))
    torch.testing.assert_close(one.dense(), two.dense(), rtol=1e-8, atol=1e-10)


@every
@settings(deadline=None, max_examples=5)
@given(seed=st.integers(0, 50), c=st.sampled_from([1e-5, 1e4]))
def test_scales_and_the_order_of_rows(method, seed, c):
    problem = BlindDemixing.random(2, 80, 5, 4, generator=seeded(seed))
    how = {"max_steps": 5, "tol": 0.0}
    x = method(problem, **how).x.dense()
    louder = BlindDemixing(c * problem.y, problem.A, 5)
    torch.testing.assert_close(method(louder, **how).x.dense() / c, x, rtol=1e-7, atol=1e-10)
    longer = BlindDemixing(problem.y, c * problem.A, 5)
    torch.testing.assert_close(method(longer, **how).x.dense() * c, x, rtol=1e-7, atol=1e-10)
    _, B = dense_model(problem, problem.truth)
    order = torch.randperm(80, generator=seeded(seed))
    shuffled = BlindDemixing(problem.y[order], problem.A[:, order], B=c * B[order])
    torch.testing.assert_close(method(shuffled, **how).x.dense() * c, x, rtol=1e-7, atol=1e-10)


def test_the_error_is_that_of_the_matrices():
    problem = BlindDemixing.random(3, 60, 5, 4, generator=seeded(9))
    z = problem.start("random", seeded(10))
    truth = problem.truth.dense()
    expected = (z.dense() - truth).norm() / truth.norm()
    torch.testing.assert_close(problem.error(z), expected)
    near = Bilinear(problem.truth.h * (1 + 1e-13), problem.truth.x)
    assert problem.error(near) == pytest.approx(1e-13, rel=0.02)


def test_real_models():
    B = torch.linalg.qr(torch.randn(150, 6, dtype=torch.float64, generator=seeded(11))).Q
    A = torch.randn(150, 7, dtype=torch.float64, generator=seeded(12))
    h = torch.randn(1, 6, dtype=torch.float64, generator=seeded(13))
    x = torch.randn(1, 7, dtype=torch.float64, generator=seeded(14))
    problem = BlindDeconvolution((B @ h[0]) * (A @ x[0]), A, B=B, truth=Bilinear(h, x))
    result = blind_wirtinger_flow(problem, step_size=0.3)
    assert result.converged and problem.error(result.x) < 1e-8
    assert result.x.h.dtype == torch.float64


@every
def test_too_long_a_step_is_halved(method):
    problem = BlindDemixing.random(2, 200, generator=seeded(15))
    result = method(problem, step_size=9.6)
    assert result.converged and problem.error(result.x) < 1e-8
    assert result.info["step_size"] < 3
    given_up = method(problem, step_size=9.6, halvings=0)
    assert given_up.reason is Reason.NONFINITE
    assert problem.residual(given_up.x) <= problem.residual(problem.start()) * (1 + 1e-9)


def test_a_factor_that_collapses_is_reported():
    """One number of each: from h = x = 1 and y = 0+, a step of exactly 1 lands on zero."""
    y = torch.tensor([1e-20 + 0j, 0, 0], dtype=torch.complex128)
    A = torch.ones(3, 1, dtype=torch.complex128)
    problem = BlindDeconvolution(y, A, B=torch.eye(3, 1, dtype=torch.complex128) * 3**0.5)
    one = Bilinear(torch.ones(1, 1), torch.ones(1, 1))
    result = blind_wirtinger_flow(problem, start=one, step_size=1.0, halvings=0, xtol=0.0)
    assert result.reason is Reason.NONFINITE and result.info["collapsed"] == [0]
    again = blind_wirtinger_flow(problem, start=one, step_size=1.0, halvings=1, max_steps=3)
    assert again.info["step_size"] == 0.5 and again.info["collapsed"] == []
    # A ten-thousandth of the norm is not nothing, a ten-millionth is.
    for left, collapsed in ((1e-4, []), (1e-7, [0])):
        near = blind_wirtinger_flow(
            problem, start=one, step_size=1 - left, halvings=0, xtol=0.0, max_steps=2
        )
        assert near.info["collapsed"] == collapsed


def test_the_baseline_shortens_long_factors_and_the_plain_flow_leaves_them():
    problem = BlindDemixing.random(1, 200, generator=seeded(16))
    z = problem.start()
    uneven = Bilinear(3 * z.h, z.x / 3)
    ratios = {}
    for method in METHODS:
        result = method(problem, start=uneven)
        assert result.converged and problem.error(result.x) < 1e-8
        ratios[method] = float(result.x.h.norm() / result.x.x.norm())
    assert 7 < ratios[blind_wirtinger_flow] < 11
    assert ratios[regularized_blind_descent] < 4


def test_bad_input_is_named():
    good = BlindDemixing.random(2, 60, 5, 4, generator=seeded())
    y, A = good.y, good.A
    nan = y.clone()
    nan[3] = math.nan
    B = torch.randn(60, 5, dtype=torch.complex128, generator=seeded())
    cases = [
        ((nan, A, 5), {}, "y must be finite"),
        ((0 * y, A, 5), {}, "y must not be all zero"),
        ((y, 0 * A, 5), {}, "A must not be zero"),
        ((y[:50], A, 5), {}, "A must have m = 50 rows"),
        ((y, A), {}, "K must be given"),
        ((y, A, 61), {}, "K must be"),
        ((y, A), {"B": B}, "B must have orthogonal columns of one length"),
        ((y, A), {"B": torch.linalg.qr(B).Q + 1e-4 * B}, "B must have orthogonal columns"),
        ((y, A), {"B": B[:9]}, "B must have shape"),
        ((y, A, 5), {"B": "fft"}, "B must be one of"),
        ((y, A, 4), {"truth": good.truth}, "truth must have factors of shape"),
    ]
    for arguments, how, message in cases:
        with pytest.raises(ValueError, match=message):
            BlindDemixing(*arguments, **how)
    with pytest.raises(TypeError, match="A must be"):
        BlindDemixing(y, torch.ones(2, 60, 3, dtype=torch.long), 5)
    with pytest.warns(UserWarning, match="10 measurements are fewer than the 16 unknowns"):
        BlindDemixing.random(2, 10, 5, 4, generator=seeded())
    with pytest.warns(UserWarning, match="15 measurements are fewer than the 16 unknowns"):
        BlindDemixing.random(2, 15, 5, 4, generator=seeded())
    BlindDemixing.random(2, 16, 5, 4, generator=seeded())  # enough: a warning would be an error
    for method in METHODS:
        for name in ("step_size", "halvings"):
            with pytest.raises(ValueError, match=f"{name} must be"):
                method(good, **{name: -1})
    for name, value in (("coherence", 0.0), ("weight", -1.0)):
        with pytest.raises(ValueError, match=f"{name} must be"):
            regularized_blind_descent(good, **{name: value})
    with pytest.raises(ValueError, match="start must have factors"):
        blind_wirtinger_flow(good, start=Bilinear(torch.ones(2, 5), torch.ones(2, 5)))
    with pytest.raises(ValueError, match="error needs"):
        BlindDemixing(y, A, 5).error(good.truth)
    with pytest.raises(ValueError, match="s must be"):
        BlindDeconvolution.random(2)
