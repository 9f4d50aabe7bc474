import json
import math
from pathlib import Path

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given

from sparsepriors.language.finetune import losses

_PEER = json.loads((Path(__file__).parent / "trl_numbers.json").read_text())


@pytest.fixture(scope="module")
def peer():
    """Log-probabilities of eight answers, the first four preferred, and what TRL's trainers make of them."""
    named = {k: torch.tensor(v, dtype=torch.float64) for k, v in _PEER["log_probs"].items()}
    return named | {"mask": torch.tensor(_PEER["mask"]).bool(),
                    "advantages": torch.tensor(_PEER["advantages"], dtype=torch.float64), **_PEER["losses"]}


def _halves(x):
    return x[:4], x[4:]


@pytest.mark.parametrize(("name", "options"), [("dpo", {"beta": 0.3}),
                                               ("dpo_normalised", {"beta": 5.0, "normalise": True})])
def test_dpo_agrees_with_trl(peer, name, options):
    found = losses.dpo_loss(*_halves(peer["policy"]), *_halves(peer["reference"]), *_halves(peer["mask"]), **options)
    # TRL divides by the length of the mask before it is shifted, which is the same here: no answer is cut.
    assert float(found) == pytest.approx(peer[name], abs=1e-9)


def test_simpo_and_the_odds_of_orpo_agree_with_trl(peer):
    pairs = *_halves(peer["policy"]), *_halves(peer["mask"])
    assert float(losses.simpo_loss(*pairs, beta=2.0, gamma=0.7)) == pytest.approx(peer["simpo"], abs=1e-9)
    likelihood = float(losses.orpo_loss(*pairs, weight=0.0))
    # TRL takes the odds in float32.
    assert float(losses.orpo_loss(*pairs, weight=0.1)) - likelihood == pytest.approx(peer["orpo_odds_term"], abs=1e-7)
    assert likelihood == pytest.approx(-float(losses.answer_log_prob(pairs[0], pairs[2], mean=True).mean()))


def test_kto_agrees_with_trl(peer):
    baseline = losses.kto_baseline(peer["old"], peer["reference"], peer["mask"])
    assert float(baseline) == pytest.approx(peer["kto_baseline"], abs=1e-9)
    found = losses.kto_loss(peer["policy"], peer["reference"], peer["mask"], torch.arange(8) < 4, baseline, beta=0.2,
                            weights=(1.5, 0.5))
    assert float(found) == pytest.approx(peer["kto"], abs=1e-9)


def test_grpo_agrees_with_trl(peer):
    given = peer["policy"], peer["old"], peer["advantages"], peer["mask"]
    assert float(losses.grpo_loss(*given)) == pytest.approx(peer["grpo"], abs=1e-9)
    found = losses.grpo_loss(*given, reference=peer["reference"], beta=0.04)
    assert float(found) == pytest.approx(peer["grpo_with_divergence"], abs=1e-9)
    assert float(losses.clipped_policy_loss(*given)) == pytest.approx(peer["clipped_per_token"], abs=1e-9)


def _random(seed, batch=4, tokens=5):
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, tokens + 1, (batch,), generator=generator)
    mask = torch.arange(tokens) < lengths[:, None]
    draws = [-torch.rand(batch, tokens, generator=generator, dtype=torch.float64) * 3 - 0.05 for _ in range(4)]
    return generator, mask, draws


_LOSSES = {
    "sft": lambda x, m, others: losses.sft_loss(x, m),
    "dpo": lambda x, m, others: losses.dpo_loss(x, others[0], others[1], others[2], m, m, beta=0.5),
    "dpo normalised": lambda x, m, others: losses.dpo_loss(others[0], x, others[1], others[2], m, m, normalise=True),
    "simpo": lambda x, m, others: losses.simpo_loss(x, others[0], m, m),
    "orpo": lambda x, m, others: losses.orpo_loss(others[0], x, m, m, weight=0.5),
    "kto": lambda x, m, others: losses.kto_loss(x, others[0], m, torch.tensor([True, False, True, False]), 0.3),
    "grpo": lambda x, m, others: losses.grpo_loss(x, others[0], torch.tensor([1.0, -1.0, 0.5, 0.0]), m, clip=2.0,
                                                  reference=others[1], beta=0.1),
    "value": lambda x, m, others: losses.value_loss(x, others[0], others[1], m, clip=10.0),
    "implicit reward": lambda x, m, others: losses.implicit_reward_loss(
        x, others[0], m, torch.tensor([True, False, True, True])),
}


