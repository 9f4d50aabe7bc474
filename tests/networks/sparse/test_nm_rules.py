"""N:M training (SR-STE, gradient flow): gradients are those of the stated objectives, steps those of the papers."""

import copy
import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.ao.pruning.sparsifier.weight_norm_sparsifier import WeightNormSparsifier

from sparsepriors.networks import Recipe, train_classifier
from sparsepriors.networks.sparse import SRSTE, STE, AtInit, Flow, Masked, Selector, Sparsifier, StructureDecay, preset
from sparsepriors.networks.sparse.rule import MaskedWeight, softened, zero_outside
from sparsepriors.priors import NM

SEEDS = st.integers(0, 999)
FACTORS = st.floats(0, 1)


def draw(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def net(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(8, 12), nn.Tanh(), nn.Linear(12, 3)).double()


def loss_of(weight, seed):
    """Some loss of a weight that is neither linear nor quadratic in it."""
    x, y = draw(5, weight.shape[1], seed=seed + 1), draw(5, weight.shape[0], seed=seed + 2)
    return (torch.tanh(x @ weight.T) - y).square().sum()


def ours(rule, beta, w, mask, seed):
    cell = MaskedWeight(mask, rule)
    cell.beta = beta
    w = w.clone().requires_grad_()
    loss_of(cell(w), seed).backward()
    return w.grad


def autograd_of(objective, w):
    w = w.clone().requires_grad_()
    objective(w).backward()
    return w.grad


@given(SEEDS, st.floats(-1, 1))
def test_srste_is_the_straight_through_gradient_of_a_loss_with_a_penalty_on_what_is_masked(seed, lam):
    w = draw(6, 8, seed=seed)
    mask = NM(2, 4).mask(w.abs())

    def objective(w):
        through = w + (torch.where(mask, w, 0) - w).detach()
        return loss_of(through, seed) + lam / 2 * w[~mask].square().sum()

    torch.testing.assert_close(ours(SRSTE(lam), 0.0, w, mask, seed), autograd_of(objective, w))
    torch.testing.assert_close(ours(SRSTE(0.0), 0.0, w, mask, seed), ours(STE(), 0.0, w, mask, seed))
    torch.testing.assert_close(ours(SRSTE(lam, decoupled=True), 0.0, w, mask, seed), ours(STE(), 0.0, w, mask, seed))


@given(SEEDS, FACTORS)
def test_flow_is_the_gradient_of_the_soft_mask_or_that_of_the_weight_used(seed, beta):
    w = draw(6, 8, seed=seed)
    mask = NM(1, 4).mask(w.abs())
    soft = mask + beta * (~mask).double()
    torch.testing.assert_close(ours(Flow(ste=False), beta, w, mask, seed),
                               autograd_of(lambda w: loss_of(w * soft, seed), w))
    used = autograd_of(lambda used: loss_of(used, seed), w * soft)
    torch.testing.assert_close(ours(Flow(ste=True), beta, w, mask, seed), used)


@given(st.sampled_from([torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.complex64]), SEEDS,
       st.sampled_from([0.0, 1.0, 0.3, 1e-4]))
def test_softened_is_where_to_the_bit(dtype, seed, beta):
    x = draw(6, 5, seed=seed).to(dtype).T
    if not dtype.is_complex:
        x[0, :4] = torch.tensor([-0.0, torch.inf, -torch.inf, torch.nan])
    mask = draw(5, 6, seed=seed + 1) > 0
    zeroed = x.clone()
    zero_outside(zeroed, mask)
    for found, expected in ((softened(x, mask, beta), torch.where(mask, x, beta * x if beta else 0)),
                            (zeroed, torch.where(mask, x, 0))):
        assert found.dtype == dtype
        parts = (torch.view_as_real(found), torch.view_as_real(expected)) if dtype.is_complex else (found, expected)
        assert torch.equal(*(p.isnan() for p in parts))
        assert torch.equal(*(p.nan_to_num() for p in parts))
        assert torch.equal(*(p.signbit() & ~p.isnan() for p in parts))


def test_gradients_of_gradients_pass_the_mask():
    """A penalty on the gradient needs the backward pass itself to be differentiated."""
    mask = NM(2, 4).mask(draw(4, 8).abs())
    for rule, beta in ((Masked(), 0.0), (Flow(ste=False), 0.3)):
        cell = MaskedWeight(mask, rule)
        cell.beta = beta
        w = draw(4, 8, seed=1).requires_grad_()
        through, = torch.autograd.grad(loss_of(cell(w), 2), w, create_graph=True)
        found, = torch.autograd.grad(through.square().sum(), w)
        soft = mask + beta * (~mask).double()
        plain = w.detach().clone().requires_grad_()
        first, = torch.autograd.grad(loss_of(plain * soft, 2), plain, create_graph=True)
        torch.testing.assert_close(found, torch.autograd.grad(first.square().sum(), plain)[0])


@pytest.mark.parametrize(("rule", "beta"), [(Masked(), 0.0), (Flow(ste=False), 0.0), (Flow(ste=False), 0.3)])
def test_chain_rule_gradients_agree_with_finite_differences(rule, beta):
    w = draw(4, 8, seed=3)
    mask = NM(2, 4).mask(w.abs())
    cell = MaskedWeight(mask, rule)
    cell.beta = beta
    assert torch.autograd.gradcheck(lambda w: loss_of(cell(w), 5), (w.requires_grad_(),))


def by_hand(model, steps, batches, mask_of, gradient, *, soft, rate, momentum, decay, after=None):
    """SGD on the two weights of `net`, written out: each step's mask is that of the weights it starts from."""
    weights = [p.detach().clone() for p in model.parameters()]
    velocity = [torch.zeros_like(w) for w in weights]
    for t in range(steps):
        x, y = batches[t]
        masks = [mask_of(w, t) if w.ndim == 2 else None for w in weights]
        used = [(w if m is None else torch.where(m, w, soft(t) * w)).requires_grad_()
                for w, m in zip([w.clone() for w in weights], masks, strict=True)]
        used = [u.detach().requires_grad_() for u in used]
        out = torch.tanh(x @ used[0].T + used[1]) @ used[2].T + used[3]
        (out - y).square().mean().backward()
        for i, (w, m) in enumerate(zip(weights, masks, strict=True)):
            g = used[i].grad if m is None else gradient(used[i].grad, w, m, t)
            velocity[i] = momentum * velocity[i] + g + decay * w
            w -= rate * velocity[i]
            if m is not None and after is not None:
                after(w, m)
    return weights


def train(model, plan, steps, batches, *, rate, momentum, decay):
    optimizer = torch.optim.SGD(model.parameters(), rate, momentum=momentum, weight_decay=decay)
    sparsifier = Sparsifier(model, plan, optimizer, total_steps=steps)
    for x, y in batches:
        optimizer.zero_grad()
        (model(x) - y).square().mean().backward()
        optimizer.step()
    return sparsifier


OPTIONS = {"rate": 0.3, "momentum": 0.9, "decay": 0.01}


@pytest.mark.parametrize(("name", "options", "gradient"), [
    ("ste", {}, lambda g, w, m, t: g),
    ("sr-ste", {"lam": 0.2}, lambda g, w, m, t: g + 0.2 * (~m) * w),
    ("sr-ste", {"lam": -0.1}, lambda g, w, m, t: g - 0.1 * (~m) * w),
])
def test_a_training_follows_the_published_update_through_momentum(name, options, gradient):
    model, steps = net(), 12
    batches = [(draw(16, 8, seed=t), draw(16, 3, seed=100 + t)) for t in range(steps)]
    expected = by_hand(model, steps, batches, lambda w, t: NM(2, 4).mask(w.abs()) if w.shape[1] % 4 == 0 else None,
                       gradient, soft=lambda t: 0.0, **OPTIONS)
    sparsifier = train(model, preset(name, n=2, m=4, **options), steps, batches, **OPTIONS)
    assert sparsifier.churn > 0.02   # masks did move, so the comparison says something
    for p, w in zip(model.parameters(), reordered(expected), strict=True):
        torch.testing.assert_close(p.detach(), w)


def reordered(weights):
    """In the order of a model with parametrizations, whose biases come before the weights."""
    w0, b0, w2, b2 = weights
    return [b0, w0, b2, w2]


@pytest.mark.parametrize("ste", [True, False])
@pytest.mark.parametrize("kind", ["linear", "exponential"])
def test_a_soft_mask_training_follows_the_published_update(kind, ste):
    model, steps, dense, end = net(1), 20, 0.2, 0.7
    batches = [(draw(16, 8, seed=t), draw(16, 3, seed=100 + t)) for t in range(steps)]

    def beta(t):
        done = (t - dense * steps) / ((end - dense) * steps)
        if done <= 0:
            return 1.0
        if done >= 1:
            return 0.0
        return 1 - done if kind == "linear" else math.exp(math.log(1e-4) * done)

    expected = by_hand(model, steps, batches, lambda w, t: NM(1, 4).mask(w.abs()),
                       lambda g, w, m, t: g if ste else torch.where(m, g, beta(t) * g), soft=beta, **OPTIONS)
    name = "mdgf-linear" if kind == "linear" else "mdgf-exp"
    train(model, preset(name, n=1, m=4, dense=dense, end=end, ste=ste), steps, batches, **OPTIONS)
    for p, w in zip(model.parameters(), reordered(expected), strict=True):
        torch.testing.assert_close(p.detach(), w)


def test_the_decoupled_pull_uses_the_mask_of_the_step_and_the_rate():
    model, steps = net(2), 6
    batches = [(draw(16, 8, seed=t), draw(16, 3, seed=100 + t)) for t in range(steps)]
    expected = by_hand(model, steps, batches, lambda w, t: NM(2, 4).mask(w.abs()), lambda g, w, m, t: g,
                       soft=lambda t: 0.0, **OPTIONS,
                       after=lambda w, m: w.copy_(torch.where(m, w, w * (1 - OPTIONS["rate"] * 0.5))))
    train(model, preset("sr-ste", lam=0.5, decoupled=True), steps, batches, **OPTIONS)
    for p, w in zip(model.parameters(), reordered(expected), strict=True):
        torch.testing.assert_close(p.detach(), w)


@given(st.integers(1, 400), FACTORS, st.floats(0, 0.9), st.sampled_from(["linear", "exponential"]))
def test_beta_falls_from_one_to_zero_between_start_and_end(total, share, start, decay):
    end = start + (1 - start) * max(share, 0.05)
    rule = Flow(decay, end=end, start=start)
    betas = [rule.beta(t, total) for t in range(total + 1)]
    assert betas[0] == 1.0
    assert betas[-1] == 0.0
    assert all(a >= b for a, b in zip(betas, betas[1:], strict=False))
    assert all(b == 1.0 for t, b in enumerate(betas) if t <= start * total)
    assert all((b == 0.0) == (t / total >= end) for t, b in enumerate(betas) if abs(t / total - end) > 1e-9)


def test_beta_of_a_straight_line_and_of_an_exponential():
    assert Flow("linear", end=0.8).beta(40, 100) == pytest.approx(0.5)
    assert Flow("exponential", end=0.8).beta(40, 100) == pytest.approx(1e-2)
    assert Flow("none").beta(0, 100) == 0.0


@pytest.mark.parametrize(("kind", "n", "m", "frames"), [
    ("stepwise", 1, 16, ["15:16", "8:16", "4:16", "2:16", "1:16"]), ("stepwise", 2, 4, ["3:4", "2:4"]),
    ("stepwise", 3, 12, ["11:12", "6:12", "3:12"]), ("geometric", 1, 8, ["8:64", "4:32", "2:16", "1:8"]),
    ("densify", 1, 4, ["1:32", "1:16", "1:8", "1:4"])])
def test_frames_are_the_published_ones(kind, n, m, frames):
    found = StructureDecay(kind).frames(NM(n, m, layout="flat"))
    assert [f"{p.n}:{p.m}" for p in found] == frames
    assert {p.layout for p in found} == {"flat"}
    assert found[-1] == NM(n, m, layout="flat")


def test_the_density_path_is_the_schedule_exactly():
    model, steps = nn.Sequential(nn.Linear(32, 16), nn.Tanh(), nn.Linear(16, 16)), 50
    optimizer = torch.optim.AdamW(model.parameters(), 0.01)
    plan = preset("sdgf-stepwise", n=1, m=16, dense=0.1, finetune=0.4)
    sparsifier = Sparsifier(model, plan, optimizer, total_steps=steps)
    kept = []
    for t in range(steps):
        kept.append(sum(int(m.sum()) for m in sparsifier.masks.values()) / (48 * 16))
        optimizer.zero_grad()
        model(torch.randn(4, 32, generator=torch.Generator().manual_seed(t))).square().mean().backward()
        optimizer.step()
    frames = [15 / 16, 8 / 16, 4 / 16, 2 / 16, 1 / 16]
    assert kept == [1.0] * 5 + [d for d in frames for _ in range(5)] + [1 / 16] * 20
    report = sparsifier.finalize()
    assert report.density == 1 / 16


def test_one_mask_serves_all_backward_passes_of_a_step_and_each_of_them_pulls():
    model, whole = net(4), net(4)
    x, y = draw(16, 8, seed=1), draw(16, 3, seed=2)
    for m, parts, lam in ((model, 4, 0.3), (whole, 1, 1.2)):
        optimizer = torch.optim.SGD(m.parameters(), 0.1)
        sparsifier = Sparsifier(m, preset("sr-ste", lam=lam), optimizer, total_steps=5)
        for _ in range(5):
            optimizer.zero_grad()
            for a, b in zip(x.chunk(parts), y.chunk(parts), strict=True):
                ((m(a) - b).square().mean() / parts).backward()
            optimizer.step()
        assert sparsifier.updates == 5
    for a, b in zip(model.parameters(), whole.parameters(), strict=True):
        torch.testing.assert_close(a, b)


def test_a_soft_network_is_not_called_sparse_and_a_hard_one_does_not_change_when_finalized():
    model, steps = net(5), 10
    batches = [(draw(16, 8, seed=t), draw(16, 3, seed=100 + t)) for t in range(steps)]
    plan = preset("mdgf-exp", n=2, m=4, end=0.8)
    early = copy.deepcopy(model)
    sparsifier = train(early, plan, steps, batches[:5], **OPTIONS)
    assert 0 < sparsifier.beta < 1
    with pytest.raises(RuntimeError, match=r"still soft after 5 of 10 steps \(beta = 0\.00"):
        sparsifier.finalize()
    sparsifier = train(model, plan, steps, batches, **OPTIONS)
    x = draw(7, 8)
    with torch.no_grad():
        before = model(x)
    report = sparsifier.finalize()
    with torch.no_grad():
        assert torch.equal(model(x), before)
    assert report.density == 0.5
    assert [type(layer) for layer in model] == [nn.Linear, nn.Tanh, nn.Linear]
    for name, weight in model.named_parameters():
        if name.endswith("weight"):
            assert ((weight.reshape(-1, 4) != 0).sum(1) <= 2).all()
            assert not torch.signbit(weight[weight == 0]).any()


@pytest.mark.public_door
@pytest.mark.parametrize(("plan", "message"), [
    (preset("sr-ste", n=2, m=16), r"0\.weight of shape \(12, 8\) cannot take NM\(.*rows of 8 entries"),
    (preset("sdgf-geometric", n=1, m=2), r"0\.weight of shape \(12, 8\) cannot take NM\(.*m=16"),
    (preset("sdgf-stepwise", n=3, m=8), "power of two above 1, got 3:8; legal for m = 8: 4:8, 2:8, 1:8"),
    (replace(preset("sdgf-stepwise"), pattern=NM(2, 12)), "got 2:12; legal for m = 12: 6:12, 3:12"),
    (replace(preset("sdgf-stepwise"), pattern=NM(4, 4)), "got 4:4; legal for m = 4: 2:4, 1:4"),
])
def test_a_layer_or_pattern_that_does_not_fit_is_named(plan, message):
    model = net()
    with pytest.raises(ValueError, match=message):
        Sparsifier(model, plan, torch.optim.SGD(model.parameters(), 0.1), total_steps=10)
    assert type(model[0]) is nn.Linear


@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("name", ["sr-ste", "gmp-nm"])
def test_groups_of_a_grouped_convolution_run_along_its_own_channels(name, groups):
    model = nn.Sequential(nn.Conv2d(16, 8, 3, groups=groups), nn.Flatten(), nn.Linear(72, 3))
    x = draw(4, 16, 5, 5).float()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    sparsifier = Sparsifier(model, preset(name, every=1, where=Selector(only=("0",))), optimizer, total_steps=4)
    for _ in range(4):
        optimizer.zero_grad()
        model(x).square().mean().backward()
        optimizer.step()
    mask = sparsifier.finalize().masks["0.weight"]
    assert mask.shape == (8, 16 // groups, 3, 3)
    # Every filter and every place of its kernel: two of each four input channels that lie side by side.
    assert (mask.movedim(1, -1).reshape(-1, 4).sum(1) == 2).all()


@pytest.mark.public_door
@pytest.mark.parametrize("groups", [4, 8])
def test_grouped_convolutions_whose_channels_do_not_divide_are_refused_by_name(groups):
    model = nn.Sequential(nn.Conv2d(8, 8, 3, groups=groups))
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with pytest.raises(ValueError, match=rf"0\.weight of shape .*rows of {72 // groups} entries cannot be cut"):
        Sparsifier(model, preset("sr-ste"), optimizer, total_steps=4)
    assert type(model[0]) is nn.Conv2d
    assert not optimizer._optimizer_step_pre_hooks


@pytest.mark.public_door
@pytest.mark.parametrize(("make", "message"), [
    (lambda: SRSTE(math.inf), "lam must be a finite number, got inf"),
    (lambda: Flow("cubic"), "decay must be one of"),
    (lambda: Flow(start=0.5, end=0.5), "increasing shares"),
    (lambda: StructureDecay(dense=0.5, finetune=0.5), "below 1 together"),
])
def test_rules_refuse_what_they_cannot_do(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("name", ["ste", "sr-ste", "asp", "mdgf-linear", "mdgf-exp", "sdgf-stepwise"])
@pytest.mark.parametrize("layout", ["rows", "flat"])
def test_every_recipe_ends_in_its_pattern(name, layout, generator):
    plan = replace(preset(name, n=1, m=4), pattern=NM(1, 4, layout=layout))
    x, y = torch.randn(64, 8, generator=generator), torch.randint(3, (64,), generator=generator)
    model = net().float()
    report = train_classifier(model, (x, y), Recipe(epochs=5, batch=16), generator=generator, plan=plan).report
    assert report is not None
    assert report.density == 0.25
    for name, weight in model.named_parameters():
        assert name.endswith("bias") or plan.pattern.value(weight.detach()) == 0


def test_the_one_shot_mask_is_that_of_torch():
    torch.manual_seed(3)
    model = nn.Sequential(nn.Linear(32, 16), nn.Linear(16, 4))
    peer = copy.deepcopy(model)
    sparsifier = WeightNormSparsifier(sparsity_level=1.0, sparse_block_shape=(1, 4), zeros_per_block=2)
    sparsifier.prepare(peer, [{"tensor_fqn": "0.weight"}, {"tensor_fqn": "1.weight"}])
    sparsifier.step()
    plan = replace(preset("asp"), schedule=AtInit())
    ours = Sparsifier(model, plan, torch.optim.SGD(model.parameters(), 0.1), total_steps=10).masks
    theirs = {f"{name.split('.')[0]}.weight": b.bool() for name, b in peer.named_buffers() if name.endswith("mask")}
    assert ours.keys() == theirs.keys()
    for name, mask in ours.items():
        assert torch.equal(mask, theirs[name])


@pytest.mark.parametrize(("n", "m"), [(2, 4), (1, 8)])
@pytest.mark.parametrize("every", [1, 3])
def test_gradual_pruning_towards_nm_follows_its_curve_and_keeps_n_of_every_group(n, m, every):
    model, steps, start, end = net(2), 24, 0.125, 0.75
    batches = [(draw(16, 8, seed=t), draw(16, 3, seed=100 + t)) for t in range(steps)]
    optimizer = torch.optim.SGD(model.parameters(), 0.3, momentum=0.9)
    plan = preset("gmp-nm", n=n, m=m, every=every, start=start, end=end, skip_unfit=True)
    sparsifier = Sparsifier(model, plan, optimizer, total_steps=steps)
    assert sparsifier.density == 1
    old, left = {k: v.clone() for k, v in sparsifier.masks.items()}, 1.0
    for step, (x, y) in enumerate(batches, start=1):
        optimizer.zero_grad()
        (model(x) - y).square().mean().backward()
        optimizer.step()
        if step == 18:
            left = n / m
        elif 3 <= step < 18 and step % every == 0:
            left = n / m + (1 - n / m) * (1 - (step - 3) / 15) ** 3
        for name, mask in sparsifier.masks.items():
            assert int(mask.sum()) == max(mask.numel() * n // m, round(mask.numel() * left)), step
            assert (mask.reshape(-1, m).sum(1) >= n).all()
            assert (mask <= old[name]).all()
            assert not sparsifier._parameters[name].detach()[~mask].any()
            old[name] = mask.clone()
    report = sparsifier.finalize()
    assert report.density == n / m
    assert NM(n, m).value(dict(model.named_parameters())["0.weight"].detach()) == 0
