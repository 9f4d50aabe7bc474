"""Sparsity curves: what is read off them, and that measuring leaves the model as it was."""

import math

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import nn

from sparsepriors.language.analysis import (
    Essential,
    SparsityCurve,
    apply_masks,
    fixed_plan,
    mask_family,
    mean_curve,
    sparsity_curve,
)
from sparsepriors.networks import Sparsifier, prune
from sparsepriors.networks.sparse import Global, Uniform, preset
from sparsepriors.priors import NM, Unstructured

CURVE = SparsityCurve((0.0, 0.1, 0.2, 0.4, 0.5), (0.9, 0.91, 0.895, 0.885, 0.4))
PERPLEXITY = SparsityCurve((0.0, 0.2, 0.3, 0.5), (20.0, 21.0, 30.0, 400.0), higher_is_better=False)


def net(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(24, 40), nn.ReLU(), nn.Linear(40, 16))


def weight(model, place):
    return model.get_parameter(f"{place}.weight").detach()


def zeros(model):
    weights = [p for n, p in model.named_parameters() if n.endswith("weight")]
    return sum(int((p == 0).sum()) for p in weights) / sum(p.numel() for p in weights)


def test_essential_sparsity_is_where_the_score_first_falls_by_more_than_eps():
    found = CURVE.essential(0.01)
    assert (found.sparsity, found.broken_at) == (0.2, 0.4)
    assert found.threshold == pytest.approx(0.89)
    assert CURVE.essential(0.02).sparsity == 0.4
    assert CURVE.essential(0.6) == Essential(0.5, None, 0.9 - 0.6)
    assert PERPLEXITY.essential(0.1, relative=True).sparsity == 0.2
    assert PERPLEXITY.essential(0.1).sparsity == 0.0


def test_rho_asks_for_a_fine_curve_where_it_breaks():
    assert CURVE.essential(0.02, rho=0.1).broken_at == 0.5
    with pytest.raises(ValueError, match=r"rho = 0\.1 asks for a finer curve: the score breaks between sparsity 0\.2 "):
        CURVE.essential(0.01, rho=0.1)


def test_the_knee_compares_the_interval_after_with_the_mean_before():
    knee = CURVE.knee(0.02)
    assert knee.sparsity == 0.4
    assert knee.before == pytest.approx(0.015 / 0.4)
    assert knee.after == pytest.approx(4.85)
    assert knee.sharpness == pytest.approx(knee.after / knee.before)
    assert CURVE.knee(0.004).sharpness == math.inf   # better than dense before it breaks
    assert math.isnan(PERPLEXITY.knee(0.1).sharpness)   # breaks at once
    assert PERPLEXITY.log().knee(0.1).after == pytest.approx((math.log(30) - math.log(21)) / 0.1)
    with pytest.raises(ValueError, match=r"stays within 0\.6 up to sparsity 0\.5"):
        CURVE.knee(0.6)


@given(st.lists(st.floats(-1, 1), min_size=2, max_size=8), st.floats(0, 0.5), st.floats(0, 0.5), st.booleans())
def test_what_may_be_lost_bounds_every_score_up_to_the_essential_sparsity(scores, eps, more, higher):
    curve = SparsityCurve(tuple(i / 10 for i in range(len(scores))), tuple(scores), higher)
    found = curve.essential(eps)
    upto = [loss for s, loss in zip(curve.sparsities, curve.losses, strict=True) if s <= found.sparsity]
    assert max(upto) <= eps
    assert curve.essential(eps + more).sparsity >= found.sparsity
    assert found.broken_at is None or curve.losses[curve.sparsities.index(found.broken_at)] > eps
    assume(eps > 0)
    mirrored = SparsityCurve(curve.sparsities, tuple(-v for v in scores), not higher)
    assert mirrored.essential(eps).sparsity == found.sparsity


def test_a_curve_prunes_the_smallest_and_puts_the_model_back():
    model, seen = net(), []
    before = {k: v.clone() for k, v in model.state_dict().items()}
    curve = sparsity_curve(model, lambda m: 1 - zeros(m), (0.0, 0.25, 0.5), callback=lambda s, v: seen.append((s, v)))
    assert curve.sparsities == (0.0, 0.25, 0.5)
    assert curve.scores == pytest.approx((1.0, 0.75, 0.5))
    assert seen == list(zip(curve.sparsities, curve.scores, strict=True))
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    again = sparsity_curve(model, lambda m: float(weight(m, 0).abs().sum()), mask_family(model, (0.25, 0.5)))
    want = [float(weight(m, 0).abs().sum()) for m in (net(), *(pruned(s) for s in (0.25, 0.5)))]
    assert again.scores == pytest.approx(want)
    assert sparsity_curve(model, zeros, (1e-9, 0.25, 0.25 + 1e-9)).sparsities == (0.0, 0.25)
    for options in ({}, {"prune": lambda m, s: prune(m, Unstructured(1 - s), distribution=Global())}):
        known = sparsity_curve(model, lambda m: float(weight(m, 0).abs().sum()), (0.25, 0.5), dense=7.0, **options)
        assert known.scores == (7.0, *again.scores[1:])


