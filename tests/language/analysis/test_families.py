"""Nested masks: the same as those of the core at every sparsity, exact, and back from a file."""

import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils import prune as torch_prune

from sparsepriors.language.analysis import (
    MaskFamily,
    apply_masks,
    block_weights,
    fixed_plan,
    mask_family,
)
from sparsepriors.language.stand_in import stand_in
from sparsepriors.networks import Sparsifier, prune
from sparsepriors.networks.sparse import ERK, Bernoulli, Global, RandomScore, SparsePlan, Uniform, preset
from sparsepriors.priors import NM, Unstructured

SPARSITIES = (0.0, 0.1, 0.35, 0.5, 0.9)


def net(seed=0, *, ties=False):
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(24, 40), nn.ReLU(), nn.Linear(40, 16), nn.LayerNorm(16))
    if ties:
        with torch.no_grad():
            for p in model.parameters():
                p.copy_((p * 8).round() / 8)
    return model


def weight(model, place):
    return model.get_parameter(f"{place}.weight").detach()


@given(st.integers(0, 1000), st.booleans(), st.sampled_from([Global(), Uniform(), ERK()]),
       st.lists(st.floats(0, 0.999), min_size=1, max_size=6, unique=True))
def test_every_mask_is_the_one_that_prune_draws_and_lies_within_the_one_before(seed, ties, distribution, sparsities):
    model, sparsities = net(seed, ties=ties), sorted(sparsities)
    family = mask_family(model, sparsities, plan=SparsePlan(Unstructured(), distribution))
    before = None
    for sparsity, counted in zip(sparsities, family.sparsities, strict=True):
        want = prune(copy.deepcopy(model), Unstructured(1 - sparsity), distribution=distribution).masks
        masks = family.masks(sparsity)
        assert masks.keys() == want.keys()
        assert all(torch.equal(masks[n], want[n]) for n in want)
        zeros = sum(int((~m).sum()) for m in masks.values())
        assert counted == pytest.approx(zeros / sum(m.numel() for m in masks.values()), abs=1e-12)
        assert before is None or not any(bool((masks[n] & ~before[n]).any()) for n in masks)
        before = masks


def test_global_masks_are_those_of_torch_on_a_copy():
    model = net(3)
    family = mask_family(model, SPARSITIES)
    for sparsity in SPARSITIES[1:]:
        peer = copy.deepcopy(model)
        layers = [(m, "weight") for m in peer if isinstance(m, nn.Linear)]
        torch_prune.global_unstructured(layers, torch_prune.L1Unstructured, amount=sparsity)
        masks = family.masks(sparsity)
        assert torch.equal(peer.get_buffer("0.weight_mask").bool(), masks["0.weight"])
        assert torch.equal(peer.get_buffer("2.weight_mask").bool(), masks["2.weight"])


def test_patterns_of_one_group_size_are_nested_and_others_are_refused():
    model = net()
    family = mask_family(model, [NM(7, 8), NM(6, 8), NM(4, 8)], plan=preset("asp", where=None))
    assert family.asked == family.sparsities == (0.125, 0.25, 0.5)
    assert torch.equal(family.masks(0.5)["0.weight"], NM(4, 8).mask(weight(model, 0).abs()))
    with pytest.raises(ValueError, match=r"n=2, m=4.* keeps weights of 0.weight that .*n=5, m=8.* does not"):
        mask_family(model, [NM(5, 8), NM(2, 4)], plan=preset("asp"))


def test_random_masks_are_nested_too(generator):
    plan = SparsePlan(Unstructured(), Global(), score=RandomScore())
    family = mask_family(net(), (0.02, 0.5), plan=plan, generator=generator)
    assert family.kept == (1568, 800)
    assert not (family.masks(0.5)["0.weight"] & ~family.masks(0.02)["0.weight"]).any()


def test_a_transformer_loses_weights_of_its_blocks_only():
    model = stand_in()[0]
    family = mask_family(model, (0.3,))
    assert len(family.levels) == 14
    assert all(name.startswith("model.layers.") for name in family.levels)
    assert block_weights(net()).only == ()


def test_both_stacks_of_a_model_that_encodes_and_decodes_and_shared_weights_once():
    from transformers import GPT2Config, GPT2Model, T5Config, T5ForConditionalGeneration

    t5 = T5ForConditionalGeneration(T5Config(vocab_size=20, d_model=16, d_kv=8, d_ff=24, num_layers=2, num_heads=2))
    names = mask_family(t5, (0.5,)).levels
    assert len(names) == 2 * 6 + 2 * 10
    assert not any("shared" in n or "lm_head" in n for n in names)
    with pytest.raises(ValueError, match="blocks h hold no linear or convolutional layer of torch, only Conv1D"):
        mask_family(GPT2Model(GPT2Config(vocab_size=20, n_embd=16, n_layer=2, n_head=2)), (0.5,))
    shared = nn.Linear(6, 6)
    assert mask_family(nn.Sequential(shared, shared), (0.5,)).kept == (18,)
    with pytest.raises(ValueError, match="no layer is selected"):
        mask_family(nn.Sequential(nn.LayerNorm(4)), (0.5,))


