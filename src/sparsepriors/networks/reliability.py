"""How far a classifier can be trusted: calibration, strange inputs, adversarial ones."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int64, Shaped
from torch import Tensor, nn
from torch.nn import functional

from sparsepriors import _checks


def ece(logits: Float[Tensor, "n classes"], labels: Int64[Tensor, " n"], *, bins: int = 15) -> float:
    """Expected calibration error: the mean distance between confidence and accuracy (Guo et al., 2017, eq. 3).

    Parameters
    ----------
    logits, labels
        One row of logits and the right class of each input.
    bins
        Intervals (i / bins, (i + 1) / bins] of the largest probability; their distances are weighted by their counts.

    Raises
    ------
    TypeError, ValueError
        If there is not one label for each row, a logit is not finite, or ``bins`` is no positive integer.
    """
    _checks.count("bins", bins, low=1)
    _checks.inexact("logits", logits)
    if logits.ndim != 2 or len(logits) == 0 or labels.shape != (len(logits),):
        raise ValueError(f"logits must be one row for each label and at least one, got shapes {tuple(logits.shape)} "
                         f"and {tuple(labels.shape)}")
    confidence, answers = logits.double().softmax(dim=1).max(dim=1)
    bin = (confidence * bins).ceil().long().clamp(1, bins) - 1
    excess = torch.zeros(bins, dtype=torch.float64, device=logits.device)
    excess.index_add_(0, bin, (answers == labels).double() - confidence)
    return float(excess.abs().sum()) / len(logits)


def auroc(inside: Float[Tensor, " n"], outside: Float[Tensor, " m"]) -> float:
    """Area under the ROC curve: the chance that a score from inside exceeds one from outside, ties counted half.

    With the largest softmax probability as the score this is the detection of strange inputs of Hendrycks and Gimpel
    (2017, arXiv:1610.02136).

    Raises
    ------
    TypeError, ValueError
        If a side is not a vector of at least one finite score.
    """
    from scipy.stats import rankdata

    for name, scores in (("inside", inside), ("outside", outside)):
        _checks.inexact(name, scores)
        if scores.ndim != 1 or len(scores) == 0:
            raise ValueError(f"{name} must be a vector of at least one score, got shape {tuple(scores.shape)}")
    n, m = len(inside), len(outside)
    ranks = rankdata(torch.cat([inside, outside]).detach().double().cpu().numpy())
    return float((ranks[:n].sum() - n * (n + 1) / 2) / (n * m))


def fgsm(model: nn.Module, inputs: Shaped[Tensor, "n ..."], labels: Int64[Tensor, " n"], *, step: float | Tensor,
         low: float | Tensor | None = None, high: float | Tensor | None = None) -> Shaped[Tensor, "n ..."]:
    """Inputs moved by ``step`` along the sign of the gradient of the loss (Goodfellow et al., 2015, arXiv:1412.6572).

    Parameters
    ----------
    model
        Run in evaluation mode; its modes and gradients are left as they were.
    inputs, labels
        A batch on the model's device.
    step
        In the unit of the inputs: of images divided by a deviation, the step in grey levels divided by it.
    low, high
        What inputs are clamped to, if given.

    Raises
    ------
    TypeError, ValueError
        If the inputs are not finite or the step is negative.
    """
    _checks.inexact("inputs", inputs)
    _checks.nonnegative("step", step)
    training = {m: m.training for m in model.modules()}
    x = inputs.detach().clone().requires_grad_()
    try:
        model.eval()
        gradient, = torch.autograd.grad(functional.cross_entropy(model(x), labels, reduction="sum"), x)
    finally:
        for module, mode in training.items():
            module.training = mode
    moved = inputs + step * gradient.sign()
    for bound, limit in ((torch.maximum, low), (torch.minimum, high)):
        if limit is not None:
            moved = bound(moved, torch.as_tensor(limit, dtype=moved.dtype, device=moved.device))
    return moved
