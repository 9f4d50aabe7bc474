"""The statistics that judge claims, once for every paper.

Seeds are the replicates: ours and the baseline are measured on the same seed, so that differences are paired and what
both share (the scene, the noise, the initial weights) cancels. Differences are signed so that positive is better.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from statistics import fmean, stdev
from typing import Any

from sparsepriors import _checks
from sparsepriors.runs.paper import Claim

LEVEL = 0.95
MIN_SEEDS = 5


class Verdict(StrEnum):
    """What the evidence says about a claim."""

    HELD = "held"
    NOT_HELD = "not held"
    INCONCLUSIVE = "inconclusive"


@dataclass(frozen=True)
class Interval:
    """A mean with its two-sided 95 % confidence interval.

    ``low`` and ``high`` are ``None`` when one value says nothing about the spread.
    """

    mean: float | None
    low: float | None
    high: float | None
    n: int


@dataclass(frozen=True)
class Judgement:
    """A verdict, the numbers it rests on, and the reason in one sentence."""

    verdict: Verdict
    ours: Interval
    baseline: Interval
    difference: Interval
    why: str


@dataclass(frozen=True)
class TestResult:
    """Statistic and p-value of a test on paired differences."""

    __test__ = False  # a result, not a test class

    statistic: float
    p_value: float
    n: int


def interval(values: Sequence[float]) -> Interval:
    """Mean and Student's t interval of finite values; no mean if there are none or one is not finite."""
    n = len(values)
    if n == 0 or not all(map(math.isfinite, values)):
        return Interval(None, None, None, n)
    mean = fmean(values)
    if n == 1:
        return Interval(mean, None, None, 1)
    half = _t_quantile((1 + LEVEL) / 2, n - 1) * stdev(values) / math.sqrt(n)
    return Interval(mean, mean - half, mean + half, n)


def judge(claim: Claim, ours: Sequence[float], baseline: Sequence[float]) -> Judgement:
    """Judge a claim by its seeds' paired measurements.

    The claim holds if the one-sided 95 % lower confidence bound of the mean improvement reaches ``claim.margin``,
    does not hold if the upper bound stays below it, and is inconclusive otherwise, with fewer than five seeds, or if
    a measurement is not finite.

    Raises
    ------
    ValueError
        If the two sequences differ in length.
    """
    differences = paired_differences(ours, baseline, claim.better)
    n = len(differences)
    of_ours, of_baseline, of_difference = interval(ours), interval(baseline), interval(differences)

    def result(verdict: Verdict, why: str) -> Judgement:
        return Judgement(verdict, of_ours, of_baseline, of_difference, why)

    if n == 0:
        return result(Verdict.INCONCLUSIVE, "no seed measured this claim")
    if not all(map(math.isfinite, differences)):
        broken = sum(not math.isfinite(d) for d in differences)
        return result(Verdict.INCONCLUSIVE, f"{broken} of {n} seeds gave a measurement that is not finite")
    mean = fmean(differences)
    goal = f"the claim asks for {_signed(claim.margin)} or more"
    if n < MIN_SEEDS:
        return result(Verdict.INCONCLUSIVE, f"mean improvement {_signed(mean)} over {n} seed{'s' if n > 1 else ''}, "
                                            f"{goal}; a verdict takes {MIN_SEEDS} seeds")
    spread = stdev(differences)
    if spread <= 1e-12 * max(abs(mean), abs(claim.margin)):
        held = mean >= claim.margin
        return result(Verdict.HELD if held else Verdict.NOT_HELD,
                      f"improvement {_signed(mean)}, the same for all {n} seeds; {goal}")
    half = _t_quantile(LEVEL, n - 1) * spread / math.sqrt(n)
    low, high = mean - half, mean + half
    if low >= claim.margin:
        return result(Verdict.HELD, f"mean improvement {_signed(mean)} over {n} paired seeds, "
                                    f"at least {_signed(low)} with 95 % confidence; {goal}")
    if high < claim.margin:
        return result(Verdict.NOT_HELD, f"mean improvement {_signed(mean)} over {n} paired seeds, "
                                        f"at most {_signed(high)} with 95 % confidence; {goal}")
    return result(Verdict.INCONCLUSIVE, f"mean improvement {_signed(mean)} over {n} paired seeds, between "
                                        f"{_signed(low)} and {_signed(high)}; {goal}")