def test_per_layer_books_add_up():
    family = mask_family(net(), (0.2, 0.6))
    rows = family.per_layer(0.6)
    assert [r["name"] for r in rows] == ["0.weight", "2.weight"]
    assert sum(r["kept"] for r in rows) == family.kept[1] == 640
    for row in rows:
        assert row["kept"] == int(family.masks(0.6)[row["name"]].sum())
        assert row["sparsity"] == pytest.approx(1 - row["kept"] / row["weights"])


@given(st.integers(0, 99), st.integers(1, 9))
def test_files_hold_few_bits_and_come_back(tmp_path_factory, seed, count):
    path = tmp_path_factory.mktemp("masks") / "masks.safetensors"
    family = mask_family(net(seed), [i / 10 for i in range(count)])
    family.save(path)
    again = MaskFamily.load(path)
    assert again.asked == family.asked
    assert all(torch.equal(again.levels[n], level) for n, level in family.levels.items())
    weights = 24 * 40 + 40 * 16
    assert path.stat().st_size <= weights / 8 * count.bit_length() + 1500


def test_fixed_masks_stay_through_a_training_with_decay_and_momentum(generator):
    model = net()
    masks = {"0.weight": NM(2, 4).mask(weight(model, 0).abs())}
    apply_masks(model, masks)
    dense = weight(model, 2).clone()
    optimizer = torch.optim.AdamW(model.parameters(), 1e-2, weight_decay=0.1)
    sparsifier = Sparsifier(model, fixed_plan(masks), optimizer, total_steps=5)
    x = torch.randn(8, 24, generator=generator)
    for _ in range(5):
        model(x).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()
    report = sparsifier.finalize()
    assert torch.equal(report.masks["0.weight"], masks["0.weight"])
    assert not weight(model, 0)[~masks["0.weight"]].any()
    assert weight(model, 0)[masks["0.weight"]].all()
    assert not torch.equal(weight(model, 2), dense)


@pytest.mark.public_door
def test_refusals_name_the_cause_and_change_nothing(tmp_path):
    model = net()
    before = copy.deepcopy(model.state_dict())
    for sparsities, words in (((0.5, 0.3), "must increase, got 0.5, 0.3"), ((1.0,), r"in \[0, 1\)"), ((), "from 1 to"),
                              ((-0.1,), r"in \[0, 1\)"), ((True,), r"in \[0, 1\)"), (("a",), r"in \[0, 1\)")):
        with pytest.raises(ValueError, match=words):
            mask_family(model, sparsities)
    with pytest.raises(ValueError, match=r"0\.weight of shape \(40, 24\) cannot take NM"):
        mask_family(model, [NM(2, 7)], plan=preset("asp"))
    with pytest.raises(ValueError, match="not nested"):
        mask_family(model, (0.3, 0.5), plan=SparsePlan(Unstructured(), Bernoulli(Uniform())),
                    generator=torch.Generator().manual_seed(0))
    with pytest.raises(TypeError, match="plan must be a SparsePlan"):
        mask_family(model, (0.5,), plan="omp")
    with pytest.raises(ValueError, match=r"0\.weight is on the meta device"):
        mask_family(net().to("meta"), (0.5,))
    family = mask_family(model, (0.5,))
    with pytest.raises(ValueError, match=r"sparsity must be one of 0\.5, got 0\.4"):
        family.masks(0.4)
    masks = family.masks(0.5)
    with pytest.raises(ValueError, match="names 'x.weight', which is no parameter"):
        apply_masks(model, {**masks, "x.weight": masks["0.weight"]})
    with pytest.raises(ValueError, match=r"the mask of 2\.weight must have shape \(16, 40\), got \(40, 24\)"):
        apply_masks(model, {**masks, "2.weight": masks["0.weight"]})
    with pytest.raises(TypeError, match="must be boolean|bool"):
        apply_masks(model, {"0.weight": masks["0.weight"].float()})
    with pytest.raises(ValueError, match="keep at least one weight"):
        fixed_plan({"0.weight": torch.zeros(2, 2, dtype=torch.bool)})
    with pytest.raises(ValueError, match="at least one weight, got none"):
        MaskFamily.of({})
    with pytest.raises(TypeError, match=r"levels of a must be a uint8 tensor"):
        MaskFamily({"a": torch.ones(2)}, (0.5,))
    with pytest.raises(ValueError, match="at most 1, the number of masks, got 2"):
        MaskFamily({"a": torch.full((2,), 2, dtype=torch.uint8)}, (0.5,))
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    with torch.no_grad():
        weight(model, 2)[0, 0] = torch.nan
    with pytest.raises(ValueError, match=r"2\.weight holds NaN"):
        mask_family(model, (0.5,))


def test_a_damaged_or_foreign_file_is_named(tmp_path):
    path = tmp_path / "masks.safetensors"
    MaskFamily.of({"w": torch.tensor([True, False])}).save(path)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ValueError, match=r"masks\.safetensors"):
        MaskFamily.load(path)
    from sparsepriors import _files

    _files.write_tensors(path, {"w": torch.ones(3)})
    with pytest.raises(ValueError, match=r"masks\.safetensors is not a file of masks"):
        MaskFamily.load(path)
