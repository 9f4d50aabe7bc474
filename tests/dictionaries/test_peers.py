"""What other libraries compute from the same weights and batches, frozen here and compared live where they install.

``peer_numbers.json`` holds their results; to make it anew, run this file with the peers on the path.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from _sae_peers import peer
from torch import Tensor, nn

from sparsepriors.dictionaries import AuxK, MatchingPursuit, SparseAutoencoder, fit
from sparsepriors.dictionaries.interchange import (
    from_dictionary_learning,
    from_dictionary_learning_state,
    from_sae_lens,
    to_dictionary_learning_state,
    to_sae_lens,
)
from sparsepriors.priors import L1, BatchTopK, JumpReLU, Matryoshka, Prior, TopK

NUMBERS = Path(__file__).with_name("peer_numbers.json")
D, N, B, K, STEPS, DEAD = 6, 20, 32, 3, 12, 5


def batches() -> list[Tensor]:
    x = torch.randn(STEPS * B, D, generator=torch.Generator().manual_seed(0), dtype=torch.float64).float()
    return list((1.5 * x + 0.3).split(B))


def atoms() -> Tensor:
    rows = torch.randn(N, D, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return (rows / rows.norm(dim=1, keepdim=True)).float()


def ours(prior: Prior, **options: Any) -> SparseAutoencoder:
    sae = SparseAutoencoder(D, N, prior, **options)
    with torch.no_grad():
        sae.W_dec.copy_(atoms())
        if sae.W_enc is not None:
            sae.W_enc.copy_(atoms())
    return sae


def ramp(step: int) -> float:
    return min(step / 4, 1.0)


def their_training(module: str, trainer: str, **options: Any) -> dict[str, Any] | None:
    """A trainer of dictionary_learning over all batches, some latents planted as dead."""
    trainers = peer("dictionary_learning", "trainers", module)
    if trainers is None:
        return None
    made = getattr(trainers, trainer)(steps=STEPS, activation_dim=D, dict_size=N, k=K, layer=0, lm_name="", lr=1e-2,
                                      warmup_steps=4, seed=0, device="cpu", **options)
    with torch.no_grad():
        if hasattr(made.ae, "W_dec"):
            made.ae.W_dec.data, made.ae.W_enc.data = atoms(), atoms().mT.clone()
        else:
            made.ae.decoder.weight.data, made.ae.encoder.weight.data = atoms().mT.clone(), atoms()
    made.num_tokens_since_fired[:DEAD] = made.dead_feature_threshold
    losses = [made.update(step, x) for step, x in enumerate(batches())]
    state = {k: v.detach().clone() for k, v in made.ae.state_dict().items()}
    sae = from_dictionary_learning_state(type(made.ae).__name__, state)
    return {"losses": losses, "W_dec": sae.W_dec.tolist(), "W_enc": sae.W_enc.tolist(), "b_dec": sae.b_dec.tolist(),
            "threshold": float(state["threshold"])}


def our_training(prior: Prior) -> dict[str, Any]:
    sae = ours(prior, aux=AuxK(dead_after=10_000_000))
    sae.since_fired[:DEAD] = 10_000_000
    done = fit(sae, batches(), steps=STEPS, lr=1e-2, schedule=ramp)
    state = {"W_dec": sae.W_dec.tolist(), "W_enc": sae.W_enc.tolist(), "b_dec": sae.b_dec.tolist()}
    return {"losses": done.trace["loss"], **state, "threshold": float(sae.state.get("threshold", -1.0))}


TRAININGS = {
    "batch_top_k": (("batch_top_k", "BatchTopKTrainer", {"threshold_start_step": 3}), BatchTopK(K, 0.999, 4)),
    "top_k": (("top_k", "TopKTrainer", {"threshold_start_step": 99}), TopK(K)),
}


def their_pursuit() -> list[list[float]] | None:
    """Codes of SAELens for signals that end early, late and at once."""
    module = peer("sae_lens", "saes", "matching_pursuit_sae")
    if module is None:
        return None
    x = torch.cat([batches()[0], torch.zeros(1, D), 2 * atoms()[:3]])
    return module._encode_matching_pursuit(x, atoms(), 0.2, 5, True).tolist()


class Encoder(nn.Module):
    """Pre-activations and what a ReLU makes of them, as overcomplete's encoders give them."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        pre = x @ atoms().mT
        return pre, torch.relu(pre)


