"""SOSP-Check against brute force, on problems whose stationary kinks are made to order."""

from __future__ import annotations

from collections import Counter
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import null_space
from scipy.optimize import linprog, lsq_linear

from thalweg.curvature.relu import TwoLayerReLU, Verdict, check_local_optimality
from thalweg.curvature.relu.check import ReluVerdict
from thalweg.curvature.relu.escape import escape_kink
from thalweg.curvature.relu.snap import near_kinks

FAST, SLOW = 200, 3000
DESCENTS = (Verdict.DESCENT_FIRST_ORDER, Verdict.DESCENT_SECOND_ORDER)


def made_to_order(seed: int, *, loss: str = "mse", kinks: bool = True) -> TwoLayerReLU:
    """Weights and boundary sets at random; targets for which the point is Clarke-like stationary.

    Every kink gets a slope s_i (inside [s-, s+], at an end, or c_i = 0); the stationarity
    conditions are linear in the gradients gl_i; a random solution gives the targets.
    """
    random = np.random.default_rng(seed)
    d_x, d_h = int(random.integers(1, 4)), int(random.integers(1, 3))
    d_y = 1 if loss == "bce" else int(random.integers(1, 3))
    slopes = [(1.0, 0.0), (0.2, 1.0), (1.0, 0.1)][random.integers(3)]
    conditions = d_y + d_y * d_h + d_h * (2 * d_x + 1)
    m = conditions // d_y + int(random.integers(1, 5))
    X = random.standard_normal((m, d_x))
    Xb = np.c_[X, np.ones(m)]
    W, W2 = random.standard_normal((d_h, d_x + 1)), random.standard_normal((d_y, d_h))
    if random.random() < 0.1:
        W2[:, 0] = 0
    boundary = np.zeros((m, d_h), dtype=bool)
    for k in range(d_h if kinks else 0):
        B = random.choice(m, size=random.integers(0, d_x + 1), replace=False)
        boundary[B, k] = True
        W[k] -= np.linalg.pinv(Xb[B]) @ Xb[B] @ W[k] if len(B) else 0
    b2 = random.standard_normal(d_y)
    pre = Xb @ W.T
    S = np.where(pre > 0, slopes[0], slopes[1])
    ends = np.array([*slopes, np.nan])
    inside = random.uniform(min(slopes), max(slopes), size=S.shape)
    S_kink = np.where(random.random(S.shape) < 0.6, inside, random.choice(ends, size=S.shape))
    S = np.where(boundary, S_kink, S)
    o = np.where(boundary, 0.0, S * pre)
    rows = []  # of the linear conditions on vec(gl), shape (m, d_y)
    for a, unit in enumerate(np.eye(d_y)):
        rows.append(np.outer(np.ones(m), unit))
        rows += [np.outer(o[:, k], np.eye(d_y)[a]) for k in range(d_h)]
    for k in range(d_h):
        for j in range(d_x + 1):
            rows.append(np.outer(np.nan_to_num(S[:, k]) * Xb[:, j], W2[:, k]))
        rows += [np.outer(np.eye(m)[i], W2[:, k]) for i in np.flatnonzero(np.isnan(S[:, k]))]
    free = null_space(np.array([row.ravel() for row in rows]), rcond=1e-12)
    gl = (free @ random.standard_normal(free.shape[1])).reshape(m, d_y)
    Y = o @ W2.T + b2
    if loss == "bce":  # soft targets
        p = 1 / (1 + np.exp(-Y))
        gl *= 0.9 * np.min(np.minimum(p, 1 - p) / np.abs(gl))
        y = p - gl
    else:
        y = Y - gl
    return TwoLayerReLU(W[:, :-1], W[:, -1], W2, b2, X, y, loss, slopes)


