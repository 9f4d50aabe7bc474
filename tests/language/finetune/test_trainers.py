import copy
import dataclasses

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from sparsepriors.language import UpdateMask, predicted_floor, update_mask, update_report
from sparsepriors.language.finetune import (
    DPO,
    GRPO,
    RFT,
    SFT,
    Addition,
    Answers,
    finetune,
    finetune_subnetwork,
    sample_answers,
    snapshot,
    token_log_probs,
)
from sparsepriors.networks.models import TinyDecoderLM
from sparsepriors.networks.train_loop import Hook

_TASK = Addition(1)
_END = 13


class _Policy(nn.Module):
    """Reads the whole text in one layer: the characters of the last four places."""

    def __init__(self, generator: torch.Generator) -> None:
        super().__init__()
        self.embed = nn.Embedding(_TASK.vocabulary, 8)
        self.up = nn.Linear(32, 48)
        self.down = nn.Linear(48, _TASK.vocabulary)
        for p in self.parameters():
            p.data = (torch.randn(p.shape, generator=generator) * 0.3).bfloat16().float()

    def forward(self, tokens: Tensor) -> Tensor:
        x = functional.pad(self.embed(tokens), (0, 0, 3, 0))
        x = torch.cat([x[:, i:i + tokens.shape[1]] for i in range(4)], 2)
        return self.down(torch.tanh(self.up(x)))


@pytest.fixture
def policy(generator):
    return _Policy(generator)


def _methods():
    problems = _TASK.problems()
    prompts, answers = _TASK.prompts(problems), _TASK.answers(problems)
    wrong = _TASK.answered(problems, _TASK.gold(problems.flip(0)))
    own = {"prompts": prompts, "reward": _TASK.reward, "length": 3, "end": _END, "batch_size": 32}
    anything = own | {"reward": lambda a: torch.ones(len(a.tokens))}
    return {"sft": SFT(answers, 32), "dpo": DPO(answers, wrong, 32), "grpo": GRPO(**own | {"reward": _first_even}),
            "grpo, divergence, epochs": GRPO(**own | {"reward": _first_even}, beta=0.1, epochs=2),
            "rft": RFT(**anything), "raft": RFT(**anything, online=True, epochs=2)}


def _first_even(answers: Answers) -> Tensor:
    """A reward that a weak policy earns now and then."""
    return (answers.tokens[:, _TASK.prompt_length] % 2 == 0).float()


_METHODS = _methods()


@pytest.mark.parametrize("name", _METHODS)
def test_the_same_seed_gives_the_same_bits_and_changes_something(name, policy):
    start = copy.deepcopy(policy)
    for p in (policy, other := copy.deepcopy(policy)):
        done = finetune(p, _METHODS[name], steps=4, lr=1e-3, warmup=1, generator=torch.Generator().manual_seed(1))
    assert done.trace["lr"] == pytest.approx([1e-3, 1e-3, 2e-3 / 3, 1e-3 / 3])
    for p, q, s in zip(policy.parameters(), other.parameters(), start.parameters(), strict=True):
        assert torch.equal(p, q)
        assert not torch.equal(p, s)


def test_the_norm_of_the_gradients_is_clipped_unless_there_is_no_limit(policy):
    norms = []

    class Norms(Hook):
        def after_backward(self, loop):
            norms.append(float(nn.utils.get_total_norm([p.grad for p in loop.model.parameters()])))

    with torch.no_grad():
        policy.down.weight.mul_(10)   # gradients that the usual limit would clip
    for clip in (1e-3, 1.0, None):
        finetune(policy, _METHODS["sft"], steps=1, lr=1e-9, clip=clip, hooks=[Norms()],
                 generator=torch.Generator().manual_seed(0))
    assert norms[:2] == pytest.approx([1e-3, 1.0], rel=1e-2)
    assert norms[2] > 1.1


def test_imitation_learns_the_answers_and_reward_is_earned(policy):
    generator = torch.Generator().manual_seed(0)
    trace = finetune(policy, _METHODS["sft"], steps=60, lr=3e-2, generator=generator).trace["loss"]
    assert trace[-1] < 0.5 * trace[0]
    rewards = []
    for _ in range(2):
        answers = sample_answers(policy, _METHODS["grpo"].prompts, 3, generator=generator)
        rewards.append(float(_first_even(answers).mean()))
        finetune(policy, _METHODS["grpo"], steps=40, lr=3e-3, generator=generator)
    assert rewards[1] > rewards[0] + 0.2