def their_batch_topk() -> dict[str, Any] | None:
    """Codes and running threshold of overcomplete's BatchTopK over ten batches."""
    module = peer("overcomplete", "sae")
    if module is None:
        return None
    theirs = module.BatchTopKSAE(D, N, top_k=K * B, threshold_momentum=0.9, encoder_module=Encoder())
    theirs.train()
    codes = [theirs.encode(x)[1] for x in batches()[:10]]
    return {"codes": codes[-1].tolist(), "threshold": float(theirs.running_threshold)}


def frozen() -> dict[str, Any]:
    return json.loads(NUMBERS.read_text())


def compare(found: dict[str, Any], wanted: dict[str, Any]) -> None:
    for name, value in wanted.items():
        torch.testing.assert_close(torch.tensor(found[name]), torch.tensor(value), rtol=2e-4, atol=2e-5,
                                   msg=lambda m, name=name: f"{name}: {m}")


@pytest.mark.parametrize("name", TRAININGS)
def test_a_training_with_dead_latents_is_that_of_dictionary_learning(name: str) -> None:
    (module, trainer, options), prior = TRAININGS[name]
    found = our_training(prior)
    compare(found, frozen()[name])
    live = their_training(module, trainer, **options)
    if live is not None:
        compare(found, live)


def test_batch_topk_is_that_of_overcomplete() -> None:
    sae = ours(BatchTopK(K, momentum=0.9), subtract_bias=False).train()
    with torch.no_grad():
        outputs = [sae(x) for x in batches()[:10]]
    for out in outputs:
        sae.observe(out)
    found = {"codes": outputs[-1].codes.tolist(), "threshold": float(sae.state["threshold"])}
    for wanted in (frozen()["overcomplete"], their_batch_topk()):
        if wanted is not None:
            torch.testing.assert_close(torch.tensor(found["codes"]), torch.tensor(wanted["codes"]))
            assert found["threshold"] == pytest.approx(wanted["threshold"], rel=1e-6)


def test_matching_pursuit_is_that_of_sae_lens() -> None:
    sae = ours(MatchingPursuit(5, 0.2, stop_on_repeat=True))
    x = torch.cat([batches()[0], torch.zeros(1, D), 2 * atoms()[:3]])
    with torch.no_grad():
        codes = sae.encode(x)
    for wanted in (frozen()["matching_pursuit"], their_pursuit()):
        if wanted is not None:
            torch.testing.assert_close(codes, torch.tensor(wanted))


CONVERTED = [TopK(K), BatchTopK(K), JumpReLU(0.3), L1(0.1), MatchingPursuit(4)]


def trained(prior: Prior, **options: Any) -> SparseAutoencoder:
    sae = ours(prior, **options)
    fit(sae, batches(), steps=STEPS, lr=1e-2, input_scale="mean norm")
    return sae.finalize()


@pytest.mark.parametrize(("prior", "free"), [(p, False) for p in CONVERTED] + [(p, True) for p in CONVERTED[:3]],
                         ids=str)
def test_a_sae_lens_folder_keeps_codes_and_reconstructions(prior: Prior, free: bool, tmp_path: Path) -> None:
    sae, x = trained(prior, unit_norm=not free, rank_by_norm=free), batches()[0]
    to_sae_lens(sae, tmp_path, {"model_name": "none"})
    again = from_sae_lens(tmp_path)
    norms = sae.decoder_norms() if free else 1.0
    with torch.no_grad():
        torch.testing.assert_close(again.encode(x), sae.encode(x) * norms)
        torch.testing.assert_close(again(x).recon, sae(x).recon)
    module = peer("sae_lens", "saes", "sae")
    if module is not None:
        theirs = module.SAE.load_from_disk(tmp_path)
        with torch.no_grad():
            torch.testing.assert_close(theirs.encode(x), again.encode(x))
            torch.testing.assert_close(theirs(x), again(x).recon)


