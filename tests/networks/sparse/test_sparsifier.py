"""What holds for every plan while it runs, and what is left when it ends."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from sparse_nets import (
    DENSITY_PRESETS,
    NETS,
    NM_PRESETS,
    STEPS,
    batch,
    gradients,
    network,
    optimizer_of,
    plan_of,
    sparsifier_of,
    train,
)
from sparsepriors.networks.sparse import (
    ERK,
    PRESETS,
    SRSTE,
    AtInit,
    Custom,
    EveryStep,
    Global,
    GradientScore,
    MagnitudeScore,
    Masked,
    OneShot,
    Periodic,
    Probe,
    RandomScore,
    SaliencyScore,
    ScoreFunction,
    Selector,
    Shuffled,
    SparsePlan,
    Sparsifier,
    UnfiredScore,
    UniformPlus,
    preset,
    sad,
)
from sparsepriors.networks.sparse.moves import dropped
from sparsepriors.priors.patterns import NM, Block, Unstructured, kept


def negative_zeros(x):
    return bool(((x == 0) & torch.signbit(x)).any())


def used(sparsifier):
    """Weights that the layers use, by parameter name."""
    found = {}
    for name in sparsifier.masks:
        weight = sparsifier.model.get_submodule(name.removesuffix(".weight")).weight
        assert isinstance(weight, torch.Tensor)
        found[name] = weight.detach()
    return found


@settings(max_examples=30)
@given(st.sampled_from(sorted(PRESETS)), st.sampled_from(sorted(NETS)), st.sampled_from(("sgd", "adamw")),
       st.sampled_from((1, 2)), st.floats(0.05, 0.9), st.integers(0, 9), st.booleans())
def test_every_step_of_every_preset_keeps_the_invariants(name, net, kind, accumulate, density, seed, ties):
    model = network(net, seed)
    if ties:   # every score that does not draw begins with equal values
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.fill_(0.1)
    optimizer = optimizer_of(model, kind)
    plan = plan_of(name, density)
    sparsifier = sparsifier_of(model, plan, optimizer, seed=seed)
    total = sum(m.numel() for m in sparsifier.masks.values())
    old, moved = {n: m.clone() for n, m in sparsifier.masks.items()}, 0
    for step in range(STEPS):
        train(sparsifier, step, step + 1, accumulate)
        event = plan.schedule.event(step + 1, STEPS, plan.pattern)
        for layer, mask in sparsifier.masks.items():
            assert mask.dtype == torch.bool
            weight, stored = used(sparsifier)[layer], sparsifier._parameters[layer]
            if not plan.rule.keeps_pruned:
                assert bool((stored[~mask] == 0).all())
                assert not negative_zeros(stored[~mask])
                for value in optimizer.state[stored].values():
                    if value.shape == stored.shape:
                        assert bool((value[~mask] == 0).all())
                        if event is not None:
                            assert bool((value[mask & ~old[layer]] == 0).all()), "memory of a newly grown weight"
            if sparsifier.beta == 0:
                assert bool((weight[~mask] == 0).all())
                assert not negative_zeros(weight[~mask])
            if isinstance(plan.pattern, NM) and event is not None and event.prune is not None:
                assert torch.equal(mask, event.prune.mask(stored.detach().abs()))
            if event is None:
                assert torch.equal(mask, old[layer])
        count = sum(int(m.sum()) for m in sparsifier.masks.values())
        if name in DENSITY_PRESETS and event is not None and event.prune is not None:
            want = event.prune.density * total   # pyright: ignore[reportAttributeAccessIssue]
            assert abs(count - want) <= (0.5 if "Global" in str(plan.distribution) else len(sparsifier.masks))
        if event is not None and event.move:
            assert all(int(m.sum()) == int(old[n].sum()) for n, m in sparsifier.masks.items()) or plan.redistribute
            assert count == sum(int(m.sum()) for m in old.values())
        moved += sad(old, sparsifier.masks)
        old = {n: m.clone() for n, m in sparsifier.masks.items()}
        assert all(bool((old[n] <= sparsifier.fired[n]).all()) for n in old)
        assert all(bool((sparsifier.always[n] <= old[n]).all()) for n in old)
    assert sparsifier.churn == pytest.approx(moved / total)
    report = sparsifier.finalize()
    assert report.churn == pytest.approx(moved / total)
    assert all(torch.equal(report.masks[n], old[n]) for n in old)
    assert report.always <= report.density <= report.fired


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_finalize_leaves_a_plain_module_of_equal_outputs(name, tmp_path):
    model = network("residual")
    reference = network("residual")
    sparsifier = sparsifier_of(model, plan_of(name), optimizer_of(model))
    train(sparsifier)
    model.eval()
    x, _ = batch(50)
    with torch.no_grad():
        before = model(x)
        report = sparsifier.finalize()
        assert torch.equal(model(x), before)
    assert [type(m) for m in model.modules()] == [type(m) for m in reference.modules()]
    assert list(model.state_dict()) == list(reference.state_dict())
    assert [n for n, _ in model.named_parameters()] == [n for n, _ in reference.named_parameters()]
    weights = dict(model.named_parameters())
    for layer, mask in report.masks.items():
        assert bool((weights[layer][~mask] == 0).all())
        assert not negative_zeros(weights[layer][~mask])
    torch.save(model, tmp_path / "whole.pt")
    reference.load_state_dict(model.state_dict())
    with torch.no_grad():
        assert torch.equal(reference.eval()(x), before)
    with pytest.raises(RuntimeError, match="was finalized"):
        sparsifier.finalize()
    with pytest.raises(RuntimeError, match="was finalized"):
        sparsifier.state_dict()


def test_a_finalized_optimizer_is_free_of_the_plan():
    model = network("mlp")
    optimizer = optimizer_of(model)
    sparsifier = sparsifier_of(model, plan_of("rigl"), optimizer)
    train(sparsifier)
    sparsifier.finalize()
    train_dense = [p.clone() for p in model.parameters()]
    gradients(model, optimizer, 99)
    optimizer.step()
    assert all(bool((a != b).any()) for a, b in zip(train_dense, model.parameters(), strict=True))
    assert int((dict(model.named_parameters())["1.weight"] == 0).sum()) == 0


@pytest.mark.parametrize("name", ["rigl", "sr-ste", "gmp", "itop", "random"])
def test_the_same_seed_gives_the_same_bits(name):
    def weights():
        model = network("residual")
        sparsifier = sparsifier_of(model, plan_of(name), optimizer_of(model))
        torch.manual_seed(torch.seed() % 2**31)   # torch's own generator has no say
        train(sparsifier)
        sparsifier.finalize()
        return model.state_dict()

    first, second = weights(), weights()
    assert all(torch.equal(first[k], second[k]) for k in first)


def test_accumulated_gradients_move_masks_as_one_batch_does():
    found = []
    for parts in (1, 2, 4):
        model = network("mlp").double()
        sparsifier = Sparsifier(model, plan_of("rigl"), optimizer_of(model), total_steps=STEPS,
                                generator=torch.Generator().manual_seed(0))
        for step in range(STEPS):
            sparsifier.optimizer.zero_grad()
            x, y = batch(step)
            for rows, labels in zip(x.double().chunk(parts), y.chunk(parts), strict=True):
                (nn.functional.cross_entropy(model(rows), labels) / parts).backward()
            sparsifier.optimizer.step()
        found.append({n: m.clone() for n, m in sparsifier.masks.items()})
    assert sad(found[0], found[1]) == sad(found[0], found[2]) == 0


def test_rigl_grows_the_largest_gradients_and_does_not_step_on_that_step():
    model = network("mlp")
    optimizer = optimizer_of(model)
    sparsifier = sparsifier_of(model, plan_of("rigl"), optimizer)
    train(sparsifier, 0, 2)
    gradients(model, optimizer, 2)
    dense = {n: c.gradient.clone() for n, c in sparsifier._cells.items() if c.gradient is not None}
    assert dense.keys() == sparsifier.masks.keys()
    old = {n: m.clone() for n, m in sparsifier.masks.items()}
    before = {n: p.detach().clone() for n, p in sparsifier._parameters.items()}
    biases = {n: p.detach().clone() for n, p in model.named_parameters() if n.endswith("bias")}
    optimizer.step()
    fraction = sparsifier.plan.schedule.event(3, STEPS, sparsifier.plan.pattern)
    assert fraction is not None
    for n, mask in sparsifier.masks.items():
        count = dropped(int(old[n].sum()), fraction.move)
        weakest = before[n].abs()[old[n]].sort().values[:count]
        gone, new = old[n] & ~mask, mask & ~old[n]
        assert int(new.sum()) == int(gone.sum()) <= count
        assert bool((before[n].abs()[gone] <= weakest[-1]).all())
        assert bool(mask.all()) or bool((dense[n].abs()[new] >= dense[n].abs()[~mask].max()).all())
        assert bool((sparsifier._parameters[n][new] == 0).all())
        assert torch.equal(sparsifier._parameters[n][mask & old[n]], before[n][mask & old[n]]), "the step was not done"
    assert sad(old, sparsifier.masks) > 0
    assert all(torch.equal(p, biases[n]) for n, p in model.named_parameters() if n in biases)
    gradients(model, optimizer, 3)
    optimizer.step()
    assert any(not torch.equal(p, biases[n]) for n, p in model.named_parameters() if n in biases)


def test_without_skip_the_optimizer_steps_before_masks_move():
    model = network("mlp")
    optimizer = optimizer_of(model)
    sparsifier = sparsifier_of(model, preset("rigl", density=0.3, every=3, skip_update=False), optimizer)
    train(sparsifier, 0, 2)
    bias = model.get_parameter("1.bias").detach().clone()
    train(sparsifier, 2, 3)
    assert not torch.equal(model.get_parameter("1.bias"), bias)


def test_forbidden_regrowth_grows_nothing_that_was_just_dropped():
    plan = SparsePlan(Unstructured(0.5), ERK(), grow=GradientScore(), schedule=Periodic(2, fraction=0.9),
                      forbid_regrow=True)
    model = network("mlp")
    sparsifier = sparsifier_of(model, plan, optimizer_of(model))
    for step in range(0, STEPS, 2):
        old = {n: m.clone() for n, m in sparsifier.masks.items()}
        train(sparsifier, step, step + 2)
        event = plan.schedule.event(step + 2, STEPS, plan.pattern)
        if event is not None:
            for n, mask in sparsifier.masks.items():
                room = mask.numel() - int(old[n].sum())
                assert int((old[n] & ~mask).sum()) == min(dropped(int(old[n].sum()), event.move), room)


def test_set_with_random_growth_explores_what_itop_explores_faster():
    shares = {}
    for name, grow in (("set", RandomScore()), ("itop", UnfiredScore())):
        model = network("mlp")
        plan = SparsePlan(Unstructured(0.2), ERK(), grow=grow, schedule=Periodic(2, fraction=0.5))
        sparsifier = sparsifier_of(model, plan, optimizer_of(model))
        train(sparsifier)
        shares[name] = sparsifier.finalize().fired
    assert 0.2 < shares["set"] < shares["itop"]


def test_gradual_pruning_follows_its_curve_and_revives_nothing():
    model = network("mlp")
    plan = preset("gmp", density=0.1, every=2, start=0.0, end=0.75)
    sparsifier = sparsifier_of(model, plan, optimizer_of(model), steps=24)
    total = sum(m.numel() for m in sparsifier.masks.values())
    old = {n: m.clone() for n, m in sparsifier.masks.items()}
    for step in range(24):
        train(sparsifier, step, step + 1)
        done = min(1.0, (step + 1) // 2 * 2 / 18)
        density = 1 - 0.9 * (1 - (1 - done) ** 3)
        assert sum(int(m.sum()) for m in sparsifier.masks.values()) == kept(total, density)
        assert all(bool((m <= old[n]).all()) for n, m in sparsifier.masks.items())
        old = {n: m.clone() for n, m in sparsifier.masks.items()}


@pytest.mark.parametrize("rewind", [0.0, 0.5])
def test_rounds_rewind_to_the_same_bits(rewind):
    model = network("residual")
    plan = preset("imp", density=0.25, rounds=3, rewind=rewind)
    sparsifier = sparsifier_of(model, plan, optimizer_of(model))
    at = round(rewind * 4)
    train(sparsifier, 0, at)
    early = {n: t.detach().clone() for n, t in [*model.named_parameters(), *model.named_buffers()]}
    train(sparsifier, at, 4)
    trained = {n: p.detach().clone() for n, p in sparsifier._parameters.items()}
    whole = torch.cat([trained[n].abs().flatten() for n in trained])
    best = Unstructured(0.5).mask(whole).split([t.numel() for t in trained.values()])
    for (n, mask), want in zip(sparsifier.masks.items(), best, strict=True):
        assert torch.equal(mask.flatten(), want), "the largest weights before the rewind are kept"
        layer = n.removesuffix(".weight")
        old = early[f"{layer}.parametrizations.weight.original"]
        assert torch.equal(sparsifier._parameters[n], torch.where(mask, old, 0))
    here = dict([*model.named_parameters(), *model.named_buffers()])
    assert all(torch.equal(here[n], t) for n, t in early.items() if "parametrizations" not in n)
    assert all(bool((v == 0).all()) for s in sparsifier.optimizer.state.values() for v in s.values())
    train(sparsifier, 4, STEPS)
    assert sparsifier.density == pytest.approx(0.25, abs=2e-3)


def test_dense_and_sparse_phases_take_turns():
    model = network("mlp")
    plan = preset("ac-dc", density=0.2, warmup=0.25, phase=0.125, finish=0.25)
    sparsifier = sparsifier_of(model, plan, optimizer_of(model), steps=16)
    seen = []
    for step in range(16):
        train(sparsifier, step, step + 1)
        seen.append(round(sparsifier.density, 2))
    assert seen == [1, 1, 1, .2, .2, 1, 1, .2, .2, 1, 1, .2, .2, .2, .2, .2]


def test_a_copy_of_an_attached_model_is_a_model_of_its_own():
    model = network("residual")
    sparsifier = sparsifier_of(model, plan_of("rigl"), optimizer_of(model))
    train(sparsifier, 0, 4)
    twin = copy.deepcopy(model)
    x, _ = batch(60)
    model.eval()
    twin.eval()
    before = twin(x).detach()
    assert torch.equal(before, model(x))
    model.train()
    train(sparsifier, 4, STEPS)
    assert torch.equal(twin(x), before)


def test_a_shared_weight_has_one_mask():
    first, second = nn.Linear(8, 8), nn.Linear(8, 8)
    second.weight = first.weight
    model = nn.Sequential(first, nn.ReLU(), second)
    optimizer = optimizer_of(model)
    sparsifier = Sparsifier(model, preset("rigl", density=0.25, every=2), optimizer, total_steps=8,
                            generator=torch.Generator().manual_seed(0), example=torch.zeros(1, 8))
    assert list(sparsifier.masks) == ["0.weight"]
    assert sparsifier.cost is not None
    assert sparsifier.cost.forward() == 2 * 64
    for step in range(8):
        optimizer.zero_grad()
        model(torch.randn(4, 8, generator=torch.Generator().manual_seed(step))).square().sum().backward()
        optimizer.step()
    report = sparsifier.finalize()
    assert first.weight is second.weight
    assert int(torch.count_nonzero(first.weight)) <= int(report.masks["0.weight"].sum()) == 16
    assert any("masked once" in note for note in report.notes)


def test_a_closure_is_watched():
    """Some trainers compute the gradients inside the optimizer's step."""
    found = []
    for closed in (False, True):
        model = network("mlp")
        optimizer = optimizer_of(model)
        sparsifier = sparsifier_of(model, plan_of("rigl"), optimizer)
        for step in range(STEPS):
            def closure(model=model, optimizer=optimizer, step=step):
                gradients(model, optimizer, step)
                return torch.tensor(0.0)

            if closed:
                optimizer.step(closure)   # pyright: ignore[reportCallIssue, reportArgumentType]
            else:
                closure()
                optimizer.step()
        sparsifier.finalize()
        found.append(model.state_dict())
    assert all(torch.equal(v, found[1][k]) for k, v in found[0].items())


