"""Training sparse autoencoders beside overcomplete, SAELens and dictionary_learning: tokens, memory and loss of a step.

Signals of 384 numbers that 24 planted directions make, 1,024 to a batch; Adam, float32, gradients clipped; encoder and
dictionary begin as the same atoms, and where dead latents have a loss an eighth of the latents begin with a bias that
keeps them from firing. All take the same batches in turns; another row compares the variance that is left unexplained
after the same number of steps from the start. Memory is what a forward pass keeps for its backward pass, weights and
signals excepted. Peers that are not installed have no rows.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator
from typing import Any

import torch
from _paired import command, paired, row, time_row
from _sae_peers import peer
from torch import Tensor, nn

from sparsepriors.dictionaries import AuxK, MatchingPursuit, SparseAutoencoder, fit
from sparsepriors.dictionaries.metrics import fvu
from sparsepriors.priors import BatchTopK, Prior, TopK

D, ACTIVE, BATCH, RATE, K, ATOMS, IDLE, EPOCHS = 384, 24, 1024, 1e-3, 32, 8, -0.5, 3
Trainer = tuple[Callable[[], object], Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]
"""Trains on all batches; the loss of a batch; reconstructions."""


def signals(count: int, features: int) -> Tensor:
    g = torch.Generator().manual_seed(0)
    directions = nn.functional.normalize(torch.randn(features, D, generator=g), dim=1)
    made = torch.empty(count, D)
    for block in made.split(BATCH):
        chosen = torch.randint(features, (len(block), ACTIVE), generator=g)
        size = 0.5 + torch.rand(len(block), ACTIVE, 1, generator=g)
        block.copy_((size * directions[chosen]).sum(dim=1))
    return made


def first_atoms(n: int) -> Tensor:
    return nn.functional.normalize(torch.randn(n, D, generator=torch.Generator().manual_seed(1)), dim=1)


@torch.no_grad()
def begin(decoder: Tensor, encoder: Tensor | None, bias: Tensor | None, aux: AuxK | None) -> None:
    """Set weights to the first atoms, one a row, and the biases of idle latents."""
    atoms = first_atoms(len(decoder))
    decoder.copy_(atoms)
    if encoder is not None and bias is not None:
        encoder.copy_(atoms)
        bias.zero_()
        if aux is not None:
            bias[:len(bias) // 8] = IDLE


def ours(prior: Prior, n: int, batches: list[Tensor], aux: AuxK | None) -> Trainer:
    sae = SparseAutoencoder(D, n, prior, aux=aux)
    begin(sae.W_dec, sae.W_enc, sae.b_enc, aux)

    def train() -> None:
        fit(sae, batches, steps=len(batches), lr=RATE, schedule=lambda step: 1.0, bias=None)

    return train, lambda x: sae.train()(x).loss, lambda x: sae.train()(x).recon


class LinearEncoder(nn.Module):
    """Pre-activations and codes, as overcomplete's encoders give them, without normalisation."""

    def __init__(self, n: int) -> None:
        super().__init__()
        self.linear = nn.Linear(D, n)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Both of a batch."""
        pre = self.linear(x)
        return pre, torch.relu(pre)


def overcomplete(name: str, n: int, batches: list[Tensor], aux: AuxK | None) -> Trainer | None:
    module, training = peer("overcomplete", "sae"), peer("overcomplete", "sae", "train")
    losses = peer("overcomplete", "sae", "losses")
    if module is None or training is None or losses is None:
        return None
    made = {"TopK": lambda: module.TopKSAE(D, n, top_k=K, encoder_module=LinearEncoder(n)),
            "BatchTopK": lambda: module.BatchTopKSAE(D, n, top_k=K * BATCH, encoder_module=LinearEncoder(n)),
            "matching pursuit": lambda: module.MpSAE(D, n, k=ATOMS)}[name]()
    encoder = None if name == "matching pursuit" else made.encoder.linear
    begin(made.dictionary._weights, None if encoder is None else encoder.weight,
          None if encoder is None else encoder.bias, aux)
    optimizer = torch.optim.Adam(made.parameters(), lr=RATE)

    def mse(x: Tensor, recon: Tensor, *_: Any) -> Tensor:
        return (x - recon).square().mean()

    criterion = mse if aux is None else losses.top_k_auxiliary_loss

    def train() -> None:
        training.train_sae(made, batches, criterion, optimizer, nb_epochs=1, monitoring=0)

    def loss(x: Tensor) -> Tensor:
        pre, codes, recon = made.train()(x)
        return criterion(x, recon, pre, codes, made.get_dictionary())

    return train, loss, lambda x: made.train()(x)[2]


def sae_lens(name: str, n: int, batches: list[Tensor], aux: AuxK | None) -> Trainer | None:
    where = {"TopK": ("topk_sae", "TopK"), "BatchTopK": ("batchtopk_sae", "BatchTopK"),
             "matching pursuit": ("matching_pursuit_sae", "MatchingPursuit")}[name]
    module, base = peer("sae_lens", "saes", where[0]), peer("sae_lens", "saes", "sae")
    if module is None or base is None:
        return None
    options = {"residual_threshold": 0.0, "max_iterations": ATOMS} if name == "matching pursuit" else {"k": K}
    config = getattr(module, f"{where[1]}TrainingSAEConfig")(d_in=D, d_sae=n, decoder_init_norm=1.0, **options)
    made = getattr(module, f"{where[1]}TrainingSAE")(config)
    coded = name != "matching pursuit"
    begin(made.W_dec, made.W_enc.mT if coded else None, made.b_enc if coded else None, aux)
    optimizer = torch.optim.Adam(made.parameters(), lr=RATE)
    idle = torch.zeros(n, dtype=torch.int64)
    dead = torch.arange(n) < n // 8

    def forward(x: Tensor) -> Any:
        return made.train().training_forward_pass(base.TrainStepInput(
            sae_in=x, coefficients={}, dead_neuron_mask=dead if aux else None, n_training_steps=1,
            is_logging_step=False))

    def train() -> None:
        for x in batches:
            out = forward(x)
            with torch.no_grad():
                fired = out.feature_acts.bool().float().sum(0).bool()
                idle.add_(1)[fired] = 0
            out.loss.backward()
            nn.utils.clip_grad_norm_(made.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()

    return train, lambda x: forward(x).loss, lambda x: forward(x).sae_out


def dictionary_learning(name: str, n: int, batches: list[Tensor], aux: AuxK | None) -> Trainer | None:
    where = {"TopK": ("top_k", "TopKTrainer"), "BatchTopK": ("batch_top_k", "BatchTopKTrainer")}.get(name)
    module = None if where is None else peer("dictionary_learning", "trainers", where[0])
    if module is None or where is None:
        return None
    made = getattr(module, where[1])(steps=10**6, activation_dim=D, dict_size=n, k=K, layer=0, lm_name="", lr=RATE,
                                     warmup_steps=0, seed=0, device="cpu")
    begin(made.ae.decoder.weight.mT, made.ae.encoder.weight, made.ae.encoder.bias, aux)
    if aux is not None:
        made.dead_feature_threshold = aux.dead_after

    def train() -> None:
        for x in batches:
            made.update(1, x)

    def loss(x: Tensor) -> Tensor:
        return made.loss(x, step=1)

    return train, loss, lambda x: made.ae.decode(made.ae.encode(x, **({"use_threshold": False}
                                                                      if name == "BatchTopK" else {})))


PEERS = {"overcomplete": overcomplete, "SAELens": sae_lens, "dictionary_learning": dictionary_learning}


def kept(loss: Callable[[Tensor], Tensor], x: Tensor, n: int) -> float:
    """Megabytes that the forward pass keeps for the backward pass; tensors as large as weights are the weights."""
    found: dict[int, int] = {}

    def pack(t: Tensor) -> Tensor:
        if t.numel() != n * D and t.data_ptr() != x.data_ptr():
            found[t.untyped_storage().data_ptr()] = t.untyped_storage().nbytes()
        return t

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        held = loss(x)
    del held
    return sum(found.values()) / 1e6


def unexplained(trainer: Trainer | None, x: Tensor) -> float:
    """Share of the variance that is left after training from the start."""
    assert trainer is not None
    trainer[0]()
    with torch.no_grad():
        return fvu(x, trainer[2](x))


def architectures() -> Iterator[tuple[str, str, Prior, AuxK | None]]:
    yield f"TopK, k = {K}", "TopK", TopK(K), None
    yield f"BatchTopK, k = {K}", "BatchTopK", BatchTopK(K), None
    yield f"BatchTopK, k = {K}, loss for dead latents", "BatchTopK", BatchTopK(K), AuxK(dead_after=BATCH)
    yield f"matching pursuit, {ATOMS} atoms", "matching pursuit", MatchingPursuit(ATOMS), None


def compared(case: str, name: str, prior: Prior, aux: AuxK | None, n: int, batches: list[Tensor],
             pairs: int) -> list[dict[str, Any]]:
    rows = []
    for label, build in PEERS.items():
        theirs = build(name, n, batches, aux)
        if theirs is None:
            continue
        mine = ours(prior, n, batches, aux)
        found = paired(mine[0], theirs[0], pairs=pairs, budget=12)
        tokens = len(batches) * len(batches[0])
        timed = time_row(f"{case}, {n} latents", label, found, target=1.3)
        rows.append({**timed, "tokens_per_second": round(tokens * 1e3 / timed["ours"]),
                     "peer_tokens_per_second": round(tokens * 1e3 / timed["peer_value"])})
        held, peer_held = (kept(t[1], batches[0], n) for t in (mine, theirs))
        rows.append(row(f"{case}, {n} latents", "MB kept", round(held, 2), label, round(peer_held, 2),
                        round(peer_held / held, 2) if held else math.inf))
        del mine, theirs    # wide ones take gigabytes
        left = unexplained(ours(prior, n, EPOCHS * batches, aux), batches[0])
        peer_left = unexplained(build(name, n, EPOCHS * batches, aux), batches[0])
        rows.append(row(f"{case}, {n} latents, after {EPOCHS * len(batches)} steps", "unexplained", round(left, 4),
                        label, round(peer_left, 4), round(peer_left / left, 3)))
    return rows


def measure(quick: bool) -> list[dict[str, Any]]:
    n, count = (512, 2) if quick else (3072, 4)
    x = signals(count * BATCH, 2 * n)
    rows = []
    for case, name, prior, aux in architectures():
        rows += compared(case, name, prior, aux, n, list(x.split(BATCH)), 2 if quick else 5)
    for larger in () if quick else (2048, 8192, 32768, 65536):   # the cost of width
        rows += compared(f"TopK, k = {K}", "TopK", TopK(K), None, larger, [x[:BATCH]], 3)
    return rows


if __name__ == "__main__":
    sys.exit(command("autoencoders", __doc__ or "", measure) == [])
