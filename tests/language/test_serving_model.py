"""The time model: figures worked by hand, and what must hold for every machine and model."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsepriors.language.schedule import Schedule
from sparsepriors.language.serving_model import (
    H100_80GB,
    OPT_6_7B,
    OPT_13B,
    OPT_30B,
    SYSTEMS,
    V100_32GB,
    Hardware,
    ModelShape,
    Workload,
    capacity,
    plan,
    room,
    simulate_throughput,
)

SMALL = ModelShape(64, 2)


def machine(tokens, batch=4, *, link=1e6, flops=1e12):
    """A machine on which ``tokens`` tokens of ``batch`` sequences of SMALL fit."""
    return Hardware((2 * SMALL.weights + tokens * SMALL.token_bytes(batch)) / 0.9, 1e9, link, flops)


def test_the_worked_figures_of_opt_30b():
    assert OPT_30B.token_bytes(64) == pytest.approx(88.1e6, rel=1e-3)
    assert room(OPT_30B, H100_80GB) == pytest.approx(12e9, rel=0.01)
    assert capacity(OPT_30B, H100_80GB, 64) == pytest.approx(136, rel=0.01)
    assert capacity(OPT_30B, H100_80GB, 64, kv_bits=8) == 2 * capacity(OPT_30B, H100_80GB, 64)
    assert simulate_throughput("flexgen", OPT_30B, H100_80GB, 64, 128, 512).slow_share == pytest.approx(0.79, abs=0.005)
    assert simulate_throughput("vllm", OPT_30B, H100_80GB, 64, 128, 512).waves == 5


def test_a_step_by_hand():
    hardware = machine(5, batch=2, link=1e6, flops=1e9)
    h, layers, b, s, n, r = 64, 2, 2, 10, 1, 0.4
    weights, rate = 12 * layers * h**2, 0.3e9
    got = simulate_throughput("alisa", SMALL, hardware, b, s, n, r, schedule=Schedule(beta=0.5, p1=0, p2=0))
    picks, slow = 2, 5
    fetched = picks * slow / (s - picks)
    token = 4 * b * layers * h
    assert got.transfer == pytest.approx(token * (5 + fetched / 2) / 1e6)   # 5 left for slow memory after the prompt
    again = max(4 * h**2 * layers * b * fetched / 2 / rate, 4 * h**2 * layers / 1e9)
    assert got.recompute == pytest.approx(again)
    prompt = (2 * weights * b * s + 2 * b * layers * h * s**2) / rate
    assert got.compute == pytest.approx(prompt + (2 * weights * b + token * 4) / rate)
    assert got.seconds == pytest.approx(got.compute + got.transfer + got.recompute)
    assert got.throughput == pytest.approx(b * n / got.seconds)


@settings(max_examples=8)
@given(st.integers(1, 60), st.integers(1, 30), st.integers(1, 40), st.floats(0.05, 1.0), st.booleans())
def test_what_holds_on_every_machine(tokens, s, n, r, overlap):
    hardware = machine(tokens + 1e-6)
    found = {x: simulate_throughput(x, SMALL, hardware, 4, s, n, r, overlap=overlap) for x in SYSTEMS}
    tol = 1 + 1e-9
    fits = tokens >= s + n
    assert (found["dense"].throughput > 0) == fits
    assert found["accelerate"].seconds * tol >= found["flexgen"].seconds
    if fits:
        assert found["flexgen"].seconds == found["vllm"].seconds == found["dense"].seconds
        assert found["alisa"].seconds <= found["dense"].seconds * tol
    assert found["static"].seconds <= found["flexgen"].seconds * tol
    assert found["static"].slow_share == found["flexgen"].slow_share
    prompt = found["flexgen"].slow_share * s * SMALL.token_bytes(4) / hardware.link_bandwidth
    assert found["static"].transfer - prompt == pytest.approx(r * (found["flexgen"].transfer - prompt))
    assert found["flexgen"].slow_share == pytest.approx(max(0, 1 - (tokens + 1e-6) / (s + n)), abs=1e-9)
    for serving in found.values():
        if math.isfinite(serving.seconds):
            total = serving.compute + serving.transfer + serving.recompute
            assert serving.seconds <= total * tol if overlap else serving.seconds == pytest.approx(total)


@settings(max_examples=6)
@given(st.integers(1, 60), st.integers(1, 30), st.integers(1, 40), st.sampled_from([0.1, 0.3, 0.7]),
       st.sampled_from([1e5, 1e7]), st.sampled_from([1e9, 1e12]))
def test_the_plan_is_at_least_as_fast_as_not_planning(tokens, s, n, r, link, flops):
    hardware, work = machine(tokens, link=link, flops=flops), Workload(4, s, n)
    best = plan(SMALL, hardware, work, r)
    off = plan(SMALL, hardware, work, r, recompute=False)
    late = simulate_throughput("alisa", SMALL, hardware, 4, s, n, r, schedule=Schedule(p1=n, p2=n))
    assert best.predicted.seconds <= off.predicted.seconds * (1 + 1e-9)
    assert off.predicted.seconds <= late.seconds * (1 + 1e-9)
    assert off.predicted.recompute == 0
    assert best.schedule.p1 <= best.schedule.p2
    again = simulate_throughput("alisa", SMALL, hardware, 4, s, n, r, schedule=best.schedule)
    assert again.seconds == best.predicted.seconds


def test_recomputing_is_chosen_where_computing_is_cheap_and_only_there():
    work = Workload(4, 30, 40)
    cheap = plan(SMALL, machine(10, link=1e5, flops=1e13), work, 0.4)
    dear = plan(SMALL, machine(10, link=1e8, flops=1e8), work, 0.4)
    assert cheap.schedule.beta == 1.0
    assert cheap.predicted.recompute > 0
    assert dear.predicted.recompute == 0


@pytest.mark.parametrize(("shape", "hardware"), [(OPT_6_7B, V100_32GB), (OPT_13B, V100_32GB), (OPT_30B, H100_80GB)])
def test_alisa_gains_over_flexgen_with_the_batch(shape, hardware):
    gains = []
    for b in (4, 16, 64):
        flexgen = simulate_throughput("flexgen", shape, hardware, b, 128, 512)
        gains.append(simulate_throughput("alisa", shape, hardware, b, 128, 512, 0.2).throughput / flexgen.throughput)
        assert gains[-1] >= 1.2 if flexgen.slow_share else 1 <= gains[-1] <= 1.3
    assert gains == sorted(gains)


@pytest.mark.public_door
@pytest.mark.parametrize(("call", "message"), [
    (lambda: simulate_throughput("flexgan", SMALL, machine(5), 1, 1, 1), "did you mean 'flexgen'"),
    (lambda: simulate_throughput("alisa", SMALL, machine(5), 0, 1, 1), "batch must be at least 1"),
    (lambda: simulate_throughput("alisa", SMALL, machine(5), 1, 1, 1, r=0.0), "r must be finite and positive"),
    (lambda: simulate_throughput("alisa", SMALL, machine(5), 1, 1, 1, r=1.1), r"r must lie in \(0, 1\], got 1.1"),
    (lambda: simulate_throughput("alisa", SMALL, machine(5), 1, 1, 1, kv_bits=3), "kv_bits must be 4, 8 or 16"),
    (lambda: plan(OPT_30B, V100_32GB, Workload(1, 1, 1), 0.2), "must hold the weights of 5.99e"),
    (lambda: ModelShape(0, 1), "hidden must be at least 1"),
    (lambda: ModelShape(1, 1, -1.0), "parameters must be finite and positive"),
    (lambda: Hardware(1.0, 1.0, 1.0, 1.0, efficiency=2.0), r"efficiency must lie in \(0, 1\], got 2.0"),
    (lambda: Workload(1, 0, 1), "prompt must be at least 1"),
])
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