def test_gradients_of_a_step_that_was_called_off_are_forgotten():
    """As a gradient scaler does on overflow: no step, fresh gradients."""
    model = network("mlp")
    optimizer = optimizer_of(model)
    sparsifier = sparsifier_of(model, plan_of("rigl"), optimizer)
    train(sparsifier, 0, 2)
    optimizer.zero_grad()
    (model(batch(2)[0]).sum() * torch.inf).backward()
    train(sparsifier, 2, STEPS)
    twin = network("mlp")
    straight = sparsifier_of(twin, plan_of("rigl"), optimizer_of(twin))
    train(straight)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), twin.parameters(), strict=True))


def test_a_gradient_scaler_steps_the_plan():
    model = network("mlp")
    optimizer = optimizer_of(model)
    sparsifier = sparsifier_of(model, plan_of("rigl"), optimizer)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**127, growth_interval=10**6)   # overflows, then backs off
    steps = 0
    while sparsifier.step_count < STEPS:
        optimizer.zero_grad()
        x, y = batch(steps)
        scaler.scale(4 * nn.functional.cross_entropy(model(x), y)).backward()
        scaler.step(optimizer)
        scaler.update()
        steps += 1
    assert steps > STEPS
    assert sparsifier.finalize().density == pytest.approx(0.3, abs=5e-3)
    assert all(bool(torch.isfinite(p).all()) for p in model.parameters())


