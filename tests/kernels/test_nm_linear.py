import importlib.util
import math
import os
import subprocess
import sys

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sparsepriors import kernels
from sparsepriors.kernels import nm_linear, pack_linear_nm
from sparsepriors.kernels.reference import nm_mask

SETS = kernels.instruction_sets() or (None,)
DTYPES = (torch.float32, torch.bfloat16)


def layer(out_features: int, groups: int, n: int, m: int, dtype: torch.dtype, seed: int) -> kernels.PackedNM:
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(out_features, groups * m, generator=generator)
    weight = torch.where(nm_mask(weight.abs(), n, m), weight, 0.0)
    return pack_linear_nm(weight, n, m, torch.randn(out_features, generator=generator), dtype=dtype)


@given(st.integers(1, 32).flatmap(lambda m: st.tuples(st.integers(1, m), st.just(m))), st.integers(1, 70),
       st.integers(1, 7), st.integers(1, 35), st.sampled_from(DTYPES), st.sampled_from(DTYPES), st.sampled_from(SETS),
       st.integers(0, 999))
def test_errors_stay_below_what_rounding_explains(nm, out_features, groups, rows, weights, dtype, isa, seed):
    n, m = nm
    packed = layer(out_features, groups, n, m, weights, seed)
    x = torch.randn(rows, groups * m, generator=torch.Generator().manual_seed(seed)).to(dtype)
    y = nm_linear(x, packed, instruction_set=isa)
    assert y.dtype == dtype
    assert packed.bias is not None
    weight, bias = packed.dense().double(), packed.bias.double()
    exact = x.double() @ weight.T + bias
    largest = x.double().abs() @ weight.abs().T + bias.abs()
    bound = (groups * n + 2) * torch.finfo(torch.float32).eps * largest + torch.finfo(dtype).eps * exact.abs()
    assert bool(((y.double() - exact).abs() <= bound).all())


@pytest.mark.parametrize("isa", SETS)
@pytest.mark.parametrize(("n", "m"), [(2, 4), (1, 8), (3, 32)])
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_row_does_not_depend_on_the_rows_beside_it(isa, n, m, dtype):
    packed = layer(83, 24, n, m, torch.float32, 0)
    x = torch.randn(83, 24 * m, generator=torch.Generator().manual_seed(1)).to(dtype)
    together = nm_linear(x, packed, instruction_set=isa)
    for rows in (1, 3, 8, 16, 30):
        parts = torch.cat([nm_linear(part, packed, instruction_set=isa) for part in x.split(rows)])
        assert torch.equal(parts, together)


@pytest.mark.parametrize("isa", SETS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("n", "m", "groups"), [(1, 2, 11), (1, 8, 9), (3, 4, 8), (7, 8, 5), (3, 32, 6), (5, 17, 5),
                                                (31, 32, 3)])
def test_pairs_of_values_that_belong_to_two_groups(isa, dtype, n, m, groups):
    """With odd n a pair has values of two groups, in two tables where a group fills one. Integers, exactly."""
    generator = torch.Generator().manual_seed(n)
    weight = torch.randint(1, 4, (19, groups * m), generator=generator).float()
    weight = torch.where(nm_mask(torch.rand(weight.shape, generator=generator), n, m), weight, 0.0).to(dtype)
    for rows in (1, 3, 7, 20):
        x = torch.randint(-3, 4, (rows, groups * m), generator=generator).to(dtype)
        want = (x.double() @ weight.double().T).to(dtype)
        assert torch.equal(nm_linear(x, pack_linear_nm(weight, n, m), instruction_set=isa), want)


@pytest.mark.parametrize("isa", SETS)
def test_entries_that_meet_no_stored_value_do_no_harm(isa):
    weight = torch.zeros(20, 8)
    weight[:, 1] = weight[:, 2] = weight[:, 6] = weight[:, 7] = 1.0
    x = torch.tensor([[math.nan, 1.0, 2.0, math.inf, -math.inf, math.nan, 3.0, 4.0]])
    assert torch.equal(nm_linear(x, pack_linear_nm(weight, 2, 4), instruction_set=isa), torch.full((1, 20), 10.0))


@pytest.mark.parametrize("shape", [(), (3,), (2, 3), (0, 5)])
def test_leading_axes_are_kept(shape):
    packed = layer(5, 2, 2, 4, torch.float32, 0)
    x = torch.randn(*shape, 8)
    y = nm_linear(x, packed)
    assert y.shape == (*shape, 5)
    assert torch.allclose(y, torch.nn.functional.linear(x, packed.dense(), packed.bias), atol=1e-5)


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_gradient_is_that_of_the_dense_layer(dtype):
    packed = layer(5, 3, 2, 4, dtype, 0)
    x = torch.randn(2, 3, 12).to(dtype).requires_grad_()
    other = x.detach().clone().requires_grad_()
    upper = torch.randn(2, 3, 5).to(dtype)
    nm_linear(x, packed).backward(upper)
    torch.nn.functional.linear(other, packed.dense()).backward(upper)
    assert x.grad is not None
    assert other.grad is not None
    assert torch.allclose(x.grad.float(), other.grad.float(), rtol=4 * torch.finfo(dtype).eps,
                          atol=4 * torch.finfo(dtype).eps)


@pytest.mark.public_door
def test_another_device_is_refused():
    with pytest.raises(ValueError, match="x must be on cpu, where the weight is, got meta"):
        nm_linear(torch.ones(1, 8, device="meta"), layer(5, 2, 2, 4, torch.float32, 0))


INTERPRETED = """
import torch
from sparsepriors.kernels import pack_linear_nm, reference, triton_nm

generator = torch.Generator().manual_seed(0)
worst = {torch.float32: 0.0, torch.bfloat16: 0.0}
for i, (n, m) in enumerate(((2, 4), (1, 8), (3, 5), (3, 32), (1, 1))):
    for rows, outputs, groups in ((1, 17, 200 // m), (5, 33, 3), (20, 70, 5)):
        for weights in worst:
            for dtype in worst:
                weight = torch.randn(outputs, groups * m, generator=generator)
                weight = torch.where(reference.nm_mask(weight.abs(), n, m), weight, 0.0)
                packed = pack_linear_nm(weight, n, m, weight[:, 0] if i % 2 else None, dtype=weights)
                x = torch.randn(rows, groups * m, generator=generator).to(dtype)
                found, want = (f(x, packed) for f in (triton_nm.nm_linear, reference.nm_linear))
                assert found.dtype == dtype and found.shape == want.shape
                error = (found.double() - want.double()).abs().max() / want.double().abs().max()
                worst[dtype] = max(worst[dtype], float(error) / torch.finfo(dtype).eps)
print(*worst.values())
"""


@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="Triton is not installed")
def test_the_triton_kernels_agree_with_the_reference_in_its_interpreter():
    environment = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", INTERPRETED], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    single, half = map(float, done.stdout.split())
    assert single <= 100.0
    assert half <= 2.0
