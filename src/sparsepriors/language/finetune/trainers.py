"""The loop of fine-tuning: all weights of a small causal language model, or a subnetwork of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from sparsepriors import _checks
from sparsepriors.language.analysis.update_masks import UpdateMask
from sparsepriors.language.finetune.methods import Method
from sparsepriors.networks.hooks import ClipGradNorm
from sparsepriors.networks.schedules import trapezoid
from sparsepriors.networks.sparse.frozen import FreezeOutside
from sparsepriors.networks.train_loop import Hook, Training, TrainLoop, TrainState


def finetune(policy: nn.Module, method: Method, *, steps: int, lr: float, generator: torch.Generator, warmup: int = 0,
             clip: float | None = 1.0, weight_decay: float = 0.0, betas: tuple[float, float] = (0.9, 0.999),
             mask: UpdateMask | None = None, hooks: Sequence[Hook] = (),
             callback: Callable[[TrainState], bool | None] | None = None) -> Training:
    """Fine-tune a policy in place with AdamW: linear warm-up, linear decay to zero, gradients clipped.

    Training happens in the type of the policy's parameters. Give it in float32 and cast a copy afterwards for what
    mixed-precision training with float32 masters publishes; a policy in bfloat16 loses, at every step, changes that
    are too small for its weights, which is another and larger sparsity.

    Parameters
    ----------
    policy
        A causal language model that maps tokens to logits, or to an object with ``logits``.
    method
        `SFT`, `RFT`, `DPO`, `GRPO`, or a `Method` of one's own.
    steps, lr, warmup
        Steps, the largest learning rate, and steps until it is reached.
    generator
        The only source of randomness.
    clip
        Largest norm of the gradients; ``None`` leaves them as they are.
    weight_decay, betas
        Of AdamW. Any decay moves every weight.
    mask
        Train these entries alone, all others stay as they are; see `finetune_subnetwork`.
    hooks, callback
        Of `networks.TrainLoop`.

    Returns
    -------
    Training
        Its trace has the loss and the learning rate of every step, which `predicted_floor` takes.

    Raises
    ------
    TypeError, ValueError
        If a number is out of range, or the mask is of another model or empty.
    """
    _checks.positive("lr", lr)
    schedule = trapezoid(steps, warmup=warmup, decay=steps - warmup)
    batches, loss = method.prepare(policy, generator)
    optimizer = torch.optim.AdamW(policy.parameters(), lr=lr, betas=betas, weight_decay=weight_decay)
    loop = TrainLoop(policy, optimizer, loss, batches, steps=steps, generator=generator, schedule=schedule,
                     hooks=hooks if clip is None else (ClipGradNorm(clip), *hooks))
    if mask is None:
        return loop.fit(callback=callback)
    trained = mask.fits(policy)
    masks = {name: mask[name] if name in trained else torch.zeros_like(p, dtype=torch.bool)
             for name, p in policy.named_parameters()}
    with FreezeOutside(policy, optimizer, masks):
        return loop.fit(callback=callback)


def finetune_subnetwork(policy: nn.Module, mask: UpdateMask, method: Method, **options: Any) -> Training:
    """Fine-tune the entries of a mask alone: gradients of all others are zero right before each step.

    With the policy, method, generator and options from which the mask was made, it is the paper's test of whether the
    subnetwork alone gives the model that training everything gave (arXiv:2505.11711, conjecture 1). Gradients are
    clipped before they are masked, so that the factor is that of the whole training.

    Parameters and errors are those of `finetune`; parameters that the mask does not name stay as they are.
    """
    return finetune(policy, method, mask=mask, **options)


def snapshot(policy: nn.Module, dtype: torch.dtype = torch.bfloat16) -> dict[str, Tensor]:
    """Copies of a policy's parameters in another type, as a model is published."""
    _checks.inexact_dtype("dtype", dtype)
    return {name: p.detach().to(dtype, copy=True) for name, p in policy.named_parameters()}
