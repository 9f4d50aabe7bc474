"""Published sparse training methods, each as a plan of the one machine.

    plan = PRESETS["rigl"](density=0.1)
    plan = preset("sr-ste", n=2, m=4)            # the same by name, with a hint for a mistyped one

Every preset takes ``where`` (a `Selector`), and those without a fixed pattern ``density`` and ``distribution``.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from sparsepriors import _checks
from sparsepriors.networks.sparse.at_init import GraSPScore, SNIPScore, SynFlowScore, XavierSNIPScore
from sparsepriors.networks.sparse.distribute import ERK, Bernoulli, Distribution, Global, Shuffled, Uniform
from sparsepriors.networks.sparse.plan import SparsePlan
from sparsepriors.networks.sparse.rule import SRSTE, STE, Flow
from sparsepriors.networks.sparse.schedule import (
    Alternating,
    EveryStep,
    OneShot,
    Periodic,
    Polynomial,
    Rounds,
    StructureDecay,
)
from sparsepriors.networks.sparse.score import (
    GradientScore,
    MagnitudeScore,
    MomentumScore,
    RandomScore,
    Score,
    UnfiredScore,
)
from sparsepriors.networks.sparse.select import Selector
from sparsepriors.priors.patterns import NM, Pattern, Unstructured

PRESETS: dict[str, Callable[..., SparsePlan]] = {}
"""Every preset by its name on the command line."""


def preset(name: str, **options: Any) -> SparsePlan:
    """The plan of a named method.

    Raises
    ------
    ValueError
        If there is no such method, or it has no such option; the message lists what there is.
    """
    make = PRESETS[_checks.one_of("preset", name, PRESETS)]
    known = list(inspect.signature(make).parameters)
    for option in options:
        _checks.one_of(f"option of {name}", option, known)
    return make(**options)


def _named(name: str) -> Callable[[Callable[..., SparsePlan]], Callable[..., SparsePlan]]:
    def keep(make: Callable[..., SparsePlan]) -> Callable[..., SparsePlan]:
        PRESETS[name] = make
        return make

    return keep


@_named("random")
def random(density: float = 0.1, *, distribution: Distribution | None = None, exact: bool = True,
           scale_init: bool = False, where: Selector | None = None) -> SparsePlan:
    """A random mask, drawn before training and kept (Liu et al., 2022, arXiv:2202.02643).

    Counts are ``exact``, or binomial as in the published code.
    """
    distribution = distribution or ERK()
    return SparsePlan(Unstructured(density), distribution if exact else Bernoulli(distribution),
                      where=where or Selector(), scale_init=scale_init)


def _at_init(score: Score, density: float, distribution: Distribution | None, where: Selector | None) -> SparsePlan:
    return SparsePlan(Unstructured(density), distribution or Global(), init=score, where=where or Selector())


@_named("snip")
def snip(density: float = 0.1, *, xavier: bool = False, distribution: Distribution | None = None,
         where: Selector | None = None) -> SparsePlan:
    """Prune once before training by the effect on the loss (Lee et al., 2019, arXiv:1810.02340).

    With ``xavier`` by that of other weights, drawn anew (the published code of Liu et al., 2022).
    """
    return _at_init(XavierSNIPScore() if xavier else SNIPScore(), density, distribution, where)


@_named("snip-ratio")
def snip_ratio(density: float = 0.1, *, xavier: bool = False, where: Selector | None = None) -> SparsePlan:
    """The layers' densities of SNIP, positions at random (Liu et al., 2022; their code sets ``xavier``)."""
    return _at_init(XavierSNIPScore() if xavier else SNIPScore(), density, Shuffled(Global()), where)


@_named("grasp")
def grasp(density: float = 0.1, *, distribution: Distribution | None = None,
          where: Selector | None = None) -> SparsePlan:
    """Prune once before training, preserving the flow of gradients (Wang et al., 2020, arXiv:2002.07376)."""
    return _at_init(GraSPScore(), density, distribution, where)


@_named("grasp-ratio")
def grasp_ratio(density: float = 0.1, *, where: Selector | None = None) -> SparsePlan:
    """The layers' densities of GraSP, positions at random (Liu et al., 2022)."""
    return _at_init(GraSPScore(), density, Shuffled(Global()), where)


@_named("synflow")
def synflow(density: float = 0.1, *, rounds: int = 100, where: Selector | None = None) -> SparsePlan:
    """Prune step by step before training, by the flow of absolute weights, without data (arXiv:2006.05467)."""
    return _at_init(SynFlowScore(rounds), density, None, where)


@_named("magnitude-at-init")
def magnitude_at_init(density: float = 0.1, *, distribution: Distribution | None = None,
                      where: Selector | None = None) -> SparsePlan:
    """Keep the largest initial weights of each layer."""
    return _at_init(MagnitudeScore(), density, distribution or Uniform(), where)


