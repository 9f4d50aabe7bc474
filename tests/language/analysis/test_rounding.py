import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given

from sparsepriors.language.analysis import adam_drift, half_spacing, predicted_floor, update_report

_DTYPES = st.sampled_from([torch.bfloat16, torch.float16])


@given(_DTYPES, st.integers(0, 2**32 - 1))
def test_half_the_spacing_is_where_rounding_turns(dtype, seed):
    generator = torch.Generator().manual_seed(seed)
    x = (torch.randn(200, generator=generator) * 10 ** (6 * torch.rand(200, generator=generator) - 4)).to(dtype)
    x[:4] = torch.tensor([1.0, -0.5, 2.0, torch.finfo(dtype).smallest_normal]).to(dtype)
    room, exact = half_spacing(x), x.double()
    for sign in (1, -1):
        assert torch.equal((exact + sign * 0.999 * room).to(dtype), x)
    moved = torch.stack([(exact + sign * 1.001 * room).to(dtype) != x for sign in (1, -1)])
    assert bool(moved.any(0).all())


def test_the_smallest_numbers_have_the_spacing_of_subnormals():
    tiny = torch.finfo(torch.bfloat16).smallest_normal
    found = half_spacing(torch.tensor([0.0, tiny / 4, tiny], dtype=torch.bfloat16))
    assert found.tolist() == [tiny * 2**-8] * 3


@given(st.integers(0, 2**32 - 1), st.integers(1, 60), st.sampled_from(["steady", "growing", "bursts", "noise"]))
def test_adam_never_drifts_further_than_the_bound(seed, steps, kind):
    generator = torch.Generator().manual_seed(seed)
    rates = (torch.rand(steps, generator=generator) * 1e-2).tolist()
    weight = torch.zeros(50, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.Adam([weight], eps=1e-30)
    for t, rate in enumerate(rates):
        noise = torch.randn(50, generator=generator, dtype=torch.float64)
        weight.grad = {"steady": torch.ones_like(noise), "growing": noise.abs() * 1.2**t,
                       "bursts": noise * (torch.rand(50, generator=generator) < 0.1), "noise": noise}[kind]
        optimizer.param_groups[0]["lr"] = rate
        optimizer.step()
    assert float(weight.detach().abs().max()) <= adam_drift(rates) * (1 + 1e-9)
    assert sum(rates) <= adam_drift(rates) * (1 + 1e-12)


def test_one_step_is_the_learning_rate_and_the_bound_of_a_step_is_attained():
    assert adam_drift([0.1]) == pytest.approx(0.1)
    steps, worst = 30, 0.9 / 0.999   # gradients in the proportion that Cauchy and Schwarz ask for
    weight = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.Adam([weight], eps=1e-30)
    before = weight.detach().clone()
    for t in range(steps):
        before = weight.detach().clone()
        weight.grad = torch.tensor([worst ** (steps - t)], dtype=torch.float64)
        optimizer.param_groups[0]["lr"] = 1.0
        optimizer.step()
    last = float((before - weight.detach()).abs())
    assert last == pytest.approx(adam_drift([0.0] * (steps - 1) + [1.0]), rel=1e-6)


@given(_DTYPES, st.integers(0, 2**32 - 1), st.floats(-8, 0))
def test_the_floor_counts_entries_whose_half_spacing_is_larger_than_the_drift(dtype, seed, power):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(300, generator=generator).to(dtype)
    x[:6] = torch.tensor([0.0, 1.0, 0.5, -0.25, 2.0**-14, 2.0**-20]).to(dtype)
    for rate in (10.0**power, 2.0 ** round(3 * power), 2.0**-133, 2.0**-140):
        found = predicted_floor({"w": x}, [rate], dtype=dtype)
        assert found.nominal == float((half_spacing(x) > rate).double().mean())
        assert found.sure <= found.nominal
        assert found.sure >= float((half_spacing(x) > 1.01 * rate).double().mean())


def test_the_floor_is_below_the_sparsity_of_a_training(generator):
    start = torch.randn(2000, generator=generator).bfloat16()
    weight = torch.nn.Parameter(start.float())
    optimizer = torch.optim.Adam([weight])
    rates = [1e-4 * (t + 1) / 20 for t in range(20)]
    for rate in rates:
        weight.grad = torch.randn(2000, generator=generator) * 1e-3
        optimizer.param_groups[0]["lr"] = rate
        optimizer.step()
    floor = predicted_floor({"w": start, "positions": torch.arange(3)}, rates)
    found = update_report({"w": start}, {"w": weight.detach()}, torch.bfloat16).exact_sparsity
    assert 0.1 < floor.sure <= floor.nominal <= found < 1
    assert floor.nominal_drift == pytest.approx(sum(rates))
    assert predicted_floor({"w": start}, [0.0]).sure == 1


@pytest.mark.public_door
def test_bad_input():
    with pytest.raises(ValueError, match="w has entries between the numbers of torch.bfloat16"):
        predicted_floor({"w": torch.tensor([0.1])}, [1e-3])
    with pytest.raises(ValueError, match=r"rates\[0\]"):
        predicted_floor({"w": torch.ones(1)}, [-1.0])
    with pytest.raises(ValueError, match="betas"):
        adam_drift([1.0], (0.9, 0.5))
    with pytest.raises(ValueError, match="no floating point weights"):
        predicted_floor({"w": torch.arange(2)}, [1.0])
    with pytest.raises(TypeError, match="weights must be a floating point tensor"):
        half_spacing(torch.arange(2))
