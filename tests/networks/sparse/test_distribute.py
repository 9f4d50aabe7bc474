import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sparsepriors.networks.sparse import ERK, Bernoulli, Custom, Global, Shuffled, Uniform, UniformPlus
from sparsepriors.priors.patterns import NM, Channel, Unstructured

shapes = st.dictionaries(
    st.text("abc", min_size=1, max_size=3),
    st.one_of(st.tuples(st.integers(1, 40), st.integers(1, 40)),
              st.tuples(st.integers(1, 20), st.integers(1, 20), st.integers(1, 5), st.integers(1, 5))),
    min_size=1, max_size=6)


@given(shapes, st.floats(0.01, 1.0), st.sampled_from((0.5, 1.0, 2.0)))
def test_erk_meets_the_total_exactly(layers, density, power):
    found = ERK(power).densities(layers, density)
    sizes = {n: math.prod(s) for n, s in layers.items()}
    assert all(0 < d <= 1 for d in found.values())
    kept = sum(found[n] * sizes[n] for n in layers)
    assert kept == pytest.approx(density * sum(sizes.values()), rel=1e-9)


def test_erk_without_kernels_is_the_erdos_renyi_rule():
    found = ERK().densities({"a": (100, 200), "b": (400, 300)}, 0.05)
    assert found["a"] / found["b"] == pytest.approx((300 / 20000) / (700 / 120000))


def resnet50():
    """Weight shapes of ResNet-50 (stride in the 3x3) and the places where each is applied, at 224 pixels."""
    layers = {"conv1": ((64, 3, 7, 7), 112**2)}
    inputs, side = 64, 56
    for stage, (width, blocks) in enumerate(zip((64, 128, 256, 512), (3, 4, 6, 3), strict=True)):
        for b in range(blocks):
            before = side
            side = side // 2 if stage > 0 and b == 0 else side
            name = f"layer{stage + 1}.{b}"
            layers[f"{name}.conv1"] = ((width, inputs, 1, 1), before**2)
            layers[f"{name}.conv2"] = ((width, width, 3, 3), side**2)
            layers[f"{name}.conv3"] = ((4 * width, width, 1, 1), side**2)
            if b == 0:
                layers[f"{name}.downsample"] = ((4 * width, inputs, 1, 1), side**2)
            inputs = 4 * width
    return {**layers, "fc": ((1000, 2048), 1)}


@pytest.mark.parametrize(("sparsity", "published", "exact"), [
    (0.8, 0.42, 0.4138), (0.9, 0.24, 0.2418), (0.95, 0.12, 0.1217)])
def test_erk_leaves_the_published_share_of_resnet50(sparsity, published, exact):
    layers = resnet50()
    assert sum(math.prod(s) for s, _ in layers.values()) == 25_502_912
    found = ERK().densities({n: s for n, (s, _) in layers.items()}, 1 - sparsity)
    macs = {n: math.prod(s) * places for n, (s, places) in layers.items()}
    share = sum(found[n] * macs[n] for n in layers) / sum(macs.values())
    assert share == pytest.approx(exact, abs=6e-5)
    assert share == pytest.approx(published, abs=0.01)


@given(st.lists(st.tuples(st.integers(1, 8), st.integers(1, 8)), min_size=1, max_size=5), st.floats(0.05, 1.0),
       st.integers(0, 99))
def test_global_keeps_the_exact_count_of_the_best(sizes, density, seed):
    generator = torch.Generator().manual_seed(seed)
    scores = {str(i): torch.randint(0, 5, s, generator=generator).float() for i, s in enumerate(sizes)}
    masks = Global().masks(Unstructured(density), scores)
    total = sum(s.numel() for s in scores.values())
    assert sum(int(m.sum()) for m in masks.values()) == max(1, round(total * density))
    kept = torch.cat([scores[n][m] for n, m in masks.items()])
    dropped = torch.cat([scores[n][~m] for n, m in masks.items()])
    assert dropped.numel() == 0 or kept.min() >= dropped.max()