def _moving(grow: Score, density: float, every: int, end: float, fraction: float, anneal: str,
            distribution: Distribution | None, where: Selector | None, *, skip_update: bool = False,
            redistribute: bool = False) -> SparsePlan:
    return SparsePlan(Unstructured(density), distribution or ERK(), grow=grow,
                      schedule=Periodic(every, end=end, fraction=fraction, anneal=anneal), where=where or Selector(),
                      skip_update=skip_update, redistribute=redistribute)


@_named("set")
def set_(density: float = 0.1, *, every: int = 100, end: float = 0.75, fraction: float = 0.3,
         distribution: Distribution | None = None, where: Selector | None = None) -> SparsePlan:
    """Drop the smallest weights, grow random ones (Mocanu et al., 2018, arXiv:1707.04780)."""
    return _moving(RandomScore(), density, every, end, fraction, "constant", distribution, where)


@_named("rigl")
def rigl(density: float = 0.1, *, every: int = 100, end: float = 0.75, fraction: float = 0.3, skip_update: bool = True,
         distribution: Distribution | None = None, where: Selector | None = None) -> SparsePlan:
    """Drop the smallest weights, grow those of largest gradient (Evci et al., 2020, arXiv:1911.11134)."""
    return _moving(GradientScore(), density, every, end, fraction, "cosine", distribution, where,
                   skip_update=skip_update)


@_named("sift-rigl")
def sift_rigl(density: float = 0.1, *, every: int = 100, end: float = 0.75, fraction: float = 0.3,
              distribution: Distribution | None = None, where: Selector | None = None) -> SparsePlan:
    """RigL as Sparse-IFT trains with: one density in all layers, weights step also when masks move (arXiv:2303.11525).

    `IsoFLOP.plan` gives it the layers and the density at which a larger network does its parent's multiply-adds.
    """
    return rigl(density, every=every, end=end, fraction=fraction, skip_update=False,
                distribution=distribution or Uniform(), where=where)


@_named("snfs")
def snfs(density: float = 0.1, *, every: int = 100, end: float = 0.75, fraction: float = 0.3,
         distribution: Distribution | None = None, where: Selector | None = None) -> SparsePlan:
    """Grow by the momentum of the gradient, in the layers where it is largest (arXiv:1907.04840)."""
    return _moving(MomentumScore(), density, every, end, fraction, "cosine", distribution, where, redistribute=True)


@_named("itop")
def itop(density: float = 0.1, *, every: int = 100, end: float = 0.75, fraction: float = 0.3,
         distribution: Distribution | None = None, where: Selector | None = None) -> SparsePlan:
    """Grow at random, but first what was never kept: explores most weights in time (arXiv:2102.02887)."""
    return _moving(UnfiredScore(), density, every, end, fraction, "cosine", distribution, where)


@_named("gmp")
def gmp(density: float = 0.1, *, every: int = 100, start: float = 0.1, end: float = 0.75,
        distribution: Distribution | None = None, where: Selector | None = None) -> SparsePlan:
    """Prune gradually by magnitude while training (Zhu and Gupta, 2017, arXiv:1710.01878)."""
    return SparsePlan(Unstructured(density), distribution or Global(), schedule=Polynomial(every, start, end),
                      where=where or Selector())


@_named("gmp-nm")
def gmp_nm(n: int = 2, m: int = 4, *, every: int = 100, start: float = 0.1, end: float = 0.75,
           where: Selector | None = None, skip_unfit: bool = False) -> SparsePlan:
    """Prune gradually by magnitude, the n best of every m last: towards N:M on the schedule of arXiv:1710.01878."""
    return SparsePlan(NM(n, m), schedule=Polynomial(every, start, end), where=where or Selector(),
                      skip_unfit=skip_unfit)


@_named("one-shot")
def one_shot(density: float = 0.1, *, at: float = 0.5, pattern: Pattern | None = None,
             distribution: Distribution | None = None, where: Selector | None = None) -> SparsePlan:
    """Train dense, prune once by magnitude, fine-tune with the mask fixed (Han et al., 2015)."""
    if pattern is not None:
        return SparsePlan(pattern, distribution or Uniform(), init=MagnitudeScore(), schedule=OneShot(at),
                          where=where or Selector())
    return SparsePlan(Unstructured(density), distribution or Global(), init=MagnitudeScore(), schedule=OneShot(at),
                      where=where or Selector())


@_named("random-one-shot")
def random_one_shot(density: float = 0.1, *, at: float = 0.5, distribution: Distribution | None = None,
                    where: Selector | None = None) -> SparsePlan:
    """Train dense, prune once at random, fine-tune: what any criterion must beat."""
    return SparsePlan(Unstructured(density), distribution or ERK(), score=RandomScore(), schedule=OneShot(at),
                      where=where or Selector())


