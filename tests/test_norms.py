import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sparsepriors import _compiled
from sparsepriors._norms import euclidean, largest_modulus


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


def parts_of(x):
    return (torch.view_as_real(x.resolve_conj()) if x.is_complex() else x).double()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.complex64, torch.complex128, torch.float16,
                                   torch.bfloat16])
@pytest.mark.parametrize("size", [1, 7, 64, 1000, 65_536, 200_001])
def test_the_largest_modulus_is_that_of_the_parts(dtype, size, generator):
    x = torch.randn(size, generator=generator, dtype=torch.complex128 if dtype.is_complex else torch.float64).to(dtype)
    for y in (x, -x, x[::2], x.conj(), x.clone().requires_grad_()):
        assert largest_modulus(y) == float(parts_of(y.detach()).abs().max())


@given(st.lists(st.floats(width=32), min_size=1, max_size=40), st.sampled_from([torch.float32, torch.float64]))
def test_the_largest_modulus_tells_what_is_not_finite(values, dtype):
    x = torch.tensor(values, dtype=dtype)
    want = math.nan if any(map(math.isnan, values)) else max(map(abs, values))
    for y in (x, x[None].expand(2, -1)):
        found = largest_modulus(y)
        assert math.isnan(found) if math.isnan(want) else found == want


@pytest.mark.parametrize("at", [0, 65_535, 65_536, 199_999])
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_one_entry_among_many_is_found(at, bad):
    x = torch.zeros(200_000)
    x[at] = bad
    assert not math.isfinite(largest_modulus(x))
    x[-1 - at] = math.nan
    assert math.isnan(largest_modulus(x))


def test_nothing_has_no_modulus():
    assert largest_modulus(torch.zeros(0)) == largest_modulus(torch.zeros(3, 0, dtype=torch.complex64)) == 0


@pytest.mark.skipif(_compiled.NATIVE is None, reason="no compiled module")
@pytest.mark.parametrize("instruction_set", _compiled.SETS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.complex64, torch.complex128])
@pytest.mark.parametrize("threads", [1, 2])
def test_every_instruction_set_finds_the_same(instruction_set, dtype, threads, generator):
    assert _compiled.NATIVE is not None
    for size in (1, 15, 33, 70_000, 200_001):
        x = torch.randn(size, dtype=dtype, generator=generator)
        found = _compiled.NATIVE.largest_modulus(x, threads, instruction_set)
        assert found == float(parts_of(x).abs().max())
        x[size // 2] = math.nan
        assert math.isnan(_compiled.NATIVE.largest_modulus(x, threads, instruction_set))


def test_without_the_compiled_module_torch_finds_it(monkeypatch, generator):
    x = torch.randn(50, dtype=torch.complex64, generator=generator)
    want = largest_modulus(x)
    monkeypatch.setattr(_compiled, "NATIVE", None)
    assert largest_modulus(x) == want
    assert math.isnan(largest_modulus(torch.tensor([1.0, math.nan, math.inf])))