@pytest.mark.parametrize("name", _LOSSES)
def test_gradients_are_those_of_finite_differences_and_stay_inside_the_mask(name):
    _, mask, (x, *others) = _random(1)
    x.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: _LOSSES[name](x, mask, others), (x,))
    (gradient,) = torch.autograd.grad(_LOSSES[name](x, mask, others), x)
    assert not bool(gradient[~mask].any())
    assert bool(gradient[mask].any())
    inside, outside = x.detach(), torch.where(mask, x.detach(), math.nan)
    assert float(_LOSSES[name](outside, mask, others)) == pytest.approx(float(_LOSSES[name](inside, mask, others)))


@given(st.integers(0, 2**32 - 1))
def test_preference_losses_fall_as_the_preferred_answer_becomes_likelier(seed):
    _, mask, (chosen, rejected, near, far) = _random(seed)
    for loss in (lambda c: losses.dpo_loss(c, rejected, near, far, mask, mask),
                 lambda c: losses.simpo_loss(c, rejected, mask, mask),
                 lambda c: losses.orpo_loss(c, rejected, mask, mask)):
        assert float(loss(chosen + 0.04)) < float(loss(chosen))
    assert float(losses.dpo_loss(chosen, rejected, chosen, rejected, mask, mask)) == pytest.approx(math.log(2))


@given(st.integers(0, 2**32 - 1))
def test_group_advantages_are_centred_and_zero_without_a_difference(seed):
    generator = torch.Generator().manual_seed(seed)
    rewards = torch.randint(0, 2, (6, 8), generator=generator).double()
    found = losses.group_advantages(rewards)
    torch.testing.assert_close(found.sum(1), torch.zeros(6, dtype=torch.float64), atol=1e-9, rtol=0)
    same = rewards.std(1) == 0
    assert not bool(found[same].any())
    torch.testing.assert_close(found[~same].std(1), torch.ones(int((~same).sum()), dtype=torch.float64), atol=1e-3,
                               rtol=0)
    torch.testing.assert_close(losses.group_advantages(rewards, scale=False), rewards - rewards.mean(1, keepdim=True))


def test_k3_is_the_divergence_on_average(generator):
    policy, reference = (torch.randn(6, generator=generator, dtype=torch.float64).log_softmax(0) for _ in range(2))
    divergence = float((policy.exp() * (policy - reference)).sum())
    assert float((policy.exp() * losses.k3(policy, reference)).sum()) == pytest.approx(divergence)
    assert bool((losses.k3(policy, reference) >= 0).all())


def test_clipping_stops_the_gradient_where_the_ratio_has_gone_far_enough():
    old = torch.zeros(4, 1, dtype=torch.float64)
    x = torch.tensor([[0.5], [-0.5], [0.5], [-0.5]], dtype=torch.float64, requires_grad=True)
    advantages, mask = torch.tensor([1.0, 1.0, -1.0, -1.0], dtype=torch.float64), torch.ones(4, 1).bool()
    (gradient,) = torch.autograd.grad(losses.clipped_policy_loss(x, old, advantages, mask), x)
    assert (gradient != 0)[:, 0].tolist() == [False, True, True, False]
    loose = losses.clipped_policy_loss(x, old, advantages, mask, clip=None)
    torch.testing.assert_close(loose, -(x.exp()[:, 0] * advantages).mean())
    assert bool(torch.autograd.grad(loose, x)[0].all())
    per_token = losses.clipped_policy_loss(x.detach(), old, advantages[:, None].expand(4, 1), mask)
    assert float(per_token) == float(losses.clipped_policy_loss(x.detach(), old, advantages, mask))


@given(st.integers(0, 2**32 - 1), st.floats(0, 1), st.floats(0, 1))
def test_generalised_advantages_by_their_definition(seed, gamma, lam):
    _, mask, (rewards, values, *_) = _random(seed)
    advantages, returns = losses.generalised_advantages(rewards, values, mask, gamma=gamma, lam=lam)
    for i, length in enumerate(mask.sum(1).tolist()):
        r, v = rewards[i, :length], torch.cat([values[i, :length], torch.zeros(1, dtype=torch.float64)])
        deltas = r + gamma * v[1:] - v[:-1]
        for t in range(length):
            wanted = sum((gamma * lam) ** k * float(d) for k, d in enumerate(deltas[t:]))
            assert float(advantages[i, t]) == pytest.approx(wanted, abs=1e-9)
        assert torch.equal(returns[i, :length], advantages[i, :length] + values[i, :length])
        assert not bool(advantages[i, length:].any())


