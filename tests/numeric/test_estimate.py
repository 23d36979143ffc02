"""When an estimate is precise enough, and what is said if it is not."""

from __future__ import annotations

from thalweg.core.estimate import Estimate
from thalweg.numeric.estimate import OperatorEstimate, StoppingRule


def test_the_rule() -> None:
    rule = StoppingRule(rtol=0.1, atol=0.0)
    assert rule.met(Estimate(-100.0, 4.0, 30)) and not rule.met(Estimate(-100.0, 6.0, 30))
    assert not rule.met(Estimate(-100.0, 0.0, 9))
    assert StoppingRule(rtol=0, atol=9).met(Estimate(0.0, 4.0, 30))
    assert not StoppingRule(rtol=0, atol=8).met(Estimate(0.0, 4.0, 30))


def test_messages() -> None:
    few = OperatorEstimate(5.0, 1.0, 4, "hutchinson", 4, False, 0.25)
    assert few.message.endswith("the half-width wanted is 0.25 from 10 samples or more")
    none = OperatorEstimate(5.0, 1.0, 40, "hutchinson", 40, False, 0.0)
    assert none.message.endswith("not converged, the half-width wanted is 0")
    half = Estimate(5.0, 1.0, 40).half_width()
    xtrace = OperatorEstimate(5.0, 1.0, 40, "xtrace", 80, False, half / 2)
    assert xtrace.message.endswith("about 320 products would do")
