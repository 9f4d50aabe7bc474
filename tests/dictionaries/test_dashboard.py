import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sparsepriors.dictionaries import Crosscoder, SparseAutoencoder
from sparsepriors.dictionaries.dashboard import latent_dashboard
from sparsepriors.priors import L1, TopK


def drawn(seed=0, windows=9, length=7, latents=6, d=4):
    g = torch.Generator().manual_seed(seed)
    sae = SparseAutoencoder(d, latents, TopK(2), generator=g)
    tokens = torch.randint(20, (windows, length), generator=g)
    return sae, torch.randn(windows, length, d, generator=g), tokens


@given(st.integers(0, 10**6), st.integers(1, 5), st.integers(1, 3))
def test_cards_say_what_all_codes_at_once_say(seed, rows, contexts):
    sae, x, tokens = drawn(seed)
    found = latent_dashboard(sae, x.split(rows), tokens, str, contexts=contexts, radius=2)
    codes = sae.encode(x).detach()
    assert found.tokens == 63
    assert found.l0 == pytest.approx(float((codes > 0).sum()) / 63)
    assert found.dead == pytest.approx(float((codes == 0).all(dim=0).all(dim=0).double().mean()))
    for card in found.cards:
        own = codes[:, :, card.latent]
        assert card.frequency == pytest.approx(float((own > 0).double().mean()))
        assert card.largest == pytest.approx(float(own.max()))
        assert sum(card.histogram) == int((own > 0).sum())
        if card.histogram:
            assert card.edges[0] <= float(own[own > 0].min()) * 1.0001
            assert float(own.max()) <= card.edges[-1] * 1.0001
            assert len(card.edges) == len(card.histogram) + 1
        peaks = own.amax(dim=1).sort(descending=True).values[:contexts]
        assert [c.codes[c.focus] for c in card.contexts] == pytest.approx(peaks[peaks > 0].tolist(), abs=1e-4)
        for context in card.contexts:
            assert len(context.pieces) == len(context.codes) <= 5
            assert any(context.pieces == [str(t) for t in row[a:a + len(context.pieces)].tolist()]
                       for row in tokens for a in range(7))


def test_effects_on_logits_are_those_of_the_last_model():
    coder = Crosscoder(4, 6, prior=L1(0.1), same_start=False, generator=torch.Generator().manual_seed(0))
    x = torch.randn(3, 5, 2, 4, generator=torch.Generator().manual_seed(1))
    unembedding = torch.randn(30, 4, generator=torch.Generator().manual_seed(2))
    tokens = torch.arange(15).reshape(3, 5)
    found = latent_dashboard(coder, [x], tokens, str, latents=[4], unembedding=unembedding, effects=3,
                             notes={"delta": coder.delta_norm()})
    effect = unembedding @ coder.decoder[1, 4].detach()
    card = found.cards[0]
    assert [int(t) for t, _ in card.promotes] == effect.argsort(descending=True)[:3].tolist()
    assert [v for _, v in card.suppresses] == pytest.approx(effect.sort().values[:3].tolist(), rel=1e-5)
    assert card.notes == {"delta": pytest.approx(float(coder.delta_norm()[4]))}


@pytest.mark.public_door
def test_bad_arguments_are_named():
    sae, x, tokens = drawn()
    with pytest.raises(ValueError, match="cover all 9 windows, got 4"):
        latent_dashboard(sae, [x[:4]], tokens, str)
    with pytest.raises(ValueError, match=r"activations must have shape \(0, 7, ...\) after 9 windows"):
        latent_dashboard(sae, [x, x], tokens, str)
    with pytest.raises(ValueError, match=r"activations must have shape \(9, 7, ...\)"):
        latent_dashboard(sae, [x[:, :3]], tokens, str)
    with pytest.raises(ValueError, match="contexts must be at least 1"):
        latent_dashboard(sae, [x], tokens, str, contexts=0)
    with pytest.raises(ValueError, match="unembedding must have shape"):
        latent_dashboard(sae, [x], tokens, str, unembedding=torch.ones(9, 5))
    with pytest.raises(ValueError, match="'delta' has shape"):
        latent_dashboard(sae, [x], tokens, str, notes={"delta": torch.ones(2)})
    with pytest.raises(ValueError, match="latents must lie in 0 to 5"):
        latent_dashboard(sae, [x], tokens, str, latents=[6])
