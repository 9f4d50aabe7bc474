import pytest
import torch

from sparsepriors._norms import euclidean


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.complex64, torch.complex128])
@pytest.mark.parametrize("dim", [(0,), (1,), (-1,), (0, 2), (1, 2), (-3, -1), (0, 1, 2)])
@pytest.mark.parametrize("keepdim", [False, True])
def test_euclidean_is_torchs_norm(dtype, dim, keepdim, generator):
    x = torch.randn(3, 4, 5, dtype=dtype, generator=generator)
    for y in (x, x.transpose(0, 2), x.conj()):
        want = torch.linalg.vector_norm(y, dim=dim, keepdim=keepdim)
        torch.testing.assert_close(euclidean(y, dim, keepdim=keepdim), want)


def test_the_gradient_is_finite_at_zero():
    x = torch.zeros(2, 3, requires_grad=True)
    euclidean(x, (0,)).sum().backward()
    assert x.grad is not None
    assert torch.equal(x.grad, torch.zeros(2, 3))