def pruned(sparsity):
    model = net()
    apply_masks(model, mask_family(model, (sparsity,)).masks(sparsity))
    return model


def test_patterns_and_layers_by_plans_and_any_other_way_to_prune():
    model = net()
    curve = sparsity_curve(model, zeros, [NM(3, 4), NM(2, 4)], plan=preset("asp"), higher_is_better=False)
    assert curve.scores == (0.0, 0.25, 0.5)
    uniform = preset("one-shot", distribution=Uniform())
    curve = sparsity_curve(model, lambda m: float((weight(m, 2) == 0).float().mean()), (0.5,), plan=uniform)
    assert curve.scores == (0.0, 0.5)
    curve = sparsity_curve(model, zeros, (0.0, 0.25, 0.5), prune=lambda m, s: prune(m, Unstructured(1 - s)))
    assert curve.scores == curve.sparsities == (0.0, 0.25, 0.5)
    assert zeros(model) == 0


def test_fine_tuning_sees_each_mask_and_must_keep_it():
    model, x = net(), torch.randn(16, 24, generator=torch.Generator().manual_seed(0))
    before = {k: v.clone() for k, v in model.state_dict().items()}
    lost = []

    def finetune(m, masks):
        lost.append(sum(int((~mask).sum()) for mask in masks.values()))
        assert all(torch.equal(m.get_parameter(n), torch.where(mask, before[n], 0)) for n, mask in masks.items())
        optimizer = torch.optim.SGD(m.parameters(), 0.01, momentum=0.9)
        sparsifier = Sparsifier(m, fixed_plan(masks), optimizer, total_steps=3)
        for _ in range(3):
            m(x).square().mean().backward()
            optimizer.step()
            optimizer.zero_grad()
        sparsifier.finalize()

    curve = sparsity_curve(model, lambda m: float(m(x).square().mean()), (0.5, 0.8), finetune=finetune,
                           higher_is_better=False)
    assert lost == [0, 800, 1280]
    assert len(set(curve.scores)) == 3
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())

    def careless(m, masks):
        with torch.no_grad():
            weight(m, 0).add_(1.0)

    with pytest.raises(ValueError, match=r"finetune revived pruned weights of 0\.weight"):
        sparsity_curve(model, zeros, (0.5,), finetune=careless)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_means_and_tables_and_pictures():
    other = SparsityCurve(CURVE.sparsities, tuple(v - 0.1 for v in CURVE.scores))
    mean = mean_curve([CURVE, other])
    assert mean.scores == pytest.approx([v - 0.05 for v in CURVE.scores])
    assert CURVE.table()[3] == {"sparsity": 0.4, "score": 0.885, "loss": pytest.approx(0.015)}
    assert CURVE.to_text().splitlines()[4].split() == ["40.0%", "0.885", "+0.015"]
    from matplotlib.figure import Figure

    ax = Figure().subplots()
    CURVE.plot(ax, label="x")
    assert list(ax.lines[0].get_xdata()) == [0, 10, 20, 40, 50]


@pytest.mark.public_door
def test_refusals_name_the_cause():
    for points, words in ((((0.0, 0.1), (1.0,)), "as many"), (((0.1,), (1.0,)), "begin at 0"),
                          (((0.0, 0.2, 0.1), (1.0, 1.0, 1.0)), "increase"),
                          (((0.0, 0.2), (1.0, math.nan)), r"score at sparsity 0\.2 is NaN")):
        with pytest.raises(ValueError, match=words):
            SparsityCurve(*points)
    with pytest.raises(ValueError, match="positive to have a logarithm"):
        SparsityCurve((0.0,), (-1.0,)).log()
    with pytest.raises(ValueError, match="eps"):
        CURVE.essential(-0.1)
    with pytest.raises(ValueError, match="same sparsities"):
        mean_curve([CURVE, PERPLEXITY])
    model = net()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    with pytest.raises(ValueError, match=r"evaluate gave NaN at sparsity 0\.5"):
        sparsity_curve(model, lambda m: math.nan if zeros(m) else 1.0, (0.5,))
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    with pytest.raises(ValueError, match="prune decides alone"):
        sparsity_curve(model, zeros, (0.5,), prune=lambda m, s: None, plan=preset("asp"))
    with pytest.raises(ValueError, match=r"sparsities must increase, got 0\.5, 0\.2"):
        sparsity_curve(model, zeros, (0.5, 0.2), prune=lambda m, s: None)
    with pytest.raises(TypeError, match="must be numbers where prune is given"):
        sparsity_curve(model, zeros, [NM(2, 4)], prune=lambda m, s: None)
