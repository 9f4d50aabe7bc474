import pytest
import torch

from sparsepriors.data.dialogues import Words
from sparsepriors.papers import crosscoders, get
from sparsepriors.papers._chat_diff import Diff
from sparsepriors.papers._chat_pair import cross_entropy, cut, pair
from sparsepriors.papers._planted_pairs import Planted, auc
from sparsepriors.runs import Run, Scale

SIZES = crosscoders.SIZES[Scale.SMOKE]


@pytest.mark.slow
def test_the_smoke_scale_measures_every_claim_and_resumes_to_the_same_rows(smoke):
    rows, _ = smoke("crosscoders", "planted", "chat")
    planted = [r for r in rows if r["part"] == "planted"]
    assert [r["crosscoder"] for r in planted] == ["BatchTopK"] + ["L1"] * len(SIZES.planted.weights)
    assert sum(r["compared"] for r in planted) == 2
    patched = {r["change"]: r["kl"] for r in rows if r["part"] == "patch"}
    assert patched["none"] > 0
    assert len([name for name in patched if name.startswith("random half")]) == 5


def test_planted_features_are_the_seed_s_and_crosscoders_start_equal():
    one, same, other = (Planted.drawn(SIZES.planted, s) for s in (0, 0, 1))
    assert torch.equal(one.train, same.train)
    assert not torch.equal(one.train, other.train)
    assert one.train.shape == (SIZES.planted.samples, 2, SIZES.planted.d)


def test_a_crosscoder_made_of_the_truth_is_judged_without_a_fault():
    """Decoders that are the planted directions and an encoder that reads them: every class is right."""
    planted = Planted.drawn(SIZES.planted, 0)
    features = planted.features
    n = features.directions.shape[1]
    coder = planted.learn_topk(SIZES.planted)
    truth = features.directions * features.strength[:, :, None]
    with torch.no_grad():
        for p in coder.parameters():
            p.zero_()
        coder.W_dec[:n] = truth.transpose(0, 1).reshape(n, -1)
        assert coder.W_enc is not None
        assert coder.b_enc is not None
        coder.W_enc[:n] = torch.linalg.pinv(coder.W_dec[:n].double()).T.float()
        coder.b_enc[:n] = -0.35
        coder.state["threshold"].fill_(1e-6)
    judged = planted.judge(coder)
    assert judged["as_second_only"] == 10
    assert judged["recall"] == 1
    assert judged["as_shared"] == judged["as_weak"] == judged["as_first_only"] == 0
    assert judged["false_share"] == 0
    assert judged["auc_delta"] == 1


def test_the_area_counts_ties_half():
    assert auc(torch.tensor([2.0, 1.0]), torch.tensor([1.0, 0.0])) == pytest.approx(0.875)
    assert auc(torch.tensor([]), torch.tensor([1.0])) != auc(torch.tensor([]), torch.tensor([1.0]))


def test_the_pair_differs_by_its_fine_tuning_alone(tmp_path):
    run = Run.start(get("crosscoders"), tmp_path / "run", scale=Scale.SMOKE, seed=0)
    models, data = pair(run, SIZES.diff.pair)
    held = data.chats(SIZES.diff.pair.length, 24)
    assert cross_entropy(models.chat, held.tokens, held.answer) < cross_entropy(models.base, held.tokens, held.answer)
    assert [n for n, _ in models.base.named_parameters()] == [n for n, _ in models.chat.named_parameters()]
    assert cut(torch.arange(10), 3, 2).tolist() == [[0, 1, 2], [3, 4, 5]]
    diff = Diff(models, data, SIZES.diff, 0)
    length = SIZES.diff.pair.length
    assert diff.activations.shape == (2 * SIZES.diff.windows * (length - 1), 2, SIZES.diff.pair.width)
    assert isinstance(data.speaker, Words)
    words = data.speaker.decode(data.spoken[:200])
    assert "<user>" in words
    assert "<model>" in words