def test_equal_scores_are_counted_exactly():
    model = nn.Linear(10, 10)
    nn.init.ones_(model.weight)
    plan = SparsePlan(Unstructured(0.37), init=MagnitudeScore(), schedule=AtInit())
    sparsifier = Sparsifier(model, plan, optimizer_of(model), total_steps=1)
    mask = sparsifier.masks["weight"].flatten()
    assert int(mask.sum()) == 37
    assert bool(mask[:37].all()), "ties go to the lower index"


@pytest.mark.parametrize("rule", [SRSTE(2e-2), SRSTE(2e-2, decoupled=True)])
def test_the_pull_of_sr_ste_is_on_weights_outside_the_mask(rule):
    model = nn.Linear(4, 4, bias=False)
    optimizer = torch.optim.SGD(model.parameters(), 0.5)
    sparsifier = Sparsifier(model, SparsePlan(NM(2, 4), init=MagnitudeScore(), schedule=EveryStep(), rule=rule),
                            optimizer, total_steps=2)
    before, mask = sparsifier._parameters["weight"].detach().clone(), sparsifier.masks["weight"].clone()
    (model(torch.eye(4)) * 0).sum().backward()
    optimizer.step()
    after = sparsifier._parameters["weight"].detach()
    torch.testing.assert_close(after[~mask], before[~mask] * (1 - 0.5 * 2e-2))
    assert torch.equal(after[mask], before[mask])


