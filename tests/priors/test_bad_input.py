"""Bad input meets an error at the public door that names the argument, what was expected and what came."""

import dataclasses
import math

import pytest
import torch

from sparsepriors import priors
from sparsepriors.operators import FourierTransform, Matrix
from sparsepriors.priors.base import Prior
from sparsepriors.priors.combinators import add

X, Z = torch.ones(4, 6), torch.ones(4, 6, dtype=torch.complex64)
NAN, INF = math.nan, math.inf
L1, L2 = priors.L1(1.0), priors.SquaredL2(1.0)


@dataclasses.dataclass(frozen=True)
class Promises(Prior):
    """States a Lipschitz constant and keeps no gradient."""

    @property
    def lipschitz(self):
        return 1.0

    def _value(self, x):
        return x.new_zeros(())

    def _prox(self, x, step):
        return x


class Everything(priors.Pattern):
    """A pattern without a density."""

    def _mask(self, scores):
        return torch.ones_like(scores, dtype=torch.bool)


CALLS = {
    "a nonsmooth prior": (lambda: L1.grad(X), TypeError, "L1 has no gradient; use its prox"),
    "a promise of a gradient": (lambda: Promises().grad(X), TypeError, "states a Lipschitz constant but has no _grad"),
    "a state of a prior without one": (lambda: L1.warm_prox(X, 1.0, X), ValueError, "keeps no state between calls"),
    "a foreign state": (lambda: priors.TV(0.1).warm_prox(X, 1.0, X), ValueError, "state must be what an earlier call"),
    "a complex unknown": (lambda: priors.Simplex().prox(Z), TypeError, "wrap it in Magnitude"),
    "too few axes": (lambda: priors.TV(0.1).prox(X[0]), ValueError, "at least dims = 2 axes"),
    "integers": (lambda: L1.prox(X.int()), TypeError, "x must be floating point or complex, got torch.int32"),
    "NaN": (lambda: L1.prox(X * NAN), ValueError, "x holds NaN or infinite"),
    "a step of another shape": (lambda: L1.prox(X, torch.ones(5)), ValueError, r"step of shape \(5,\) does not"),
    "a step with more axes": (lambda: L1.prox(X, torch.ones(2, 4, 6)), ValueError, "step must not have more axes"),
    "a step within an unknown": (lambda: priors.TV(0.1).prox(X, torch.ones(6)), ValueError, "not separable"),
    "a negative step": (lambda: L1.prox(X, -1.0), ValueError, "step must be finite and"),
    "a weight of another shape": (lambda: priors.L1(torch.ones(5)).prox(X), ValueError, r"weight of shape \(5,\)"),
    "a weight within an unknown": (lambda: priors.TV(torch.ones(4, 6)), ValueError, "constant over each unknown"),
    "a text for an axis": (lambda: priors.GroupL2(1.0, axis="rows"), TypeError, "axis must be an integer or a tuple"),
    "an axis twice": (lambda: priors.GroupL2(1.0, axis=(-1, -1)), ValueError, "axis must name distinct axes"),
    "one axis by two names": (lambda: priors.GroupL2(1.0, axis=(1, -1)).prox(X), ValueError, "twice"),
    "an axis outside an unknown": (lambda: priors.GroupL2(1.0, axis=-3, dims=2), ValueError, "last dims = 2 axes"),
    "an axis that is not there": (lambda: priors.GroupL2(1.0, axis=-3).prox(X), ValueError, "x must have the axes"),
    "vectors for matrices": (lambda: priors.NuclearNorm(1.0, dims=None).prox(X[0]), ValueError,
                             "at least 2 axes for"),
    "vectors for matrices by dims": (lambda: priors.NuclearNorm(1.0, dims=1), ValueError, "dims of NuclearNorm"),
    "a complex box": (lambda: priors.Box(torch.tensor(1j), 2.0), TypeError, "low and high must be real"),
    "output blocks of a scalar": (lambda: priors.OutputBlocks(0.5, 2).mask(torch.tensor(1.0)), ValueError,
                                  "needs at least one axis"),
    "a box the wrong way round": (lambda: priors.Box(2.0, 1.0), ValueError, "low must not exceed high"),
    "a box that ends in NaN": (lambda: priors.Box(0.0, NAN), ValueError, "low must not exceed high"),
    "an empty box": (lambda: priors.Box(INF, INF), ValueError, "the box must not be empty"),
    "another exponent": (lambda: priors.Lq(1.0, 0.7), ValueError, "q must be 1/2 or 2/3, got 0.7"),
    "a SCAD without room": (lambda: priors.SCAD(1.0, a=2.0), ValueError, "a must be more than 2"),
    "no prior inside": (lambda: priors.Magnitude(3), TypeError, "prior must be a Prior, got int"),
    "other dims than inside": (lambda: priors.Magnitude(priors.TV(0.1), dims=3), ValueError, "set it there"),
    "a sum with a number": (lambda: add(L1, 3), TypeError, r"a prior can be added to a prior, got L1 \+ int"),
    "a sum of two hard ones": (lambda: L1 + L1, TypeError, "no closed-form prox"),
    "a sum of other dims": (lambda: priors.TV(0.1) + priors.SquaredL2(1.0, dims=3), ValueError, "must agree, got 2"),
    "groups of nothing": (lambda: priors.Groups(3, -1), TypeError, "prior must be a Prior, got int"),
    "groups of other dims": (lambda: priors.Groups(priors.TV(0.1), -1, dims=3), ValueError, "dims of Groups"),
    "a partition of nothing": (lambda: priors.Partition(3, torch.tensor([0])), TypeError,
                               "prior must be a Prior, got int"),
    "a partition of other dims": (lambda: priors.Partition(priors.TV(0.1), torch.tensor([0]), dims=3), ValueError,
                                  "dims of Partition"),
    "a partition of single entries": (lambda: priors.Partition(priors.L1(dims=0), torch.tensor([0])), ValueError,
                                      "dims of Partition must be at least 1"),
    "labels of another kind": (lambda: priors.Partition(L1, torch.ones(2)), TypeError,
                               "labels must be an int64 tensor"),
    "labels from below": (lambda: priors.Partition(L1, torch.tensor([0, -1])), ValueError, "group numbers from 0"),
    "labels with a hole": (lambda: priors.Partition(L1, torch.tensor([0, 2])), ValueError, "must leave out no number"),
    "labels for another axis": (lambda: priors.Partition(L1, torch.tensor([0, 0])).prox(torch.ones(3)), ValueError,
                                "a last axis of 2 entries"),
    "a denoiser that is none": (lambda: priors.PlugAndPlay(3), TypeError, "callable as denoiser"),
    "a denoiser of other dims": (lambda: priors.PlugAndPlay(priors.Denoiser("radar-unet3d"), dims=2), ValueError,
                                 "must be that of its denoiser, 3"),
    "a denoiser that crops": (lambda: priors.PlugAndPlay(lambda x, std: x[1:]).prox(X), ValueError,
                              r"must return torch.float32 \(4, 6\), got torch.float32 \(3, 6\)"),
    "a denoiser that returns text": (lambda: priors.PlugAndPlay(lambda x, std: "x").prox(X), ValueError, "got str"),
    "a text for an offset": (lambda: priors.Translated(L1, offset="x"), TypeError, "offset must be a number or"),
    "an infinite offset": (lambda: priors.Translated(L1, offset=INF), ValueError, "offset holds NaN or infinite"),
    "a NaN in an offset": (lambda: priors.Translated(L1, offset=X * NAN), ValueError, "offset holds NaN or infinite"),
    "a complex offset": (lambda: priors.Translated(L1, offset=1j).prox(X), TypeError, "offset is complex"),
    "a matrix of weights": (lambda: priors.SLOPE(torch.ones(2, 2)), ValueError, r"weights must have shape \(n,\)"),
    "rising weights": (lambda: priors.SLOPE(torch.tensor([1.0, 2.0])), ValueError, "nonincreasing"),
    "weights of another length": (lambda: priors.SLOPE(torch.ones(3), dims=2).prox(X), ValueError, "each of the 24"),
    "four spatial axes": (lambda: priors.TV(0.1, dims=4), ValueError, "dims of TV must be 1, 2 or 3"),
    "a tolerance below rounding": (lambda: priors.TV(0.1, tol=1e-9).prox(X), ValueError, "cannot be reached in"),
    "no prior in a basis": (lambda: priors.InBasis(3, Matrix(torch.eye(3))), TypeError, "prior must be a Prior"),
    "no basis": (lambda: priors.InBasis(L1, torch.eye(3)), TypeError, "basis must be a LinearOperator, got Tensor"),
    "other dims than the basis": (lambda: priors.InBasis(L1, Matrix(torch.eye(3)), dims=2), ValueError,
                                  "must be the 1 axes of its basis"),
    "a prior of other coefficients": (lambda: priors.InBasis(priors.TV(0.1), Matrix(torch.eye(3))), ValueError,
                                      "unknowns with 1 axes"),
    "a basis that is not tight": (lambda: priors.InBasis(L1, Matrix(torch.ones(2, 2).triu())), ValueError, "W W"),
    "another unknown than the basis has": (lambda: priors.InBasis(L1, FourierTransform((6,))).prox(X), ValueError,
                                           "as its basis asks"),
    "the conjugate of nothing": (lambda: priors.Conjugate(3), TypeError, "prior must be a Prior, got int"),
    "the conjugate of a nonconvex one": (lambda: priors.Conjugate(priors.L0(1.0)), ValueError, "L0 is not convex"),
    "a conjugate of other dims": (lambda: priors.Conjugate(priors.TV(0.1), dims=1), ValueError, "dims of Conjugate"),
    "scores of integers": (lambda: priors.NM(2, 4).mask(X.int()), TypeError, "scores must be a floating point"),
    "scores of NaN": (lambda: priors.NM(2, 4).mask(X * NAN), FloatingPointError, "NaN or infinite"),
    "N:M at a density": (lambda: priors.NM(2, 4).at(0.3), TypeError, "fixes its own density, 0.5"),
    "a pattern without a density at one": (lambda: Everything().at(0.3), TypeError, "Everything fixes its own density"),
    "a mask of numbers": (lambda: priors.pack_mask(X), TypeError, "mask must be a boolean tensor, got torch.float32"),
    "no mask at all": (lambda: priors.pack_mask("x"), TypeError, "mask must be a boolean tensor, got str"),
    "bits of another mask": (lambda: priors.unpack_mask(torch.zeros(2, dtype=torch.uint8), (4, 6)), ValueError,
                             r"bits of a mask of shape \(4, 6\) must be 3 bytes"),
    "N:M along a text": (lambda: priors.NM(2, 4, dim="rows"), TypeError, "dim must be an integer or None"),
    "N:M of a scalar": (lambda: priors.NM(2, 4).mask(torch.tensor(1.0)), ValueError, "at least one axis"),
    "N:M along no axis": (lambda: priors.NM(2, 4, dim=5).mask(X), ValueError, "dim = 5 is not an axis"),
    "N:M that does not fit": (lambda: priors.NM(2, 4).mask(X), ValueError, "cannot be cut into groups of m = 4"),
    "blocks of volumes": (lambda: priors.Block(0.5, (2, 2, 2)), ValueError, "height and width of a block"),
    "blocks of a vector": (lambda: priors.Block(0.5, (2, 2)).mask(X[0]), ValueError, "at least two axes"),
    "blocks that do not fit": (lambda: priors.Block(0.5, (3, 3)).mask(X), ValueError, "multiples of the block"),
    "channels that are not there": (lambda: priors.Channel(0.5, dim=4).mask(X), ValueError, "dim = 4 is not an axis"),
    "balance along no axis": (lambda: priors.Balanced(0.5, dim=4).mask(X), ValueError, "dim = 4 is not an axis"),
    "a density above one": (lambda: priors.Unstructured(1.5), ValueError, r"density must be in \[0, 1\]"),
}


@pytest.mark.public_door
@pytest.mark.parametrize("name", CALLS)
def test_it_is_named(name):
    call, error, message = CALLS[name]
    with pytest.raises(error, match=message):
        call()
