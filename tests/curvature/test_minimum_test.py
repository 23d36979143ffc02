"""Newton-Kantorovich against cubics, for which it is sharp."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thalweg.curvature.minimum_test import newton_kantorovich


@given(st.floats(1e-3, 1e3), st.floats(1e-3, 1e3), st.floats(0.01, 0.49))
def test_the_radius_is_reached_by_a_cubic(mu: float, rho: float, h: float) -> None:
    """f' = G - mu t + rho t^2 / 2, whose smaller root is the nearest critical point."""
    G = h * mu**2 / rho
    found = newton_kantorovich(mu, G, rho)
    assert found.h == pytest.approx(h)
    root = (mu - math.sqrt(mu**2 - 2 * rho * G)) / rho
    assert found.radius == pytest.approx(root, rel=1e-6)
    assert found.radius <= 2 * G / mu
    # the curvature mu - rho t of the cubic is least at the far end of the ball: 3 radii from here
    assert found.alpha == pytest.approx(mu - rho * 3 * root, rel=1e-6, abs=1e-9 * mu)
    if abs(h - 5 / 18) > 1e-6:
        assert (found.alpha > 0) == (h < 5 / 18)


@given(st.floats(1e-3, 1e3), st.floats(0, 10))
def test_a_quadratic_is_left_alone(mu: float, G: float) -> None:
    found = newton_kantorovich(mu, G, 0.0)
    assert found.radius == pytest.approx(G / mu) and found.alpha == mu


def test_above_a_half_nothing_is_said() -> None:
    assert newton_kantorovich(1.0, 1.0, 1.0) == (1.0, math.inf, -math.inf)
    assert newton_kantorovich(1.0, math.inf, 1.0).radius == math.inf
