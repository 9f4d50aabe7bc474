"""Total variation by a few primal-dual steps, as the radar paper computes it."""

from __future__ import annotations

import torch
from torch import Tensor

from sparsepriors._norms import euclidean

_TAU = 0.01
_NORM = 13.0   # of x -> (x, D x) squared, which the published step sizes take for the norm itself


class InexactTV:
    """A denoiser ``(x, std) -> x`` that takes five primal-dual steps towards the prox of ``std^2 TV``.

    The steps of Chambolle and Pock on min_u 1/2 ||u - x||^2 + std^2 TV(u) with both terms dualised, tau = 0.01 and
    sigma = 1 / (tau 13^2), started at x. Differences beyond the faces are taken against zero, so that constant volumes
    are not free. Five steps of this length move little: the result lies between x and the prox, nearer to x.

    Source: Oral and Oktem (2024), section on the compared methods, with the numbers of their published code. The prox
    to a stated accuracy is `sparsepriors.priors.TV`.
    """

    dims = 3
    steps = 5

    def __call__(self, x: Tensor, std: float | Tensor) -> Tensor:
        """Denoise the last three axes of a real tensor."""
        weight = torch.as_tensor(std, dtype=x.dtype, device=x.device).square()
        weight = weight[None] if weight.ndim else weight
        sigma = 1 / (_TAU * _NORM**2)
        u, ahead = x, x
        p, q = torch.zeros_like(x), torch.zeros_like(_differences(x))
        for _ in range(self.steps):
            p = (p + sigma * (ahead - x)) / (1 + sigma)
            q = q + sigma * _differences(ahead)
            size = euclidean(q, (0,), keepdim=True)
            q = torch.where(size > weight, q * (weight / size.clamp_min(torch.finfo(x.dtype).tiny)), q)
            new = u - _TAU * (p + _adjoint(q))
            u, ahead = new, new + _TAU * (new - u)
        return u


def _differences(x: Tensor) -> Tensor:
    """Forward differences of the volume in a shell of zeros, ``(3, ..., x+1, y+1, z+1)``."""
    shell = torch.nn.functional.pad(x, (1, 1, 1, 1, 1, 1))
    here = shell[..., :-1, :-1, :-1]
    return torch.stack((shell[..., 1:, :-1, :-1] - here, shell[..., :-1, 1:, :-1] - here,
                        shell[..., :-1, :-1, 1:] - here))


def _adjoint(q: Tensor) -> Tensor:
    """The adjoint of `_differences`."""
    inner = q[..., 1:, 1:, 1:].sum(0)
    return q[0, ..., :-1, 1:, 1:] + q[1, ..., 1:, :-1, 1:] + q[2, ..., 1:, 1:, :-1] - inner