def test_erk_spreads_any_pattern_that_has_a_density():
    scores = {"a": torch.rand(64, 32), "b": torch.rand(16, 8)}
    masks = ERK().masks(Channel(0.5), scores)
    kept = {n: int(m.any(dim=1).sum()) for n, m in masks.items()}
    each = ERK().densities({"a": (64, 32), "b": (16, 8)}, 0.5)
    assert kept == {"a": round(64 * each["a"]), "b": round(16 * each["b"])}
    assert kept["b"] / 16 > kept["a"] / 64


def test_uniform_is_the_pattern_in_every_layer():
    scores = {"a": torch.rand(8, 12), "b": torch.rand(4, 16, 1, 1)}
    for pattern in (Unstructured(0.3), NM(2, 4)):
        masks = Uniform().masks(pattern, scores)
        assert all(torch.equal(masks[n], pattern.mask(s)) for n, s in scores.items())


@given(st.integers(2, 5), st.floats(0.05, 0.95))
def test_layers_that_tie_at_the_maximum_become_dense_together(copies, density):
    layers = {f"thin{i}": (2, 3) for i in range(copies)} | {"wide": (90, 110)}
    found = ERK().densities(layers, density)
    thin = {found[f"thin{i}"] for i in range(copies)}
    assert len(thin) == 1
    assert found["wide"] <= thin.pop()


def test_er_ignores_the_kernel_and_erk_does_not_care_about_the_order_of_axes():
    torch_order, jax_order = {"a": (64, 32, 3, 3), "b": (128, 64, 1, 1)}, {"a": (3, 3, 32, 64), "b": (1, 1, 64, 128)}
    assert ERK().densities(torch_order, 0.05) == ERK().densities(jax_order, 0.05)
    er = ERK(kernel=False).densities(torch_order, 0.05)
    assert er["a"] / er["b"] == pytest.approx((96 / 2048) / (192 / 8192))


def test_erk_plus_fixes_the_last_layer_and_meets_the_total():
    layers = {"conv": (64, 16, 3, 3), "mid": (128, 64, 3, 3), "fc": (10, 128)}
    found = ERK(last=1.0).densities(layers, 0.2)
    assert found["fc"] == 1.0
    sizes = {n: math.prod(s) for n, s in layers.items()}
    assert sum(found[n] * sizes[n] for n in layers) == pytest.approx(0.2 * sum(sizes.values()))
    alone = ERK().densities({n: layers[n] for n in ("conv", "mid")},
                            (0.2 * sum(sizes.values()) - 1280) / (sizes["conv"] + sizes["mid"]))
    assert {n: found[n] for n in alone} == pytest.approx(alone)


@pytest.mark.parametrize(("density", "last"), [(0.1, 0.2), (0.5, None)])
def test_uniform_plus_keeps_the_total_that_was_asked(density, last):
    layers = {"first": (4, 3, 3, 3), "a": (64, 64), "b": (64, 32), "last": (10, 64)}
    found = UniformPlus().densities(layers, density)
    sizes = {n: math.prod(s) for n, s in layers.items()}
    assert found["first"] == 1.0
    assert found["a"] == found["b"]
    assert found["last"] == (found["a"] if last is None else last)
    assert sum(found[n] * sizes[n] for n in layers) == pytest.approx(density * sum(sizes.values()))


@given(st.integers(0, 99), st.floats(0.05, 0.9))
def test_a_ratio_keeps_each_layer_s_count_and_moves_its_positions(seed, density):
    generator = torch.Generator().manual_seed(seed)
    scores = {"a": torch.rand(20, 30, generator=generator), "b": 3 * torch.rand(10, 20, generator=generator)}
    chosen = Global().masks(Unstructured(density), scores)
    moved = Shuffled(Global()).masks(Unstructured(density), scores, generator=generator)
    again = Shuffled(Global()).masks(Unstructured(density), scores, generator=generator)
    assert {n: int(m.sum()) for n, m in moved.items()} == {n: int(m.sum()) for n, m in chosen.items()}
    assert any(not torch.equal(moved[n], chosen[n]) for n in moved)
    assert any(not torch.equal(moved[n], again[n]) for n in moved)