@pytest.mark.parametrize("prior", [TopK(K), BatchTopK(K), L1(0.1), JumpReLU(0.3), Matryoshka(BatchTopK(K), (4, 10))],
                         ids=lambda p: type(p).__name__)
def test_a_dictionary_learning_state_keeps_codes_and_reconstructions(prior: Prior) -> None:
    sae, x = trained(prior, subtract_bias=not isinstance(prior, JumpReLU)), batches()[0]
    kind, state = to_dictionary_learning_state(sae)
    again = from_dictionary_learning_state(kind, state)
    with torch.no_grad():
        torch.testing.assert_close(again.encode(x), sae.encode(x))
        torch.testing.assert_close(again(x).recon, sae(x).recon)
    if isinstance(prior, Matryoshka):
        assert isinstance(again.prior, Matryoshka)
        assert again.prior.prefixes == prior.prefixes
    modules = {"AutoEncoderTopK": ("trainers", "top_k"), "BatchTopKSAE": ("trainers", "batch_top_k"),
               "MatryoshkaBatchTopKSAE": ("trainers", "matryoshka_batch_top_k")}
    module = peer("dictionary_learning", *modules.get(kind, ("dictionary",)))
    if module is not None:
        extra = {"k": K} if "k" in state else {}
        if "group_sizes" in state:
            extra["group_sizes"] = state["group_sizes"].tolist()
        theirs = getattr(module, kind)(D, N, **extra)
        theirs.load_state_dict(state)
        with torch.no_grad():
            torch.testing.assert_close(theirs.encode(x), sae.encode(x))
            torch.testing.assert_close(theirs(x), sae(x).recon)


def test_a_dictionary_learning_folder_is_read(tmp_path: Path) -> None:
    sae, x = trained(BatchTopK(K)), batches()[0]
    kind, state = to_dictionary_learning_state(sae)
    torch.save(state, tmp_path / "ae.pt")
    (tmp_path / "config.json").write_text(json.dumps({"trainer": {"dict_class": kind, "k": K}}))
    torch.testing.assert_close(from_dictionary_learning(tmp_path).encode(x), sae.encode(x))
    torch.save({k: v for k, v in state.items() if k != "b_dec"}, tmp_path / "ae.pt")
    with pytest.raises(ValueError, match="does not hold a whole BatchTopKSAE"):
        from_dictionary_learning(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"trainer": {"dict_class": "GatedAutoEncoder"}}))
    with pytest.raises(ValueError, match="dict_class must be one of"):
        from_dictionary_learning(tmp_path)


def test_what_cannot_be_converted_is_refused(tmp_path: Path) -> None:
    unfinished = ours(TopK(K))
    unfinished.input_scale.fill_(2.0)
    with pytest.raises(ValueError, match="finalize the autoencoder first"):
        to_sae_lens(unfinished, tmp_path)
    with pytest.raises(ValueError, match="nonnegative matching pursuit"):
        to_sae_lens(ours(MatchingPursuit(2, orthogonal=True)), tmp_path)
    with pytest.raises(ValueError, match="no class for"):
        to_dictionary_learning_state(ours(MatchingPursuit(2)))
    to_sae_lens(ours(TopK(K)), tmp_path)
    cfg = json.loads((tmp_path / "cfg.json").read_text())
    for change, words in (({"architecture": "topkk"}, "did you mean 'topk'"),
                          ({"normalize_activations": "layer_norm"}, "normalize_activations must be 'none'"),
                          ({"k": None}, "does not hold a whole topk")):
        (tmp_path / "cfg.json").write_text(json.dumps({**cfg, **change}))
        with pytest.raises(ValueError, match=words):
            from_sae_lens(tmp_path)


if __name__ == "__main__":
    made = {name: their_training(module, trainer, **options) for name, ((module, trainer, options), _)
            in TRAININGS.items()}
    NUMBERS.write_text(json.dumps({**made, "overcomplete": their_batch_topk(), "matching_pursuit": their_pursuit()}))