@pytest.mark.parametrize(("temperature", "epochs"), [(1.0, 1), (0.5, 1), (2.0, 2)])
def test_the_gradient_of_grpo_is_the_policy_gradient(policy, temperature, epochs):
    """With answers drawn afresh: minus the mean over answers of A times the mean gradient of the log-probabilities.

    Those of the policy that wrote the answers, at its temperature.
    """
    method = dataclasses.replace(_METHODS["grpo"], temperature=temperature, epochs=epochs)
    batches, loss = method.prepare(policy, torch.Generator())
    batch = batches.next(torch.Generator().manual_seed(3))
    loss(policy, batch, torch.Generator()).backward()
    found = policy.up.weight.grad.clone()
    policy.zero_grad()
    rewards = batch.rewards.view(-1, 8)
    advantages = (rewards - rewards.mean(1, keepdim=True)) / (rewards.std(1, keepdim=True) + 1e-4)
    mask = batch.answers.mask
    written = (policy(batch.answers.tokens[:, :-1]) / temperature).log_softmax(2)
    written = written.gather(2, batch.answers.tokens[:, 1:, None])[..., 0]
    per_answer = (written * mask).sum(1) / mask.sum(1)
    (-(advantages.flatten() * per_answer).mean()).backward()
    torch.testing.assert_close(found, policy.up.weight.grad)


def test_answers_that_are_all_alike_leave_no_gradient(policy):
    method = GRPO(_METHODS["grpo"].prompts, lambda a: torch.ones(len(a.tokens)), 3, batch_size=32)
    batches, loss = method.prepare(policy, torch.Generator())
    loss(policy, batches.next(torch.Generator().manual_seed(0)), torch.Generator()).backward()
    assert all(not bool(p.grad.any()) for p in policy.parameters() if p.grad is not None)


def test_log_probabilities_and_answers_of_a_policy(policy, generator):
    answers = _TASK.answers(_TASK.problems()[:5])
    found = token_log_probs(policy, answers.tokens)
    logits = policy(answers.tokens).log_softmax(2)
    for t in range(answers.tokens.shape[1] - 1):
        torch.testing.assert_close(found[:, t], logits[torch.arange(5), t, answers.tokens[:, t + 1]])
    with pytest.raises(ValueError, match="temperature must be finite and positive"):
        token_log_probs(policy, answers.tokens, temperature=0.0)
    greedy = sample_answers(policy, answers.tokens[:, :4], 3, temperature=0.0)
    for t in range(4, 7):
        assert torch.equal(greedy.tokens[:, t], policy(greedy.tokens[:, :t])[:, -1].argmax(1))
    drawn = sample_answers(policy, answers.tokens[:2, :4], 3, generator=generator, group=500)
    assert torch.equal(drawn.tokens[::500, :4], answers.tokens[:2, :4])
    shares = torch.bincount(drawn.tokens[:500, 4], minlength=16) / 500
    wanted = policy(answers.tokens[:1, :4])[0, -1].softmax(0).detach()
    assert float((shares - wanted).abs().max()) < 0.08
    assert policy.training


def test_a_decoder_with_a_memory_gives_the_answers_of_one_that_reads_anew(generator):
    model = TinyDecoderLM(16, context=8, width=16, depth=2, heads=2, hidden=32, std=0.5)
    anew = nn.Sequential(model)
    prompts = torch.randint(0, 16, (5, 4), generator=generator)
    for options in ({"temperature": 0.0}, {"group": 3}):
        found, wanted = (sample_answers(policy, prompts, 4, generator=torch.Generator().manual_seed(0), **options)
                         for policy in (model, anew))
        assert torch.equal(found.tokens, wanted.tokens)


def test_what_follows_the_end_does_not_count(policy):
    def always(tokens):
        return functional.one_hot(torch.where(torch.arange(tokens.shape[1]) == 4, _END, 3), 16).expand(
            len(tokens), -1, -1) * 100.0

    policy.forward = always
    found = sample_answers(policy, torch.zeros(2, 4, dtype=torch.int64), 3, temperature=0.0, end=_END)
    assert found.tokens[0, 4:].tolist() == [3, _END, 3]
    assert found.mask[0].tolist() == [False, False, False, True, True, False]


