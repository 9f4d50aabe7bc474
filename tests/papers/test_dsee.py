import csv

import pytest
import torch
from transformers import BertConfig, BertModel, BertTokenizer

from sparsepriors.data import intents
from sparsepriors.papers import _dsee_arms, dsee
from sparsepriors.runs import Scale


def test_the_smoke_scale_measures_every_claim_and_resumes_to_the_same_rows(smoke):
    rows, claims = smoke("dsee", "arms")
    arms = {row["arm"]: row for row in rows}
    assert set(arms) == {"full", "head alone", "BitFit", "LoRA, rank 1", "LoRA, rank 4", "rank 1, grebsmo",
                         "rank 1, random", "DSEE", "pruned by ABS", "pruned by WABS", "pruned by W", "pruned by random",
                         "heads and neurons cut", "planted parts"}
    for row in rows:
        if "zero_targets" in row:
            assert row["zero_targets"] == pytest.approx(row["ratio"], abs=1e-3)
            assert row["zero_others"] == pytest.approx(row["ratio"], abs=1e-3)
    assert claims["planted-residual"]["ours"] < 0.01
    assert claims["operations-counted"]["ours"] < 0.01
    assert 0.2 < claims["operations"]["ours"] < 0.3
    assert arms["planted parts"]["recall_published"] < 0.2 < 0.9 < arms["planted parts"]["recall"]


def test_the_trained_share_is_that_of_the_stated_numbers():
    task = _dsee_arms.banking(1, 1, 0, tiny=True)
    tuner = task.adapted(0, 4, _dsee_arms.supports(task, 16, "random", 0))
    base = sum(p.numel() for p in task.encoder.parameters())
    head = 48 * 77 + 77
    want = (2 * 2 * (4 * 2 * 48 + 16) + head) / (base + head)
    assert _dsee_arms.trained_share(tuner) == pytest.approx(want)


def test_arms_of_a_seed_begin_with_the_same_head_and_see_the_same_batches():
    task = _dsee_arms.banking(1, 1, 0, tiny=True)
    rates = {"encoder": 1e-3, "head": 1e-2}
    models = [task.adapted(5, 2, None).model for _ in range(2)]
    assert task.learn(models[0], 5, 1, rates) == task.learn(models[1], 5, 1, rates)
    for a, b in zip(models[0].parameters(), models[1].parameters(), strict=True):
        assert torch.equal(a, b)
    assert not torch.equal(models[0].head.weight, task.classifier(5).head.weight)
    assert torch.equal(task.classifier(5).head.weight, task.classifier(5).head.weight)


def test_a_head_alone_learns_what_the_frozen_encoder_says():
    task = _dsee_arms.banking(2, 1, 0, tiny=True)
    model = task.classifier(0)
    ids = task.train[0]
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        want = torch.cat([model.features(row[None]) for row in ids[:20]]).float()
    torch.testing.assert_close(task._features(model, ids)[:20], want, rtol=0.05, atol=0.05)
    assert task.learn_head(0, 20, {"head": 0.03}) > 3 / 77


def test_a_folder_of_ones_own_is_a_task(tmp_path):
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "red", "green", "apple", "leaf"]
    (tmp_path / "vocab.txt").write_text("\n".join(words))
    BertTokenizer(vocab=str(tmp_path / "vocab.txt")).save_pretrained(tmp_path / "model")
    config = BertConfig(vocab_size=9, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8)
    BertModel(config).save_pretrained(tmp_path / "model")
    for part, rows in (("train", [("red apple", "fruit"), ("green leaf", "plant")]), ("test", [("leaf", "plant")])):
        with open(tmp_path / f"{part}.csv", "w", newline="") as f:
            csv.writer(f).writerows([("text", "category"), *rows])
    task = _dsee_arms.folder_task(tmp_path)
    assert task.classes == 2
    assert task.train[1].tolist() == [0, 1]
    assert task.test[1].tolist() == [1]
    assert task.train[0].shape == (2, 4)
    (tmp_path / "test.csv").write_text("text,category\nleaf,stone\n")
    with pytest.raises(ValueError, match="category 'stone', which train.csv has not"):
        _dsee_arms.folder_task(tmp_path)
    (tmp_path / "test.csv").write_text("text,label\nleaf,plant\n")
    with pytest.raises(ValueError, match="columns text and category"):
        _dsee_arms.folder_task(tmp_path)


def test_the_sentences_of_a_seed_are_its_own():
    train, _ = intents().deal((1, 1), torch.Generator().manual_seed(0))
    assert len(train) == 77
    a, b, again = (_dsee_arms.banking(1, 1, seed, tiny=True).train[0] for seed in (0, 1, 0))
    assert a.shape != b.shape or not torch.equal(a, b)
    assert torch.equal(a, again)


def test_every_scale_measures_what_the_claims_need():
    for scale in Scale:
        sizes = dsee.SIZES[scale]
        assert dsee.HALF in sizes.ratios
        assert {"grebsmo", "random"} <= set(sizes.supports)