def test_bernoulli_masks_have_binomial_counts():
    generator = torch.Generator().manual_seed(0)
    scores = {"a": torch.zeros(40, 50), "b": torch.zeros(20, 20)}
    exact = {n: int(m.sum()) for n, m in ERK().masks(Unstructured(0.2), scores).items()}
    counts = {n: [] for n in scores}
    for _ in range(400):
        for name, mask in Bernoulli(ERK()).masks(Unstructured(0.2), scores, generator=generator).items():
            counts[name].append(int(mask.sum()))
    for name, found in counts.items():
        size, mean = scores[name].numel(), sum(found) / 400
        deviation = math.sqrt(exact[name] * (1 - exact[name] / size))
        assert mean == pytest.approx(exact[name], abs=4 * deviation / 20)
        assert torch.tensor(found, dtype=torch.float64).std() == pytest.approx(deviation, rel=0.2)


@pytest.mark.public_door
@pytest.mark.parametrize("kind", [Bernoulli, Shuffled])
def test_what_draws_needs_a_generator(kind):
    with pytest.raises(ValueError, match="needs a generator"):
        kind().masks(Unstructured(0.5), {"a": torch.rand(2, 2)})


@pytest.mark.public_door
@pytest.mark.parametrize(("distribution", "pattern", "error", "message"), [
    (Custom((("2.wieght", 0.5),)), Unstructured(0.5), KeyError, "'2.wieght'; near: 2.weight, 0.weight"),
    (UniformPlus(), Unstructured(0.3), ValueError, "keep 64 weights"), (ERK(), NM(2, 4), TypeError, "NM"),
    (Global(), NM(2, 4), TypeError, "takes Unstructured patterns"),
    (Shuffled(Global()), NM(2, 4), TypeError, "takes Unstructured patterns"),
    (Bernoulli(ERK(last=1.0)), Unstructured(0.1), ValueError, "keep 32 weights")])
def test_what_cannot_be_kept_is_said_before_there_are_scores(distribution, pattern, error, message):
    shapes = {"0.weight": (8, 8), "2.weight": (4, 8)}
    with pytest.raises(error, match=message):
        distribution.check(pattern, shapes)
    with pytest.raises(error, match=message):
        distribution.masks(pattern, {n: torch.rand(s) for n, s in shapes.items()}, generator=torch.Generator())
    Uniform().check(NM(2, 4), shapes)


@pytest.mark.public_door
def test_bad_input_is_refused():
    scores = {"a": torch.rand(8, 12)}
    with pytest.raises(TypeError, match="NM"):
        Global().masks(NM(2, 4), scores)
    with pytest.raises(TypeError, match="NM"):
        ERK().masks(NM(2, 4), scores)
    with pytest.raises(FloatingPointError, match="the score of a holds NaN"):
        Uniform().masks(Unstructured(0.5), {"a": torch.full((2, 2), float("nan"))})
    with pytest.raises(ValueError, match=r"a of shape \(8, 10\) .*4"):
        Uniform().masks(NM(2, 4), {"a": torch.rand(8, 10)})
    with pytest.raises(TypeError, match="one dtype"):
        Global().masks(Unstructured(0.5), {"a": torch.rand(2, 2), "b": torch.rand(2, 2, dtype=torch.float64)})
    for density in (0.0, 1.5, -1.0, float("nan")):
        with pytest.raises(ValueError, match="density"):
            ERK().densities({"a": (2, 2)}, density)
    with pytest.raises(ValueError, match="shapes"):
        ERK().densities({}, 0.5)
    with pytest.raises(ValueError, match="power"):
        ERK(-1.0)