def untouched(model):
    return all(type(m).__name__ in ("Sequential", "Flatten", "Linear", "ReLU") for m in model.modules())


@pytest.mark.public_door
@pytest.mark.parametrize(("plan", "options", "error", "message"), [
    (plan_of("rigl"), {"total_steps": 0}, ValueError, "total_steps must be at least 1"),
    (plan_of("rigl"), {"generator": None}, ValueError, "RandomScore needs generator"),
    (SparsePlan(Unstructured(0.5), init=MagnitudeScore(), grow=RandomScore(), schedule=Periodic(2)),
     {"generator": None}, ValueError, "RandomScore needs generator"),
    (plan_of("rigl"), {"generator": 3}, TypeError, "generator must be a torch.Generator"),
    (plan_of("snip"), {"probe": None}, ValueError, "SNIPScore needs probe"),
    (preset("rigl", every=50), {}, ValueError, "masks would never move"),
    (SparsePlan(Unstructured(0.5), schedule=Periodic(2)), {}, ValueError, "set grow"),
    (SparsePlan(NM(2, 4), grow=RandomScore(), schedule=Periodic(2)), {}, ValueError, "are Unstructured, got NM"),
    (SparsePlan(NM(2, 48), where=Selector(only=("1",))), {}, ValueError, r"1.weight of shape \(32, 64\) cannot take"),
    (SparsePlan(Block(0.5, (3, 3))), {}, ValueError, "block"),
    (SparsePlan(Unstructured(0.5), Custom((("1.wieght", 0.5),))), {}, KeyError, "1.wieght'; near: 1.weight"),
    # These would meet it in the middle of a training.
    (SparsePlan(Unstructured(0.5), Custom((("1.wieght", 0.5),)), schedule=OneShot(0.5)), {}, KeyError, "1.wieght"),
    (SparsePlan(Unstructured(0.01), UniformPlus(), schedule=OneShot(0.5)), {}, ValueError, "keep 2,0.. weights"),
    (SparsePlan(NM(2, 4), Global(), schedule=OneShot(0.5), skip_unfit=True), {}, TypeError, "takes Unstructured"),
    (SparsePlan(Unstructured(0.5), Shuffled(), init=MagnitudeScore(), schedule=OneShot(0.5)), {"generator": None},
     ValueError, "Shuffled draws positions and needs a generator"),
    (SparsePlan(Unstructured(0.5), init=ScoreFunction(lambda n, w: w * torch.nan)), {}, FloatingPointError, "1.weight"),
    (preset("imp", rounds=5), {}, ValueError, "a multiple of 5 steps, got 12"),
    (preset("imp", rounds=3, rewind=0.95), {}, ValueError, "rewind = 0.95"),
    ("rigl", {}, TypeError, "plan must be a SparsePlan, got str"),
])
def test_bad_plans_are_refused_and_nothing_is_attached(plan, options, error, message):
    model = network("mlp")
    optimizer = optimizer_of(model)
    given = {"total_steps": STEPS, "generator": torch.Generator().manual_seed(0), **options}
    if "probe" in given:
        given.pop("probe")
    with pytest.raises(error, match=message):
        Sparsifier(model, plan, optimizer, **given)
    assert untouched(model)
    assert not optimizer._optimizer_step_pre_hooks