def test_a_subnetwork_is_trained_alone_and_gives_the_same_model_where_the_rest_did_not_move(policy):
    start = snapshot(policy, torch.float32)
    options = {"steps": 6, "lr": 1e-3, "warmup": 2}
    full, alone = copy.deepcopy(policy), copy.deepcopy(policy)
    rates = finetune(full, _METHODS["dpo"], generator=torch.Generator().manual_seed(5), **options).trace["lr"]
    mask = update_mask(start, snapshot(full), torch.bfloat16)
    assert 0 < mask.density < 1
    floor = predicted_floor(snapshot(policy), rates)
    assert floor.sure <= update_report(start, snapshot(full), torch.bfloat16).exact_sparsity
    finetune_subnetwork(alone, mask, _METHODS["dpo"], generator=torch.Generator().manual_seed(5), **options)
    for name, p in alone.named_parameters():
        assert torch.equal(p[~mask[name]], start[name][~mask[name]])
    everything = UpdateMask.from_masks({n: torch.ones_like(p, dtype=torch.bool) for n, p in policy.named_parameters()})
    finetune_subnetwork(policy, everything, _METHODS["dpo"], generator=torch.Generator().manual_seed(5), **options)
    assert all(torch.equal(p, q) for p, q in zip(policy.parameters(), full.parameters(), strict=True))


def test_parameters_without_a_mask_stay(policy):
    start = snapshot(policy, torch.float32)
    mask = UpdateMask.from_masks({"up.weight": torch.ones(48, 32, dtype=torch.bool)})
    finetune(policy, _METHODS["sft"], steps=2, lr=1e-2, generator=torch.Generator().manual_seed(0), mask=mask,
             weight_decay=0.1)
    changed = {n for n, p in policy.named_parameters() if not torch.equal(p, start[n])}
    assert changed == {"up.weight"}


def test_a_snapshot_is_a_copy(policy):
    found = snapshot(policy, torch.float32)
    policy.up.bias.data += 1
    assert not torch.equal(found["up.bias"], policy.up.bias)
    assert snapshot(policy)["up.bias"].dtype == torch.bfloat16


def test_answers_that_serve_several_steps_are_part_of_the_state(policy):
    batches, _ = _METHODS["grpo, divergence, epochs"].prepare(policy, torch.Generator())
    first = batches.next(torch.Generator().manual_seed(0))
    again, _ = _METHODS["grpo, divergence, epochs"].prepare(policy, torch.Generator())
    again.load_state_dict(batches.state_dict())
    second = again.next(torch.Generator().manual_seed(9))
    assert torch.equal(first.answers.tokens, second.answers.tokens)
    assert torch.equal(first.old, second.old)
    assert not torch.equal(first.answers.tokens, again.next(torch.Generator().manual_seed(9)).answers.tokens)


@pytest.mark.public_door
def test_bad_input(policy):
    answers, generator = _METHODS["sft"].answers, torch.Generator()
    with pytest.raises(ValueError, match="chosen and rejected must be pairs, got 100 and 5"):
        DPO(answers, answers.rows(torch.arange(5)))
    with pytest.raises(ValueError, match="batch_size must be even"):
        DPO(answers, answers, 3)
    with pytest.raises(ValueError, match="group must divide batch_size, got 8 and 12"):
        GRPO(_METHODS["grpo"].prompts, _first_even, 3, batch_size=12)
    never = RFT(_METHODS["grpo"].prompts, lambda a: torch.zeros(len(a.tokens)), 3, batch_size=32)
    with pytest.raises(ValueError, match="the verifier passed 0 of 100 answers"):
        finetune(policy, never, steps=1, lr=1e-3, generator=generator)
    with pytest.raises(ValueError, match="needs a generator"):
        sample_answers(policy, _METHODS["grpo"].prompts, 3)
    with pytest.raises(ValueError, match="lr"):
        finetune(policy, _METHODS["sft"], steps=1, lr=0.0, generator=generator)
    with pytest.raises(ValueError, match="matrices with as many rows"):
        Answers.of(torch.zeros(2, 3, dtype=torch.int64), torch.zeros(3, 3, dtype=torch.int64))
