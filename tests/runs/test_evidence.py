import itertools
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import stats

from sparsepriors.runs.evidence import (
    Interval,
    Verdict,
    holm,
    interval,
    judge,
    paired_differences,
    paired_t,
    tost,
    wilcoxon,
)
from sparsepriors.runs.paper import Claim

OURS, BASE = [3.1, 2.9, 3.4, 3.0, 3.3], [2.0, 2.1, 2.2, 1.9, 2.0]
values = st.lists(st.floats(-100, 100), min_size=5, max_size=12)
eighths = st.integers(-800, 800).map(lambda n: n / 8)  # sums and differences of them are exact
pairs = st.lists(st.tuples(eighths, eighths), min_size=2, max_size=12)
alternatives = st.sampled_from(["two-sided", "greater", "less"])
p_values = st.lists(st.floats(0, 1), min_size=1, max_size=6)


def claim(margin=0.0, better="higher"):
    return Claim("c", "text", "not reported", "base", margin=margin, better=better)


def bounds(found: Interval) -> list[float]:
    assert found.low is not None
    assert found.high is not None
    return [found.low, found.high]


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


@given(pairs, eighths, alternatives)
def test_the_paired_t_test_is_scipys(pairs, shift, alternative):
    ours, base = map(list, zip(*pairs, strict=True))
    found = paired_t(ours, base, shift=shift, alternative=alternative)
    differences = np.subtract(ours, base)
    assume(np.ptp(differences) > 0)
    peer: Any = stats.ttest_1samp(differences, shift, alternative=alternative)
    assert found.statistic == pytest.approx(peer.statistic, rel=1e-9, abs=1e-12)
    assert found.p_value == pytest.approx(peer.pvalue, rel=1e-7, abs=1e-12)


@given(pairs, st.integers(1, 400).map(lambda n: n / 8))
def test_equivalence_is_the_weaker_of_two_one_sided_tests(pairs, margin):
    ours, base = map(list, zip(*pairs, strict=True))
    differences = np.subtract(ours, base)
    assume(np.ptp(differences) > 0)
    above: Any = stats.ttest_1samp(differences, -margin, alternative="greater")
    below: Any = stats.ttest_1samp(differences, margin, alternative="less")
    assert tost(ours, base, margin).p_value == pytest.approx(max(above.pvalue, below.pvalue), rel=1e-7, abs=1e-12)
    assert tost(base, ours, margin).p_value == pytest.approx(tost(ours, base, margin).p_value)
    assert tost(ours, base, 2 * margin).p_value <= tost(ours, base, margin).p_value


@given(st.lists(st.integers(-60, 60).filter(bool), min_size=2, max_size=12, unique_by=abs), alternatives)
def test_the_signed_rank_test_counts_the_signs_of_all_rankings(differences, alternative):
    found = wilcoxon(differences, [0] * len(differences), alternative=alternative)
    ranks = stats.rankdata(np.abs(differences))
    positive = ranks[np.array(differences) > 0].sum()
    sums = np.array([np.dot(ranks, signs) for signs in itertools.product((0, 1), repeat=len(ranks))])
    greater, less = np.mean(sums >= positive), np.mean(sums <= positive)
    expected = {"greater": greater, "less": less, "two-sided": min(1, 2 * min(greater, less))}[alternative]
    assert found.p_value == pytest.approx(expected)
    assert found.n == len(differences)


@given(pairs, eighths, st.sampled_from(["higher", "lower"]), st.randoms(use_true_random=False))
def test_a_verdict_knows_neither_a_common_shift_nor_the_order_of_seeds(pairs, shift, better, random):
    ours, base = zip(*pairs, strict=True)
    before = judge(claim(0.5, better), ours, base)
    moved = judge(claim(0.5, better), [v + shift for v in ours], [v + shift for v in base])
    assert (moved.verdict, moved.why, moved.difference) == (before.verdict, before.why, before.difference)
    random.shuffle(pairs)
    assert judge(claim(0.5, better), *zip(*pairs, strict=True)) == before


@given(pairs)
def test_exchanging_the_sides_turns_the_verdict_around(pairs):
    ours, base = zip(*pairs, strict=True)
    differences = paired_differences(ours, base)
    assume(np.ptp(differences) > 0)
    forward, back = judge(claim(), ours, base), judge(claim(), base, ours)
    opposite = {Verdict.HELD: Verdict.NOT_HELD, Verdict.NOT_HELD: Verdict.HELD}
    assert back.verdict is opposite.get(forward.verdict, Verdict.INCONCLUSIVE)
    assert judge(claim(better="lower"), base, ours).verdict is forward.verdict
    assert bounds(back.difference) == pytest.approx([-v for v in reversed(bounds(forward.difference))])


@given(pairs, eighths, eighths)
def test_a_claim_that_holds_for_a_margin_holds_for_smaller_ones(pairs, one, other):
    order = [Verdict.NOT_HELD, Verdict.INCONCLUSIVE, Verdict.HELD]
    easier, harder = (order.index(judge(claim(m), *zip(*pairs, strict=True)).verdict) for m in sorted((one, other)))
    assert easier >= harder


@given(values, st.integers(2, 4))
def test_more_of_the_same_shrinks_the_interval_around_the_same_mean(values, times):
    once, often = interval(values), interval(values * times)
    assert once.mean == pytest.approx(np.mean(values), abs=1e-12)
    assert often.mean == pytest.approx(once.mean, abs=1e-12)
    assert bounds(once) == sorted(bounds(once))
    if np.std(values) > 1e-6:
        assert np.ptp(bounds(often)) < np.ptp(bounds(once))
        peer = stats.t.interval(0.95, len(values) - 1, np.mean(values), stats.sem(values))
        assert bounds(once) == pytest.approx(peer, abs=1e-9)


@given(p_values)
def test_holm_is_the_closed_test_of_bonferroni(p):
    subsets = [s for k in range(1, len(p) + 1) for s in itertools.combinations(range(len(p)), k)]
    closed = [max(min(1, len(s) * min(p[j] for j in s)) for s in subsets if i in s) for i in range(len(p))]
    assert holm(p) == pytest.approx(closed)


@given(p_values, st.randoms(use_true_random=False))
def test_holm_keeps_the_order_of_p_values_and_never_lowers_one(p, random):
    adjusted = holm(p)
    assert all(before <= after <= 1 for before, after in zip(p, adjusted, strict=True))
    assert all(adjusted[i] <= adjusted[j] for i in range(len(p)) for j in range(len(p)) if p[i] <= p[j])
    order = list(range(len(p)))
    random.shuffle(order)
    assert holm([p[i] for i in order]) == [adjusted[i] for i in order]


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