@pytest.mark.public_door
@pytest.mark.parametrize("density", [0.0, -0.1, 1.5, float("nan"), float("inf")])
@pytest.mark.parametrize("name", DENSITY_PRESETS)
def test_densities_that_are_none_are_refused_with_their_value(name, density):
    with pytest.raises(ValueError, match=f"density must be .*got {density}"):
        plan_of(name, density)


@pytest.mark.public_door
def test_bad_models_and_optimizers_are_refused():
    model = network("mlp")
    plan = SparsePlan(Unstructured(0.5), init=MagnitudeScore())
    with pytest.raises(ValueError, match="the optimizer does not hold 1.weight"):
        Sparsifier(model, plan, torch.optim.SGD(model.get_submodule("5").parameters(), 0.1), total_steps=3)
    with pytest.raises(TypeError, match="optimizer must be"):
        Sparsifier(model, plan, "sgd", total_steps=3)
    with pytest.raises(ValueError, match="no layer is selected"):
        Sparsifier(nn.Sequential(nn.BatchNorm1d(3)), plan, optimizer_of(nn.BatchNorm1d(3)), total_steps=3)
    with torch.no_grad():
        model.get_parameter("3.weight")[0, 0] = torch.nan
    with pytest.raises(ValueError, match="3.weight holds NaN"):
        Sparsifier(model, plan, optimizer_of(model), total_steps=3)
    assert untouched(model)
    with pytest.raises(ValueError, match="density must be in"):
        preset("rigl", density=1.5)
    with pytest.raises(ValueError, match="did you mean 'rigl'"):
        preset("rigle")
    with pytest.raises(ValueError, match="option of rigl.*did you mean 'density'"):
        preset("rigl", densty=0.1)