def steepest_of_all_patterns(network: TwoLayerReLU) -> float:
    """The least directional derivative over v in a box, by one LP for each sign pattern.

    Relative to the sum of |W2_k| |gl_i| |xb_i|; node by node, since the derivative is a sum over
    nodes. Written from the definition, with no shortcut of `first_order_test`.
    """
    boundary = near_kinks(network, 1e-9)
    Y = network.outputs()
    gl = Y - network.y if network.loss == "mse" else 1 / (1 + np.exp(-Y)) - network.y
    positive, negative = network.slopes
    least = 0.0
    for k in range(len(network.W)):
        c, B = gl @ network.W2[:, k], np.flatnonzero(boundary[:, k])
        sizes = np.linalg.norm(gl, axis=1) * np.linalg.norm(network.Xb, axis=1)
        A = np.linalg.norm(network.W2[:, k]) * sizes.sum() or 1.0
        off = np.where(network.preactivations[:, k] > 0, positive, negative)
        for signs in product([1.0, -1.0], repeat=len(B)):
            J = off.copy()
            J[B] = [positive if sign > 0 else negative for sign in signs]
            inside = -np.array(signs)[:, None] * network.Xb[B]
            answer = linprog(
                (J * c) @ network.Xb / A,
                A_ub=inside if len(B) else None,
                b_ub=np.zeros(len(B)) if len(B) else None,
                bounds=(-1, 1),
            )
            least = min(least, answer.fun)
    return least


