import dataclasses
import json

import pytest
import torch
import transformers

from sparsepriors import _files
from sparsepriors.language.finetune import DPO
from sparsepriors.papers import _rl_arms, _rl_real, _rl_variants, get, rl_subnetworks
from sparsepriors.papers._rl_real import RealSizes, measure_checkpoints, measure_smollm2
from sparsepriors.runs import Run, Scale


@pytest.mark.slow
def test_the_smoke_scale_measures_every_claim_and_resumes_to_the_same_rows(smoke):
    rows, claims = smoke("rl-subnetworks", "sparsity", "matrices", "dynamics", "variants")
    trained = [r for r in rows if r["part"] == "training"]
    assert {r["method"] for r in trained} == set(_rl_arms.METHODS)
    for row in trained:
        assert row["floor"] <= row["bf16"] <= row["within_1e_6"] <= row["within_1e_4"]
        assert row["fp32"] <= row["bf16"]
        assert 0 < row["travel"] < 1.5
    assert claims["over-random"]["ours"] > claims["over-random"]["baseline"]
    variants = {r["method"]: r for r in rows if r["part"] == "variant"}
    assert len(variants) == 7
    assert all(0 <= r["floor"] <= r["bf16"] <= 1 and 0 <= r["agreement"] < 1 for r in variants.values())
    assert claims["bf16-throughout"]["ours"] > claims["bf16-throughout"]["baseline"]
    overlaps = [r for r in rows if r["part"] == "overlap"]
    assert {r["other"] for r in overlaps} == {"seed", "data", "method"}
    assert all(r["matched"] >= r["chance"] for r in overlaps)


def test_variants_differ_from_the_training_beside_them_in_one_thing():
    bench = _rl_arms.Bench(rl_subnetworks.SIZES[Scale.SMOKE], 0)
    found = _rl_variants.variants(bench, bench.own(bench.policy().state_dict()))
    plain = _rl_variants.Variant(bench.method("grpo", 0, {}), beside="")
    differences = {}
    for name, variant in found.items():
        other = found[variant.beside] if variant.beside in found else dataclasses.replace(
            plain, method=bench.method(variant.beside, 0, {}))
        assert type(variant.method) is type(other.method)
        differences[name] = {f.name for one, two in ((variant, other), (variant.method, other.method))
                             for f in dataclasses.fields(one) if f.name in ("clip", "dtype", "beta", "epochs")
                             and getattr(one, f.name) != getattr(two, f.name)}
    assert differences == {
        "KL": {"beta"}, "gradients not clipped": {"clip"}, "KL, gradients not clipped": {"clip"},
        "4 steps a draw": {"epochs"}, "4 steps a draw, ratios not clipped": {"clip"},
        "bfloat16 throughout": {"dtype"}, "imitated additions, bfloat16 throughout": {"dtype"}}


def test_all_methods_of_a_seed_begin_at_one_start_and_halves_do_not_meet():
    bench = _rl_arms.Bench(rl_subnetworks.SIZES[Scale.SMOKE], 3)
    first, second, test = ({tuple(p) for p in part.tolist()} for part in bench.problems)
    assert not first & second
    assert not (first | second) & test
    assert len(first | second | test) == 100
    fresh = [bench.policy().state_dict() for _ in range(2)]
    assert all(torch.equal(fresh[0][n], fresh[1][n]) for n in fresh[0])
    assert bench.rates(1.0)[0] == 0.5
    assert max(bench.rates(1.0)) == 1.0


def test_preferred_answers_are_right_and_the_others_are_not():
    bench = _rl_arms.Bench(rl_subnetworks.SIZES[Scale.SMOKE], 0)
    own = bench.own(bench.policy().state_dict())
    for name, operation in (("dpo-in", "+"), ("dpo-out", "-")):
        method = bench.method(name, 0, own)
        task = _rl_arms.Addition(1, operation)
        assert isinstance(method, DPO)
        assert bool(task.correct(method.chosen).all())
        assert float(task.correct(method.rejected).double().mean()) < 0.2
        assert torch.equal(method.chosen.tokens[:, :4], method.rejected.tokens[:, :4])


def test_two_checkpoints_of_a_folder_are_compared(tmp_path):
    before = {"layers.0.q.weight": torch.zeros(4, 4, dtype=torch.bfloat16), "embed": torch.ones(4)}
    after = {"layers.0.q.weight": torch.eye(4, dtype=torch.bfloat16), "embed": torch.ones(4)}
    for kind, weights in (("before", before), ("after", after)):
        _files.write_tensors(tmp_path / "data" / kind / "model.safetensors", weights)
    run = Run.start(get("rl-subnetworks"), tmp_path / "run", scale=Scale.FULL, seed=0, data_dir=tmp_path / "data")
    measure_checkpoints(run, tmp_path / "data")
    rows = {r["tensor"]: r for r in json.loads((run.folder / "rows.json").read_text())}
    assert rows["all"]["bf16"] == 16 / 20
    assert rows["all"]["bf16_inner"] == rows["q.weight"]["bf16"] == 12 / 16
    with pytest.raises(FileNotFoundError, match="there is no checkpoint"):
        measure_checkpoints(Run.start(get("rl-subnetworks"), tmp_path / "other", scale=Scale.FULL, seed=0), tmp_path)


def test_a_real_model_changes_no_more_than_rounding_lets_it(tmp_path, monkeypatch):
    config = transformers.LlamaConfig(vocab_size=64, hidden_size=16, intermediate_size=32, num_hidden_layers=1,
                                      num_attention_heads=2, num_key_value_heads=1, tie_word_embeddings=True)
    monkeypatch.setattr(_rl_real, "load_smollm2", lambda dtype: (
        transformers.LlamaForCausalLM(config).to(dtype), lambda text: {"input_ids": [ord(c) % 64 for c in text]}))
    run = Run.start(get("rl-subnetworks"), tmp_path / "run", scale=Scale.DEFAULT, seed=0)
    measure_smollm2(run, RealSizes(3, 2, 16))
    slow, fast = json.loads((run.folder / "rows.json").read_text())
    assert fast["floor"] < slow["floor"]
    for row in (slow, fast):
        assert row["floor"] <= row["bf16"]
        assert row["fp32_inner"] < row["bf16_inner"] <= 1