def test_a_second_sparsifier_on_the_same_weights_is_refused():
    model = network("mlp")
    optimizer = optimizer_of(model)
    sparsifier_of(model, plan_of("random"), optimizer)
    with pytest.raises(ValueError, match="'1' is not a parameter of its own"):
        sparsifier_of(model, plan_of("random"), optimizer)


def test_a_layer_that_refuses_to_be_attached_leaves_the_others_plain(monkeypatch):
    from torch.nn.utils import parametrize

    real, calls = parametrize.register_parametrization, []

    def second_fails(*args):
        calls.append(args)
        if len(calls) == 2:
            raise RuntimeError("no")
        return real(*args)

    monkeypatch.setattr(parametrize, "register_parametrization", second_fails)
    model = network("mlp")
    with pytest.raises(RuntimeError, match="no"):
        sparsifier_of(model, plan_of("random"), optimizer_of(model))
    assert untouched(model)
    assert list(model.state_dict()) == list(network("mlp").state_dict())


def test_a_move_by_gradient_needs_a_backward_pass():
    model = network("mlp")
    sparsifier = sparsifier_of(model, plan_of("rigl"), optimizer_of(model))
    train(sparsifier, 0, 2)
    with pytest.raises(RuntimeError, match="the gradient of 1.weight at step 3"):
        sparsifier.step()