def paired_differences(ours: Sequence[float], baseline: Sequence[float], better: str = "higher") -> list[float]:
    """Improvement of ours over the baseline, pair by pair; positive is better.

    Raises
    ------
    ValueError
        If the lengths differ, or ``better`` is neither "higher" nor "lower".
    """
    _checks.one_of("better", better, ("higher", "lower"))
    if len(ours) != len(baseline):
        raise ValueError(f"ours and baseline must be paired, got {len(ours)} and {len(baseline)} values")
    sign = 1.0 if better == "higher" else -1.0
    return [sign * (float(a) - float(b)) for a, b in zip(ours, baseline, strict=True)]


def paired_t(ours: Sequence[float], baseline: Sequence[float], *, shift: float = 0.0,
             alternative: str = "two-sided") -> TestResult:
    """Student's paired t-test of "the mean difference is ``shift``".

    Without spread the statistic is infinite (or 0 if the mean is the shift) and the p-value 0 or 1.

    Raises
    ------
    ValueError
        If there are fewer than two pairs, the lengths differ, or a value is not finite.
    """
    from scipy.special import stdtr

    _checks.one_of("alternative", alternative, ("two-sided", "greater", "less"))
    d = _finite_pairs(ours, baseline)
    n, gap = len(d), fmean(d) - shift
    error = stdev(d) / math.sqrt(n)
    if error == 0 and gap == 0:
        return TestResult(0.0, 1.0, n)
    t = gap / error if error > 0 else math.copysign(math.inf, gap)
    below, above = (float(stdtr(n - 1, v)) for v in (t, -t))
    return TestResult(t, {"two-sided": 2 * min(below, above), "greater": above, "less": below}[alternative], n)


def wilcoxon(ours: Sequence[float], baseline: Sequence[float], *, alternative: str = "two-sided") -> TestResult:
    """Wilcoxon's signed-rank test on the pairs (zero differences are left out, as in Wilcoxon, 1945).

    Raises
    ------
    ValueError
        If there are fewer than two pairs, the lengths differ, or a value is not finite.
    """
    from scipy import stats

    _checks.one_of("alternative", alternative, ("two-sided", "greater", "less"))
    d = [v for v in _finite_pairs(ours, baseline) if v != 0]
    if not d:
        return TestResult(0.0, 1.0, len(ours))
    found: Any = stats.wilcoxon(d, alternative=alternative)
    return TestResult(float(found.statistic), float(found.pvalue), len(ours))


def tost(ours: Sequence[float], baseline: Sequence[float], margin: float) -> TestResult:
    """Two one-sided t-tests (Schuirmann, 1987): a small p-value shows that |mean difference| < ``margin``.

    Raises
    ------
    ValueError
        If the margin is not positive, there are fewer than two pairs, the lengths differ, or a value is not finite.
    """
    _checks.positive("margin", margin)
    above = paired_t(ours, baseline, shift=-margin, alternative="greater")
    below = paired_t(ours, baseline, shift=margin, alternative="less")
    return max(above, below, key=lambda r: r.p_value)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's (1979) step-down adjustment of p-values, in the order given.

    Raises
    ------
    ValueError
        If a p-value is outside [0, 1].
    """
    for p in p_values:
        if not 0 <= p <= 1:
            raise ValueError(f"p_values must lie in [0, 1], got {p}")
    m = len(p_values)
    adjusted = [0.0] * m
    running = 0.0
    for rank, i in enumerate(sorted(range(m), key=p_values.__getitem__)):
        running = max(running, min(1.0, (m - rank) * p_values[i]))
        adjusted[i] = running
    return adjusted


def _finite_pairs(ours: Sequence[float], baseline: Sequence[float]) -> list[float]:
    d = paired_differences(ours, baseline)
    if len(d) < 2:
        raise ValueError(f"a paired test needs at least two pairs, got {len(d)}")
    if not all(map(math.isfinite, d)):
        raise ValueError("ours and baseline must be finite")
    return d


def _t_quantile(p: float, dof: int) -> float:
    from scipy.special import stdtrit

    return float(stdtrit(dof, p))


def _signed(value: float) -> str:
    return f"{value:+.3g}" if value else "0"
