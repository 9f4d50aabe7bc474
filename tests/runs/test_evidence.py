import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from sparsepriors.runs.evidence import Verdict, holm, interval, judge, paired_t, tost, wilcoxon
from sparsepriors.runs.paper import Claim

OURS, BASE = [3.1, 2.9, 3.4, 3.0, 3.3], [2.0, 2.1, 2.2, 1.9, 2.0]
values = st.lists(st.floats(-100, 100), min_size=5, max_size=12)


def claim(margin=0.0, better="higher"):
    return Claim("c", "text", "not reported", "base", margin=margin, better=better)


def test_a_clear_gain_is_held_and_a_clear_loss_is_not():
    assert judge(claim(0.5), OURS, BASE).verdict is Verdict.HELD
    assert judge(claim(0.5), BASE, OURS).verdict is Verdict.NOT_HELD
    assert judge(claim(0.5, better="lower"), BASE, OURS).verdict is Verdict.HELD


def test_four_seeds_never_decide():
    assert judge(claim(), OURS[:4], BASE[:4]).verdict is Verdict.INCONCLUSIVE


def test_measurements_that_are_not_finite_never_decide():
    assert judge(claim(), [*OURS[:4], math.nan], BASE).verdict is Verdict.INCONCLUSIVE
    assert judge(claim(), [], []).verdict is Verdict.INCONCLUSIVE


def test_without_spread_the_margin_decides():
    assert judge(claim(1.0), [2.0] * 5, [1.0] * 5).verdict is Verdict.HELD
    assert judge(claim(1.5), [2.0] * 5, [1.0] * 5).verdict is Verdict.NOT_HELD


@given(values, st.floats(-5, 5))
def test_the_verdict_is_the_one_sided_t_test(ours, margin):
    base = [0.0] * len(ours)
    if np.std(ours) < 1e-6:
        return
    verdict = judge(claim(margin), ours, base).verdict
    above: Any = stats.ttest_1samp(ours, margin, alternative="greater")
    below: Any = stats.ttest_1samp(ours, margin, alternative="less")
    greater, less = above.pvalue, below.pvalue
    if min(abs(greater - 0.05), abs(less - 0.05)) > 1e-9:
        expected = Verdict.HELD if greater < 0.05 else Verdict.NOT_HELD if less < 0.05 else Verdict.INCONCLUSIVE
        assert verdict is expected


def test_tests_agree_with_scipy():
    found, peer = paired_t(OURS, BASE), stats.ttest_rel(OURS, BASE)
    assert found.statistic == pytest.approx(peer.statistic, rel=1e-10)
    assert found.p_value == pytest.approx(peer.pvalue, rel=1e-8)
    ranked: Any = stats.wilcoxon(OURS, BASE)
    assert wilcoxon(OURS, BASE).p_value == pytest.approx(ranked.pvalue)
    low, high = stats.t.interval(0.95, 4, np.mean(OURS), stats.sem(OURS))
    assert (interval(OURS).low, interval(OURS).high) == (pytest.approx(low), pytest.approx(high))


def test_equivalence_needs_a_margin_wider_than_the_difference():
    assert tost(OURS, BASE, 3.0).p_value < 0.01
    assert tost(OURS, BASE, 1.0).p_value > 0.5


def test_holm_steps_down():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])


@pytest.mark.public_door
def test_bad_input_is_named():
    with pytest.raises(ValueError, match="paired"):
        judge(claim(), [1.0], [])
    with pytest.raises(ValueError, match="two pairs"):
        paired_t([1.0], [2.0])
    with pytest.raises(ValueError, match="margin"):
        tost(OURS, BASE, 0.0)
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        holm([1.5])
    with pytest.raises(ValueError, match="finite"):
        paired_t([1.0, math.inf], [1.0, 2.0])