def test_an_infinite_gradient_is_refused_by_name():
    model = network("mlp")
    sparsifier = sparsifier_of(model, plan_of("rigl"), optimizer_of(model))
    train(sparsifier, 0, 2)
    (model(batch(2)[0]).sum() * torch.inf).backward()
    with pytest.raises(FloatingPointError, match="1.weight"):
        sparsifier.step()


@pytest.mark.parametrize("name", ["rigl", "gmp", "sr-ste", "itop", "sdgf-stepwise"])
def test_a_weight_that_becomes_nan_is_named_and_masks_stay(name):
    model = network("mlp")
    sparsifier = sparsifier_of(model, plan_of(name), optimizer_of(model))
    train(sparsifier, 0, 2)
    old = {n: m.clone() for n, m in sparsifier.masks.items()}
    gradients(model, sparsifier.optimizer, 2)
    kept = old["3.weight"].nonzero()[0]
    with torch.no_grad():
        sparsifier._parameters["3.weight"][tuple(kept)] = torch.nan
    with pytest.raises(FloatingPointError, match="the score of 3.weight"):
        sparsifier.step()
    assert sad(old, sparsifier.masks) == 0


@pytest.mark.parametrize("name", sorted(set(PRESETS) - {"sdgf-geometric"}))
def test_complex_weights_are_masked_by_their_moduli(name):
    layers = [nn.Linear(16, 16, dtype=torch.complex64) for _ in range(2)]
    model = nn.Sequential(*layers)
    optimizer = torch.optim.SGD(model.parameters(), 0.05, momentum=0.9)
    g = torch.Generator().manual_seed(0)

    def loss(outputs, targets):
        return nn.functional.cross_entropy(outputs.abs(), targets)

    probe = Probe(torch.randn(8, 16, dtype=torch.complex64, generator=g), torch.arange(8), loss)
    sparsifier = Sparsifier(model, plan_of(name), optimizer, total_steps=STEPS, generator=g, probe=probe)
    for step in range(STEPS):
        optimizer.zero_grad()
        probe.loss(model).backward()
        optimizer.step()
        event = sparsifier.plan.schedule.event(step + 1, STEPS, sparsifier.plan.pattern)
        if name in NM_PRESETS and event is not None and event.prune is not None:
            for n, mask in sparsifier.masks.items():
                assert torch.equal(mask, event.prune.mask(sparsifier._parameters[n].detach().abs()))
    report = sparsifier.finalize()
    assert report.density == pytest.approx(0.5 if name in NM_PRESETS else 0.3, abs=5e-3)
    for i, layer in enumerate(layers):
        assert layer.weight.is_complex()
        assert bool((layer.weight[~report.masks[f"{i}.weight"]] == 0).all())


def test_a_soft_mask_is_not_finalized_by_accident():
    model = network("mlp")
    sparsifier = sparsifier_of(model, plan_of("mdgf-linear"), optimizer_of(model))
    train(sparsifier, 0, 4)
    with pytest.raises(RuntimeError, match="the mask is still soft after 4 of 12 steps"):
        sparsifier.finalize()
    report = sparsifier.finalize(force=True)
    assert report.density == pytest.approx(0.5)


def test_scores_that_need_the_model_work_while_masks_are_on():
    from sparsepriors.networks.sparse import SNIPScore, SynFlowScore

    for score in (SNIPScore(), SynFlowScore(3), SaliencyScore()):
        model = network("mlp")
        plan = SparsePlan(Unstructured(0.2), Global(), score=score, schedule=OneShot(0.5), rule=Masked())
        sparsifier = sparsifier_of(model, plan, optimizer_of(model))
        train(sparsifier)
        assert sparsifier.finalize().density == pytest.approx(0.2, abs=1e-3)


def test_structured_decay_ends_in_its_pattern():
    for name in NM_PRESETS:
        model = network("mlp")
        sparsifier = sparsifier_of(model, plan_of(name), optimizer_of(model))
        train(sparsifier)
        for mask in sparsifier.finalize().masks.values():
            assert int(mask.reshape(-1, 4).sum(1).max()) == 2
