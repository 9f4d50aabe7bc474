"""Losses of preference tuning and reinforcement learning, as functions of the log-probabilities of tokens.

Log-probabilities have shape ``(batch, tokens)``: of the token that was written, given those before it. A boolean mask
of the same shape marks the tokens of the answer. Every loss is a scalar to be minimised; references, old policies,
rewards and advantages are constants and get no gradient.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional

from sparsepriors import _checks

LogProbs = Float[Tensor, "batch tokens"]
Answer = Bool[Tensor, "batch tokens"]
PerAnswer = Float[Tensor, "batch"]

_EPS = 1e-4   # of the standard deviation that GRPO divides by


def answer_log_prob(log_probs: LogProbs, mask: Answer, *, mean: bool = False) -> PerAnswer:
    """Log-probability of each answer, or its mean over the answer's tokens.

    Raises
    ------
    ValueError
        If shapes differ or an answer has no token.
    """
    _same(log_probs=log_probs, mask=mask)
    total, lengths = torch.where(mask, log_probs, 0).sum(1), _lengths(mask)
    return total / lengths if mean else total


def sft_loss(log_probs: LogProbs, mask: Answer) -> Tensor:
    """Negative log-likelihood, the mean over all tokens of all answers.

    Rejection-sampling fine-tuning (RFT, arXiv:2308.01825) is this loss on the policy's own answers that a verifier
    passed.

    Raises
    ------
    ValueError
        If shapes differ or an answer has no token.
    """
    return -answer_log_prob(log_probs, mask).sum() / mask.sum()


def dpo_loss(chosen: LogProbs, rejected: LogProbs, reference_chosen: LogProbs, reference_rejected: LogProbs,
             chosen_mask: Answer, rejected_mask: Answer, *, beta: float = 0.1, normalise: bool = False) -> Tensor:
    """Direct preference optimisation: -log sigmoid(beta (r_chosen - r_rejected)), r the log-ratio to the reference.

    Source: Rafailov et al. (2023), arXiv:2305.18290, equation 7.

    Parameters
    ----------
    chosen, rejected, reference_chosen, reference_rejected
        Log-probabilities of the preferred and the other answer, of the policy and of the reference.
    chosen_mask, rejected_mask
        Tokens of the answers; the two may differ in length.
    beta
        Inverse temperature.
    normalise
        Divide each log-ratio by the length of its answer (as in Tulu 3, arXiv:2411.15124, with beta 5).

    Raises
    ------
    ValueError
        If shapes differ, an answer has no token, or beta is not positive.
    """
    _checks.positive("beta", beta)
    ratios = []
    for policy, reference, mask in ((chosen, reference_chosen, chosen_mask),
                                    (rejected, reference_rejected, rejected_mask)):
        _same(log_probs=policy, reference=reference, mask=mask)
        ratios.append(answer_log_prob(policy - reference.detach(), mask, mean=normalise))
    return -functional.logsigmoid(beta * (ratios[0] - ratios[1])).mean()


def simpo_loss(chosen: LogProbs, rejected: LogProbs, chosen_mask: Answer, rejected_mask: Answer, *, beta: float = 2.0,
               gamma: float = 1.0) -> Tensor:
    """Simple preference optimisation: -log sigmoid(beta (p_chosen - p_rejected) - gamma), p the mean log-probability.

    Source: Meng et al. (2024), arXiv:2405.14734, equation 6.

    Raises
    ------
    ValueError
        If shapes differ, an answer has no token, or beta is not positive.
    """
    _checks.positive("beta", beta)
    gap = answer_log_prob(chosen, chosen_mask, mean=True) - answer_log_prob(rejected, rejected_mask, mean=True)
    return -functional.logsigmoid(beta * gap - gamma).mean()


def orpo_loss(chosen: LogProbs, rejected: LogProbs, chosen_mask: Answer, rejected_mask: Answer, *,
              weight: float = 0.1) -> Tensor:
    """Odds-ratio preference optimisation: NLL(chosen) - weight log sigmoid(logit p_chosen - logit p_rejected).

    p is the exponential of an answer's mean log-probability, NLL minus its logarithm. Source: Hong et al. (2024),
    arXiv:2403.07691, equations 6 and 7.

    Raises
    ------
    ValueError
        If shapes differ, an answer has no token, or the weight is negative.
    """
    _checks.nonnegative("weight", weight)
    good = answer_log_prob(chosen, chosen_mask, mean=True)
    bad = answer_log_prob(rejected, rejected_mask, mean=True)
    odds = good - bad - _log1mexp(good) + _log1mexp(bad)
    return (-good - weight * functional.logsigmoid(odds)).mean()


def kto_loss(log_probs: LogProbs, reference: LogProbs, mask: Answer, desirable: Bool[Tensor, "batch"],
             baseline: float | Tensor, *, beta: float = 0.1, weights: tuple[float, float] = (1.0, 1.0)) -> Tensor:
    """Kahneman-Tversky optimisation: 1 - sigmoid(+-beta (r - z)) of single answers, r the log-ratio to the reference.

    Source: Ethayarajh et al. (2024), arXiv:2402.01306, equation 8.

    Parameters
    ----------
    log_probs, reference, mask
        Of the answers, by the policy and by the reference.
    desirable
        Which answers are wanted.
    baseline
        z, an estimate of the divergence from the reference: `kto_baseline` of answers that belong to other prompts.
    beta
        Inverse temperature.
    weights
        Of desirable and of undesirable answers.

    Raises
    ------
    ValueError
        If shapes differ, an answer has no token, beta is not positive, or a weight is negative.
    """
    _checks.positive("beta", beta)
    for i, weight in enumerate(weights):
        _checks.nonnegative(f"weights[{i}]", weight)
    _same(log_probs=log_probs, reference=reference, mask=mask)
    if desirable.shape != log_probs.shape[:1]:
        raise ValueError(f"desirable must have shape {tuple(log_probs.shape[:1])}, got {tuple(desirable.shape)}")
    ratio = answer_log_prob(log_probs - reference.detach(), mask) - torch.as_tensor(baseline).detach()
    value = torch.sigmoid(beta * torch.where(desirable, ratio, -ratio))
    return (torch.where(desirable, weights[0], weights[1]) * (1 - value)).mean()


def kto_baseline(log_probs: LogProbs, reference: LogProbs, mask: Answer) -> Tensor:
    """The z of `kto_loss`: the mean log-ratio of answers set beside prompts of others, no less than 0; no gradient.

    Raises
    ------
    ValueError
        If shapes differ or an answer has no token.
    """
    _same(log_probs=log_probs, reference=reference, mask=mask)
    return answer_log_prob((log_probs - reference).detach(), mask).mean().clamp(min=0)


def k3(log_probs: Tensor, reference: Tensor) -> Tensor:
    """An estimate of the divergence from the reference for each token: exp(d) - d - 1 >= 0 with d = reference - policy.

    Its mean over tokens of the policy is KL(policy | reference). Source: Schulman (2020), "Approximating KL
    divergence", as used by GRPO.
    """
    gap = reference.detach() - log_probs
    return gap.exp() - gap - 1


def group_advantages(rewards: Float[Tensor, "prompts group"], *, scale: bool = True) -> Float[Tensor, "prompts group"]:
    """Rewards against those of the same prompt: (R - mean) / (std + 1e-4), zero where all are equal.

    Source: Shao et al. (2024), arXiv:2402.03300, section 4.1; the deviation is the unbiased one, as common trainers
    have it, and ``scale=False`` leaves it out (Dr. GRPO, arXiv:2503.20783).

    Raises
    ------
    ValueError
        If there are fewer than two answers to a prompt.
    """
    if rewards.ndim != 2 or rewards.shape[1] < 2:
        raise ValueError(f"rewards must have shape (prompts, group) with a group of at least 2, got "
                         f"{tuple(rewards.shape)}")
    centred = rewards - rewards.mean(1, keepdim=True)
    return centred / (rewards.std(1, keepdim=True) + _EPS) if scale else centred


def clipped_policy_loss(log_probs: LogProbs, old: LogProbs, advantages: Tensor, mask: Answer, *,
                        clip: float | None = 0.2, per_answer: bool = False) -> Tensor:
    """The clipped surrogate of PPO: -min(q A, clamp(q, 1 - clip, 1 + clip) A), q the ratio to the old policy.

    With advantages of 1 for answers that passed a verifier and 0 for others it is RAFT++ (arXiv:2504.11343).
    Source: Schulman et al. (2017), arXiv:1707.06347, equation 7.

    Parameters
    ----------
    log_probs, old, mask
        Of the answers, by the policy and by the policy that wrote them.
    advantages
        ``(batch, tokens)``, or ``(batch,)`` for one number an answer.
    clip
        How far the ratio may go; ``None`` is as far as it likes.
    per_answer
        Average over each answer's tokens first, so that long answers count no more than short ones.

    Raises
    ------
    ValueError
        If shapes differ, an answer has no token, or the clip is not positive.
    """
    return _averaged(_surrogate(log_probs, old, advantages, mask, clip), mask, per_answer)


def grpo_loss(log_probs: LogProbs, old: LogProbs, advantages: PerAnswer, mask: Answer, *, clip: float | None = 0.2,
              reference: LogProbs | None = None, beta: float = 0.0) -> Tensor:
    """Group relative policy optimisation: `clipped_policy_loss` by answer, plus beta times `k3` to the reference.

    Source: Shao et al. (2024), arXiv:2402.03300, equations 3 and 4.

    Parameters
    ----------
    log_probs, old, advantages, mask, clip
        See `clipped_policy_loss`; the advantages are `group_advantages`, flattened.
    reference
        Log-probabilities of the reference policy, needed where beta is not 0.
    beta
        Weight of the divergence.

    Raises
    ------
    ValueError
        If shapes differ, an answer has no token, the clip is not positive, beta is negative, or there is no reference
        for it.
    """
    _checks.nonnegative("beta", beta)
    loss = _surrogate(log_probs, old, advantages, mask, clip)
    if beta:
        if reference is None:
            raise ValueError(f"beta = {beta} needs the log-probabilities of a reference")
        _same(log_probs=log_probs, reference=reference)
        loss = loss + beta * k3(log_probs, reference)
    return _averaged(loss, mask, per_answer=True)


def penalised_rewards(scores: PerAnswer, log_probs: LogProbs, reference: LogProbs, mask: Answer, *,
                      beta: float = 0.05) -> LogProbs:
    """Rewards of tokens as PPO has them: -beta (policy - reference), and the answer's score at its last token.

    Raises
    ------
    ValueError
        If shapes differ, an answer has no token, or beta is negative.
    """
    _checks.nonnegative("beta", beta)
    _same(log_probs=log_probs, reference=reference, mask=mask)
    _lengths(mask)
    rewards = torch.where(mask, -beta * (log_probs - reference), 0).detach()
    places = torch.arange(mask.shape[1], device=mask.device)
    last = torch.where(mask, places, -1).argmax(1)
    return rewards.scatter_add(1, last[:, None], scores.detach()[:, None].to(rewards.dtype))


def generalised_advantages(rewards: LogProbs, values: LogProbs, mask: Answer, *, gamma: float = 1.0,
                           lam: float = 0.95) -> tuple[LogProbs, LogProbs]:
    """Advantages of tokens, and the returns that a value head learns: sums of (gamma lam)^k times temporal differences.

    Source: Schulman et al. (2016), arXiv:1506.02438, equation 16.

    Parameters
    ----------
    rewards, values
        Of each token, and of the text before it.
    mask
        Tokens of the answers, without gaps.
    gamma, lam
        Discount, and how far differences are summed: 0 is one step, 1 the whole answer.

    Returns
    -------
    tuple
        Advantages and returns, zero outside the mask; no gradient.
    """
    _same(rewards=rewards, values=values, mask=mask)
    for name, share in (("gamma", gamma), ("lam", lam)):
        _checks.nonnegative(name, share)
    rewards, values = (torch.where(mask, x.detach(), 0) for x in (rewards, values))
    advantages, running = torch.zeros_like(values), torch.zeros_like(values[:, 0])
    for t in reversed(range(values.shape[1])):
        following = values[:, t + 1] if t + 1 < values.shape[1] else torch.zeros_like(running)
        running = torch.where(mask[:, t], rewards[:, t] + gamma * following - values[:, t] + gamma * lam * running, 0)
        advantages[:, t] = running
    return advantages, advantages + values


def value_loss(values: LogProbs, old: LogProbs, returns: LogProbs, mask: Answer, *, clip: float = 0.2) -> Tensor:
    """Half the squared error of a value head, no better than if it moved by at most ``clip``.

    Raises
    ------
    ValueError
        If shapes differ, an answer has no token, or the clip is not positive.
    """
    _checks.positive("clip", clip)
    _same(values=values, old=old, returns=returns, mask=mask)
    near = old.detach() + (values - old.detach()).clamp(-clip, clip)
    worse = torch.maximum((values - returns.detach()).square(), (near - returns.detach()).square())
    return 0.5 * _averaged(worse, mask, per_answer=False)


def implicit_rewards(log_probs: LogProbs, reference: LogProbs, *, beta: float = 0.05) -> LogProbs:
    """Rewards of tokens by an implicit reward model: beta times its log-ratio to the reference.

    Source: Cui et al. (2025), "Process Reinforcement through Implicit Rewards" (PRIME), arXiv:2502.01456, equation 3.
    """
    _checks.positive("beta", beta)
    _same(log_probs=log_probs, reference=reference)
    return beta * (log_probs - reference.detach())


def implicit_reward_loss(log_probs: LogProbs, reference: LogProbs, mask: Answer, passed: Bool[Tensor, "batch"], *,
                         beta: float = 0.05) -> Tensor:
    """Cross-entropy of an implicit reward model: the sum of its rewards is the logit of passing the verifier.

    Source: arXiv:2502.01456, equation 5.

    Raises
    ------
    ValueError
        If shapes differ, an answer has no token, or beta is not positive.
    """
    logits = answer_log_prob(implicit_rewards(log_probs, reference, beta=beta), mask)
    return functional.binary_cross_entropy_with_logits(logits, passed.to(logits.dtype))


def prime_advantages(process: Float[Tensor, "prompts group tokens"], outcomes: Float[Tensor, "prompts group"],
                     mask: Bool[Tensor, "prompts group tokens"], *,
                     gamma: float = 1.0) -> Float[Tensor, "prompts group tokens"]:
    """Advantages from rewards of tokens and of outcomes, each against the other answers to the same prompt.

    The baseline of a token is the mean over the other answers of their mean reward a token; what is left is summed to
    the end of the answer with discount gamma. The outcome is compared with the mean outcome of the others. Source:
    arXiv:2502.01456, section 3.2.

    Raises
    ------
    ValueError
        If shapes differ, there are fewer than two answers to a prompt, or one has no token.
    """
    _same(process=process, mask=mask)
    if outcomes.shape != process.shape[:2] or process.shape[1] < 2:
        raise ValueError(f"outcomes must have shape (prompts, group) with a group of at least 2, and process one more "
                         f"axis, got {tuple(outcomes.shape)} and {tuple(process.shape)}")
    process = torch.where(mask, process.detach(), 0)
    means = process.sum(2) / _lengths(mask.flatten(0, 1)).view(mask.shape[:2])
    left = torch.where(mask, process - _others(means)[..., None], 0)
    returns, running = torch.zeros_like(left), torch.zeros_like(left[..., 0])
    for t in reversed(range(left.shape[2])):
        running = left[..., t] + gamma * running
        returns[..., t] = running
    return torch.where(mask, returns + (outcomes - _others(outcomes))[..., None], 0)


def _others(values: Tensor) -> Tensor:
    """The mean over the other entries of the last axis."""
    return (values.sum(-1, keepdim=True) - values) / (values.shape[-1] - 1)


def _surrogate(log_probs: Tensor, old: Tensor, advantages: Tensor, mask: Tensor, clip: float | None) -> Tensor:
    if clip is not None:
        _checks.positive("clip", clip)
    _same(log_probs=log_probs, old=old, mask=mask)
    if advantages.shape not in (log_probs.shape, log_probs.shape[:1]):
        raise ValueError(f"advantages must have shape {tuple(log_probs.shape)} or {tuple(log_probs.shape[:1])}, got "
                         f"{tuple(advantages.shape)}")
    weight = advantages.detach() if advantages.ndim == 2 else advantages.detach()[:, None]
    ratio = torch.where(mask, log_probs - old.detach(), 0).exp()
    gain = ratio * weight
    return -gain if clip is None else -torch.minimum(gain, ratio.clamp(1 - clip, 1 + clip) * weight)


def _averaged(losses: Tensor, mask: Tensor, per_answer: bool) -> Tensor:
    kept = torch.where(mask, losses, 0)
    return (kept.sum(1) / _lengths(mask)).mean() if per_answer else kept.sum() / _lengths(mask).sum()


def _lengths(mask: Tensor) -> Tensor:
    lengths = mask.sum(1)
    if not bool(lengths.all()):
        raise ValueError(f"mask must mark at least one token of every answer, {int((lengths == 0).sum())} have none")
    return lengths


def _log1mexp(x: Tensor) -> Tensor:
    """log(1 - exp(x)) for x < 0, without cancellation at either end (Maechler, 2012)."""
    x = x.clamp(max=-torch.finfo(x.dtype).tiny)
    near = x > -0.6931472
    return torch.where(near, torch.log(-torch.expm1(torch.where(near, x, -1.0))),
                       torch.log1p(-torch.exp(torch.where(near, -1.0, x))))


def _same(**tensors: Tensor) -> None:
    shapes = {name: tuple(x.shape) for name, x in tensors.items()}
    if len(set(shapes.values())) != 1:
        raise ValueError(f"shapes must agree, got {', '.join(f'{name} {shape}' for name, shape in shapes.items())}")
