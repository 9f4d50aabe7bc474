"""How far a point is from the optimum at most: duality gaps of penalised least squares."""

from __future__ import annotations

import torch
from jaxtyping import Inexact
from torch import Tensor

from sparsepriors.operators.base import LinearOperator
from sparsepriors.priors.base import Prior
from sparsepriors.priors.combinators import Scaled
from sparsepriors.priors.penalties import L1, ElasticNet
from sparsepriors.solvers._loop import Items, door, suits


def duality_gap(A: LinearOperator, y: Inexact[Tensor, "..."], prior: Prior,
                x: Inexact[Tensor, "..."]) -> Inexact[Tensor, "..."]:
    r"""Upper bound of ``objective(x) - minimum`` for ``1/2 ||A x - y||^2 + prior(x)``, one number per item.

    The dual of the problem is to maximise ``1/2 ||y||^2 - 1/2 ||y - s||^2 - prior*(A^H s)`` over s. The dual point is
    the residual y - A x, for L1 shrunk until ``|A^H s| <= weight`` in every entry.

    Parameters
    ----------
    A
        Linear operator, real or complex.
    y
        ``(*batch, *A.out_shape)``.
    prior
        `L1` or `ElasticNet`, perhaps times a number; weights may differ from entry to entry.
    x
        ``(*batch, *A.in_shape)``, the point to judge.

    Returns
    -------
    Tensor
        Nonnegative up to rounding, of the batch shape.

    Raises
    ------
    TypeError, ValueError
        If the prior is another one, or the arguments do not fit one another or hold NaN.

    References
    ----------
    Kim, Koh, Lustig, Boyd, Gorinevsky, An interior-point method for large-scale l1-regularized least squares, IEEE J.
    Selected Topics in Signal Processing 1 (2007), section III.B.
    """
    unknown, measured = door(A, y, x)
    suits("prior", prior, unknown, A.in_dtype, y.device)
    weight, ridge = _weights(prior, 1.0)
    residual = y - A._forward(x)
    correlation = A._adjoint(residual).abs()
    per_entry = torch.as_tensor(weight, dtype=correlation.dtype, device=y.device).expand(correlation.shape)
    quadratic = torch.as_tensor(ridge, dtype=correlation.dtype, device=y.device).expand(correlation.shape)
    # Where there is a ridge the conjugate is finite everywhere; elsewhere A^H s must stay within the weight.
    bound = torch.where((quadratic == 0) & (correlation > per_entry), per_entry / correlation, 1.0)
    shrink = _smallest(bound, unknown)
    excess = torch.relu(unknown.spread(shrink) * correlation - per_entry).square()
    conjugate = torch.where(quadratic > 0, excess / (2 * torch.where(quadratic > 0, quadratic, 1.0)), 0.0)
    modulus = x.abs()
    primal = 0.5 * measured.norm(residual).square() + unknown.total(per_entry * modulus
                                                                    + 0.5 * quadratic * modulus.square())
    dual = (0.5 * measured.norm(y).square() - 0.5 * measured.norm(y - measured.spread(shrink) * residual).square()
            - unknown.total(conjugate))
    return primal - dual


def _smallest(per_entry: Tensor, items: Items) -> Tensor:
    return per_entry.amin(dim=items.axes) if items.axes else per_entry


def _weights(prior: Prior, factor: float) -> tuple[float | Tensor, float | Tensor]:
    match prior:
        case Scaled():
            return _weights(prior.prior, factor * prior.factor)
        case ElasticNet():
            return factor * prior.weight, factor * prior.ridge
        case L1():
            return factor * prior.weight, 0.0
    raise TypeError(f"a duality gap is known for L1 and ElasticNet, got {type(prior).__name__}")