@_named("asp")
def asp(n: int = 2, m: int = 4, *, at: float = 0.5, where: Selector | None = None,
        skip_unfit: bool = False) -> SparsePlan:
    """Train dense, prune once to N:M, fine-tune with the mask fixed (Mishra et al., 2021, arXiv:2104.08378)."""
    return SparsePlan(NM(n, m), init=MagnitudeScore(), schedule=OneShot(at), where=where or Selector(),
                      skip_unfit=skip_unfit)


@_named("imp")
def imp(density: float = 0.1, *, rounds: int = 5, rewind: float = 0.0, distribution: Distribution | None = None,
        where: Selector | None = None) -> SparsePlan:
    """Lottery tickets: iterative magnitude pruning with rewinding (arXiv:1803.03635, 1912.05671)."""
    return SparsePlan(Unstructured(density), distribution or Global(), schedule=Rounds(rounds, rewind),
                      where=where or Selector())


@_named("ac-dc")
def ac_dc(density: float = 0.1, *, warmup: float = 0.1, phase: float = 0.05, finish: float = 0.15,
          distribution: Distribution | None = None, where: Selector | None = None) -> SparsePlan:
    """Dense and sparse phases in turn (Peste et al., 2021, arXiv:2106.12379)."""
    return SparsePlan(Unstructured(density), distribution or Global(), init=MagnitudeScore(),
                      schedule=Alternating(warmup, phase, finish), where=where or Selector())


def _every_step(n: int, m: int, where: Selector | None, every: int, skip_unfit: bool, rule: STE | SRSTE | Flow,
                pattern: Pattern | None = None) -> SparsePlan:
    return SparsePlan(NM(n, m) if pattern is None else pattern, init=MagnitudeScore(), schedule=EveryStep(every),
                      rule=rule, where=where or Selector(), skip_unfit=skip_unfit)


@_named("ste")
def ste(n: int = 2, m: int = 4, *, every: int = 1, where: Selector | None = None, skip_unfit: bool = False,
        pattern: Pattern | None = None) -> SparsePlan:
    """N:M masks that follow the weights, gradients straight through (Bengio et al., 2013)."""
    return _every_step(n, m, where, every, skip_unfit, STE(), pattern)


@_named("sr-ste")
def sr_ste(n: int = 2, m: int = 4, *, lam: float = 2e-4, decoupled: bool = False, every: int = 1,
           where: Selector | None = None, skip_unfit: bool = False) -> SparsePlan:
    """N:M from scratch with sparse-refined straight-through gradients (Zhou et al., 2021, arXiv:2102.04010)."""
    return _every_step(n, m, where, every, skip_unfit, SRSTE(lam, decoupled))


@_named("mdgf-linear")
def mdgf_linear(n: int = 2, m: int = 4, *, dense: float = 0.0125, end: float = 0.9, ste: bool = True,
                where: Selector | None = None, skip_unfit: bool = False) -> SparsePlan:
    """N:M with a soft mask that hardens linearly (Bambhaniya et al., 2024, arXiv:2402.04744)."""
    return _every_step(n, m, where, 1, skip_unfit, Flow("linear", end, dense, ste))


@_named("mdgf-exp")
def mdgf_exp(n: int = 2, m: int = 4, *, dense: float = 0.0125, end: float = 0.9, ste: bool = True,
             where: Selector | None = None, skip_unfit: bool = False) -> SparsePlan:
    """N:M with a soft mask that hardens exponentially (Bambhaniya et al., 2024, arXiv:2402.04744)."""
    return _every_step(n, m, where, 1, skip_unfit, Flow("exponential", end, dense, ste))


def _structure(kind: str, n: int, m: int, dense: float, finetune: float, ste: bool, where: Selector | None,
               skip_unfit: bool) -> SparsePlan:
    return SparsePlan(NM(n, m), init=MagnitudeScore(), schedule=StructureDecay(kind, dense, finetune),
                      rule=Flow("none", ste=ste), where=where or Selector(), skip_unfit=skip_unfit)


@_named("sdgf-stepwise")
def sdgf_stepwise(n: int = 2, m: int = 4, *, dense: float = 0.0125, finetune: float = 0.1, ste: bool = True,
                  where: Selector | None = None, skip_unfit: bool = False) -> SparsePlan:
    """N:M patterns that tighten from (m-1):m to n:m (Bambhaniya et al., 2024, arXiv:2402.04744)."""
    return _structure("stepwise", n, m, dense, finetune, ste, where, skip_unfit)


@_named("sdgf-geometric")
def sdgf_geometric(n: int = 2, m: int = 4, *, dense: float = 0.0125, finetune: float = 0.1, ste: bool = True,
                   where: Selector | None = None, skip_unfit: bool = False) -> SparsePlan:
    """N:M patterns of one density that become finer, 8n:8m to n:m (arXiv:2402.04744)."""
    return _structure("geometric", n, m, dense, finetune, ste, where, skip_unfit)
