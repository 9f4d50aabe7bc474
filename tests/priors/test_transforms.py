"""Priors in a basis: which bases and which priors fit."""

import pytest
import torch

from sparsepriors import priors
from sparsepriors.operators import FourierTransform, Matrix, WaveletTransform
from sparsepriors.testing import PriorCase, check_prior

L1, F64 = priors.L1(0.3), torch.float64
W = WaveletTransform((4, 8), "db2", 1, dtype=F64)
WRAPPED = {
    "scaled": 2 * L1, "magnitude": priors.Magnitude(L1), "translated": priors.Translated(L1, 0.2),
    "groups": priors.Groups(L1, -1), "a sum": L1 + priors.SquaredL2(0.5), "conjugate": priors.Conjugate(L1),
    "partition": priors.Partition(L1, torch.tensor([0, 1] * 4)), "all of them":
        priors.Scaled(priors.Groups(priors.Magnitude(priors.Translated(L1, 0.1)) + priors.SquaredL2(0.2), -1), 0.7),
}


@pytest.mark.parametrize("name", WRAPPED)
def test_a_prior_of_whole_tensors_is_one_of_the_coefficients_however_it_is_wrapped(name, generator):
    prior = priors.InBasis(WRAPPED[name], W)
    x = torch.randn(3, 4, 8, dtype=F64, generator=generator)
    by_hand = torch.stack([W.adjoint(WRAPPED[name].prox(W(item), 0.6)) for item in x])
    torch.testing.assert_close(prior.prox(x, 0.6), by_hand)
    assert prior.value(x).shape == (3,)
    check_prior(PriorCase(prior, (4, 8), (F64,)))
    assert torch.equal(priors.Prior.from_dict(prior.to_dict()).prox(x), prior.prox(x))


@pytest.mark.parametrize("dtype", [torch.float32, F64])
@pytest.mark.parametrize("scale", [1e-9, 1e-3, 1.0, 1e3])
def test_a_basis_must_be_tight_at_every_scale(scale, dtype, generator):
    loose = scale * torch.randn(8, 8, dtype=F64, generator=generator)
    with pytest.raises(ValueError, match="must satisfy W W"):
        priors.InBasis(L1, Matrix(loose.to(dtype)))
    tight = Matrix((scale * torch.linalg.qr(loose).Q).to(dtype))
    x = torch.randn(8, dtype=dtype, generator=generator)
    by_hand = tight.adjoint(L1.prox(tight(x), scale**2)) / scale**2
    torch.testing.assert_close(priors.InBasis(L1, tight).prox(x), by_hand, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("prior", "basis", "error", "said"), [
    (priors.Box(0.0, 1.0), FourierTransform((4, 8), dtype=torch.complex128), TypeError, "Box is a prior of real"),
    (priors.L1(torch.ones(3)), W, ValueError, r"weight of shape \(3,\) does not broadcast"),
    (priors.NM(2, 3), W, ValueError, "cannot be cut into groups of m = 3"),
])
def test_coefficients_that_the_prior_does_not_take_are_refused(prior, basis, error, said):
    with pytest.raises(error, match=said):
        priors.InBasis(prior, basis).prox(torch.ones(2, 4, 8, dtype=basis.in_dtype))