def lowest_near(network: TwoLayerReLU, seed: int) -> tuple[bool, float]:
    """Descend inside balls around the point, by normalized subgradient steps.

    Returns whether there is a lower point in the balls of 1, 1/10 and 1/100 of half the distance to
    the next kink, and the least (R - R(z)) / radius^2 in a ball of radius 1e-5.
    """
    random = np.random.default_rng(seed)
    sizes = np.linalg.norm(network.Xb, axis=1)[:, None] * np.ones(len(network.W))
    off = ~near_kinks(network, 1e-9)
    largest = 0.5 * (np.abs(network.preactivations) / sizes)[off].min(initial=1.0)
    positive, negative = network.slopes
    parts = np.cumsum([network.W.size, network.W2.size])
    start = np.concatenate([network.W.ravel(), network.W2.ravel(), network.b2])

    def risk_and_gradient(z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        w, w2, b2 = np.split(z, parts, axis=1)
        w = w.reshape(-1, *network.W.shape)
        w2 = w2.reshape(-1, *network.W2.shape)
        pre = np.einsum("bkd,id->bik", w, network.Xb)
        J = np.where(pre > 0, positive, negative)
        e = np.einsum("bak,bik->bia", w2, J * pre) + b2[:, None] - network.y
        back = np.einsum("bia,bak->bik", e, w2) * J
        gradients = [
            np.einsum("bik,id->bkd", back, network.Xb),
            np.einsum("bia,bik->bak", e, J * pre),
            e.sum(axis=1),
        ]
        flat = [part.reshape(len(z), -1) for part in gradients]
        return 0.5 * (e**2).sum(axis=(1, 2)), np.concatenate(flat, axis=1)

    risk = risk_and_gradient(start[None])[0][0]
    lower, quotient = True, 0.0
    for radius in [largest, 0.1 * largest, 0.01 * largest, 1e-5]:
        eta = random.standard_normal((60, len(start)))
        eta *= radius * random.random((60, 1)) / np.linalg.norm(eta, axis=1, keepdims=True)
        lowest = np.inf
        for number in range(150):
            risks, gradient = risk_and_gradient(start + eta)
            lowest = min(lowest, risks.min())
            size = np.linalg.norm(gradient, axis=1, keepdims=True)
            eta = eta - radius * 0.1 * 0.96**number * gradient / np.maximum(size, 1e-300)
            norm = np.linalg.norm(eta, axis=1, keepdims=True)
            eta *= np.minimum(1, radius / np.maximum(norm, 1e-300))
        if radius == 1e-5:
            quotient = (lowest - risk) / radius**2
        else:
            lower = lower and lowest < risk - 1e-12 * (1 + risk)
    return lower, quotient


def hold_against_brute_force(seeds: range, loss: str = "mse") -> Counter[str]:
    words: Counter[str] = Counter()
    for seed in seeds:
        network = made_to_order(seed, loss=loss)
        verdict = check_local_optimality(network, polish=False)
        least = steepest_of_all_patterns(network)
        if -1e-4 < least < -1e-8:
            words["too close to tell"] += 1
            continue
        words[verdict.verdict.name] += 1
        descends = verdict.verdict is Verdict.DESCENT_FIRST_ORDER
        assert descends == (least < -1e-6), (seed, least, str(verdict))
        if verdict.verdict in DESCENTS:
            assert verdict.direction is not None
            step = escape_kink(verdict)
            moved = verdict.network.moved(verdict.direction, step.t)
            assert moved.risk() < verdict.network.risk(), seed
            assert step.decrease == pytest.approx(step.risk_before - step.risk_after, rel=1e-3)
        elif loss == "mse":
            lower, quotient = lowest_near(verdict.network, seed)
            assert quotient > -1e-2, seed  # no descent at second order
            assert not (lower and verdict.verdict is Verdict.LOCAL_MINIMUM), seed
        assert verdict.verdict not in (Verdict.DEGENERATE, Verdict.INCONCLUSIVE), (
            seed,
            str(verdict),
        )
    return words


def test_brute_force() -> None:
    words = hold_against_brute_force(range(FAST))
    assert words["too close to tell"] < 0.05 * FAST
    for word in DESCENTS + (Verdict.SECOND_ORDER_STATIONARY, Verdict.LOCAL_MINIMUM):
        assert words[word.name] >= 5, words  # else nothing was tested


def test_brute_force_of_the_logistic_loss() -> None:
    words = hold_against_brute_force(range(50), loss="bce")
    assert words["LOCAL_MINIMUM"] and words["DESCENT_FIRST_ORDER"], words


@pytest.mark.slow
@pytest.mark.parametrize("part", range(5))
def test_brute_force_on_thousands(part: int) -> None:
    first = FAST + part * SLOW // 5
    hold_against_brute_force(range(first, first + SLOW // 5))


def test_the_papers_qp_gives_the_same_multipliers() -> None:
    compared = 0
    for seed in range(300):
        network = made_to_order(seed)
        verdict = check_local_optimality(network, polish=False)
        if verdict.verdict is Verdict.DESCENT_FIRST_ORDER:
            continue
        boundary = near_kinks(network, 1e-9)
        c = (network.outputs() - network.y) @ network.W2
        off = np.where(network.preactivations > 0, *network.slopes)
        for k in range(len(network.W)):
            B = np.flatnonzero(boundary[:, k])
            a = np.where(boundary[:, k], 0.0, off[:, k] * c[:, k]) @ network.Xb
            own = [kink for kink in verdict.kinks if kink.node == k]
            assert [kink.sample for kink in own] == B.tolist()
            if not len(B) or np.abs(c[B, k]).min() < 1e-6:
                continue
            box = (min(network.slopes), max(network.slopes))
            qp = lsq_linear(network.Xb[B].T * c[B, k], -a, bounds=box, tol=1e-14)
            assert qp.cost < 1e-12
            np.testing.assert_allclose([kink.s_star for kink in own], qp.x, atol=1e-5)
            compared += 1
    assert compared > 20


def verdict_of(network: TwoLayerReLU) -> ReluVerdict:
    return check_local_optimality(network, polish=False)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    powers=st.tuples(st.floats(-3, 3), st.floats(-3, 3)),
    flip=st.booleans(),
)
def test_rescaling_and_permuting_do_not_matter(
    seed: int, powers: tuple[float, float], flip: bool
) -> None:
    network = made_to_order(seed)
    d_h, m = len(network.W), len(network.X)
    c = 10.0 ** np.array(powers[:d_h])
    nodes = np.arange(d_h)[:: -1 if flip else 1]
    samples = np.random.default_rng(seed).permutation(m)
    changed = TwoLayerReLU(
        (c[:, None] * network.W1)[nodes],
        (c * network.b1)[nodes],
        (network.W2 / c)[:, nodes],
        network.b2,
        network.X[samples],
        network.y[samples],
        network.loss,
        network.slopes,
    )
    one, other = verdict_of(network), verdict_of(changed)
    assert one.verdict is other.verdict
    assert one.M == other.M
    if (
        one.verdict is not Verdict.DESCENT_FIRST_ORDER
    ):  # which stops at the first node that descends
        assert (one.L, one.K) == (other.L, other.K)
    if other.direction is not None and other.step is not None:
        moved = other.network.moved(other.direction, other.step.t)
        assert moved.risk() < other.network.risk()


def test_nearly_linear_without_kinks_is_the_verdict_of_the_hessian() -> None:
    import torch

    words: Counter[str] = Counter()
    for seed in range(80):
        order = made_to_order(seed, kinks=False)
        leak = (0.999, 0.9)[seed % 2]
        slopes = (1.0, leak)
        random = np.random.default_rng(seed)
        pre = order.preactivations
        o = np.where(pre > 0, pre, leak * pre)
        J = np.where(pre > 0, 1.0, leak)
        m, _, d_h, d_y = order.sizes
        rows = [np.outer(np.r_[[1.0] * m], unit) for unit in np.eye(d_y)]
        rows += [np.outer(o[:, k], unit) for k in range(d_h) for unit in np.eye(d_y)]
        rows += [
            np.outer(J[:, k] * column, order.W2[:, k]) for k in range(d_h) for column in order.Xb.T
        ]
        free = null_space(np.array([row.ravel() for row in rows]), rcond=1e-12)
        gl = (free @ random.standard_normal(free.shape[1])).reshape(m, d_y)
        gl *= 10.0 ** random.uniform(-3, 0)  # small residuals: minima; large: saddles
        y = o @ order.W2.T + order.b2 - gl
        network = TwoLayerReLU(order.W1, order.b1, order.W2, order.b2, order.X, y, "mse", slopes)

        def risk(*z: torch.Tensor) -> torch.Tensor:
            W1, b1, W2, b2 = z
            t = torch.from_numpy(network.X) @ W1.T + b1  # noqa: B023
            h = torch.nn.functional.leaky_relu(t, leak)  # noqa: B023
            return 0.5 * (h @ W2.T + b2 - torch.from_numpy(network.y)).square().sum()  # noqa: B023

        z = network.tensors()
        blocks = torch.autograd.functional.hessian(risk, z)
        H = torch.cat(
            [
                torch.cat([b.reshape(p.numel(), q.numel()) for b, q in zip(row, z)], dim=1)
                for row, p in zip(blocks, z)
            ]
        )
        eigenvalues = torch.linalg.eigvalsh(H)
        cut = 1e-8 * eigenvalues.abs().max()  # b1 and b2 are nearly interchangeable: 1e-3 squared
        zeros = int((eigenvalues.abs() < 1e-12 * eigenvalues.abs().max()).sum())
        if eigenvalues[0] < -cut:
            expected = Verdict.DESCENT_SECOND_ORDER
        elif zeros == d_h and int((eigenvalues > cut).sum()) == len(H) - d_h:
            expected = Verdict.LOCAL_MINIMUM
        else:
            continue
        words[expected.name] += 1
        verdict = check_local_optimality(network, polish=False, tau=1e-9, tol=1e-10)
        assert verdict.M == 0
        assert verdict.verdict is expected, (seed, eigenvalues)
    assert min(words["LOCAL_MINIMUM"], words["DESCENT_SECOND_ORDER"]) >= 5, words