def test_the_whole_answer_with_no_values_is_the_sum_of_what_follows():
    mask = torch.tensor([[True, True, False]])
    rewards = losses.penalised_rewards(torch.tensor([2.0]), torch.tensor([[-1.0, -2.0, -9.0]]),
                                       torch.tensor([[-2.0, -2.5, 0.0]]), mask, beta=0.1)
    torch.testing.assert_close(rewards, torch.tensor([[-0.1, 2 - 0.05, 0.0]]))
    advantages, _ = losses.generalised_advantages(rewards, torch.zeros(1, 3), mask, lam=1.0)
    torch.testing.assert_close(advantages, torch.tensor([[1.85, 1.95, 0.0]]))


def test_a_value_that_moved_too_far_is_no_better():
    values, old, returns = (torch.tensor([[v]]) for v in (1.0, 0.0, 2.0))
    mask = torch.tensor([[True]])
    assert float(losses.value_loss(values, old, returns, mask, clip=0.2)) == pytest.approx(0.5 * 1.8**2)
    assert float(losses.value_loss(values, old, returns, mask, clip=2.0)) == pytest.approx(0.5)


def test_prime_advantages_by_hand():
    process = torch.tensor([[[1.0, 3.0], [2.0, 99.0]]], dtype=torch.float64)
    mask = torch.tensor([[[True, True], [True, False]]])
    outcomes = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    found = losses.prime_advantages(process, outcomes, mask)
    # The first answer's tokens are compared with 2, the second's with (1 + 3) / 2 = 2.
    wanted = torch.tensor([[[(1 - 2) + (3 - 2) + 1, (3 - 2) + 1], [0 - 1, 0]]], dtype=torch.float64)
    torch.testing.assert_close(found, wanted)
    discounted = losses.prime_advantages(process, outcomes, mask, gamma=0.0)
    torch.testing.assert_close(discounted[0, 0], torch.tensor([0.0, 2.0], dtype=torch.float64))


def test_implicit_rewards_of_the_reference_are_zero():
    _, mask, (x, other, *_) = _random(0)
    assert not bool(losses.implicit_rewards(x, x).any())
    even = losses.implicit_reward_loss(x, x, mask, torch.tensor([True, False, True, False]))
    assert float(even) == pytest.approx(math.log(2))
    assert float(losses.implicit_rewards(x, other, beta=2.0).sum()) == pytest.approx(2 * float((x - other).sum()))


def test_odds_of_certain_and_hopeless_answers_are_finite():
    mask = torch.ones(2, 1, dtype=torch.bool)
    sure, never = torch.zeros(2, 1), torch.full((2, 1), -200.0)
    for pair in ((sure, never), (never, sure)):
        assert math.isfinite(float(losses.orpo_loss(*pair, mask, mask)))


@pytest.mark.public_door
def test_bad_input():
    x, mask = torch.zeros(2, 3), torch.ones(2, 3, dtype=torch.bool)
    empty = mask.clone()
    empty[1] = False
    with pytest.raises(ValueError, match="at least one token of every answer, 1 have none"):
        losses.sft_loss(x, empty)
    with pytest.raises(ValueError, match=r"shapes must agree, got log_probs \(2, 3\), mask \(2, 2\)"):
        losses.sft_loss(x, mask[:, :2])
    with pytest.raises(ValueError, match="beta"):
        losses.dpo_loss(x, x, x, x, mask, mask, beta=0.0)
    with pytest.raises(ValueError, match=r"desirable must have shape \(2,\)"):
        losses.kto_loss(x, x, mask, torch.ones(3, dtype=torch.bool), 0.0)
    with pytest.raises(ValueError, match="needs the log-probabilities of a reference"):
        losses.grpo_loss(x, x, torch.zeros(2), mask, beta=0.1)
    with pytest.raises(ValueError, match="advantages must have shape"):
        losses.clipped_policy_loss(x, x, torch.zeros(3), mask)
    with pytest.raises(ValueError, match="group of at least 2"):
        losses.group_advantages(torch.zeros(3, 1))
    with pytest.raises(ValueError, match="group of at least 2"):
        losses.prime_advantages(torch.zeros(2, 1, 3), torch.zeros(2, 1), torch.ones(2, 1, 3).bool())
