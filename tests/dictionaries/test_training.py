"""Training of sparse autoencoders: planted dictionaries are found, and an interrupted training is the whole one."""

from __future__ import annotations

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import Tensor

from sparsepriors.dictionaries import AuxK, SparseAutoencoder, fit, geometric_median
from sparsepriors.dictionaries.learning import random_atoms
from sparsepriors.dictionaries.sources import mapped
from sparsepriors.networks.train_loop import Hook, TrainLoop
from sparsepriors.priors import L1, BatchTopK, JumpReLU, Matryoshka, Prior, TopK


def planted(n: int = 4096, units: int = 24, features: int = 16) -> tuple[Tensor, Tensor]:
    """Signals of few nonnegative codes in a random dictionary."""
    g = torch.Generator().manual_seed(0)
    atoms = random_atoms(units, features, g)
    codes = (torch.rand(n, units, generator=g) < 0.08) * (1 + torch.rand(n, units, generator=g))
    return codes @ atoms, atoms


def fresh(prior: Prior, **options: object) -> SparseAutoencoder:
    return SparseAutoencoder(16, 48, prior, generator=torch.Generator().manual_seed(1), **options)


@pytest.mark.parametrize("prior", [TopK(2), BatchTopK(2)], ids=lambda p: type(p).__name__)
def test_a_planted_dictionary_is_found(prior: Prior) -> None:
    x, atoms = planted()
    sae = fresh(prior, aux=AuxK())
    done = fit(sae, x, steps=300, batch=256, lr=5e-3)
    cosines = (torch.nn.functional.normalize(sae.W_dec.detach(), dim=1) @ atoms.mT).amax(dim=0)
    assert float(cosines.median()) > 0.95
    assert np.mean(done.trace["reconstruction"][-20:]) < 0.4 * np.mean(done.trace["reconstruction"][:20])
    torch.testing.assert_close(sae.W_dec.detach().norm(dim=1), torch.ones(48))


@pytest.mark.parametrize(("prior", "listed"), [(BatchTopK(2), False), (JumpReLU(0.1, 0.01, 0.05), True),
                                               (Matryoshka(L1(0.02), draws=2), False)], ids=str)
def test_a_resumed_training_ends_with_the_same_bits(prior: Prior, listed: bool, tmp_path) -> None:
    rows, _ = planted(512)
    x = list(rows.split(64)) if listed else rows
    options = {"steps": 12, "batch": 64, "lr": 1e-2, "resample_every": 5, "input_scale": "mean square"}
    whole = fresh(prior, aux=AuxK(dead_after=70))
    kept = fit(whole, x, **options)
    first = fresh(prior, aux=AuxK(dead_after=70))
    fit(first, x, **options, checkpoint=tmp_path / "state.safetensors", callback=lambda state: state.step == 7)
    again = fresh(prior, aux=AuxK(dead_after=70))
    resumed = fit(again, x, **options, checkpoint=tmp_path / "state.safetensors", resume=True)
    assert all(torch.equal(a, b) for a, b in zip(whole.state_dict().values(), again.state_dict().values(), strict=True))
    assert resumed.trace == kept.trace


def test_several_at_once_are_each_as_alone() -> None:
    x, _ = planted(512)
    options = {"steps": 10, "batch": 64}
    together = [fresh(TopK(2)), fresh(BatchTopK(3), aux=AuxK(dead_after=64))]
    trace = fit(together, x, **options, lr=(1e-2, 3e-3)).trace
    for i, rate in enumerate((1e-2, 3e-3)):
        alone = fresh((TopK(2), BatchTopK(3))[i], aux=(None, AuxK(dead_after=64))[i])
        one = fit(alone, x, **options, lr=rate).trace
        assert one["reconstruction"] == trace[f"{i}/reconstruction"]
        assert torch.equal(alone.W_dec, together[i].W_dec)


def test_files_and_iterables_are_sources(tmp_path) -> None:
    x, _ = planted(512)
    np.save(tmp_path / "x.npy", x.numpy())
    safetensors.torch.save_file({"activations": x, "other": x[:2].clone()}, tmp_path / "x.safetensors")
    traces = [fit(fresh(TopK(2)), source, steps=8, batch=64, lr=1e-2).trace
              for source in (x, tmp_path / "x.npy", str(tmp_path / "x.safetensors"))]
    assert traces[0] == traces[1] == traces[2]
    again = fit(fresh(TopK(2)), list(x.split(128)), steps=8).trace     # begun again after four
    once = fit(fresh(TopK(2)), (b for b in [*x.split(128)] * 2), steps=8).trace
    assert again == once
    with pytest.raises(ValueError, match="source ended after 4 batches"):
        fit(fresh(TopK(2)), iter(x.split(128)), steps=8)


def test_dead_latents_begin_again_at_badly_reconstructed_signals() -> None:
    x, _ = planted(512)
    sae = fresh(TopK(2), aux=AuxK(dead_after=64))
    with torch.no_grad():
        sae.b_enc[:10] = -100.0
    seen: list[Tensor] = []

    class Look(Hook):
        def after_step(self, loop: TrainLoop) -> None:
            if loop.step == 3:
                seen.extend(p.detach().clone() for p in (sae.W_dec, sae.W_enc, sae.b_enc, sae.b_dec))
                seen.append(loop.optimizer.state[sae.W_dec]["exp_avg"].clone())

    fit(sae, [x[:64]], steps=4, lr=1e-2, resample_every=3, hooks=[Look()])
    W_dec, W_enc, b_enc, b_dec, moment = seen
    towards = torch.nn.functional.normalize(x[:64] - b_dec, dim=1)
    cosines = W_dec[:10] @ towards.mT
    torch.testing.assert_close(cosines.amax(dim=1), torch.ones(10))
    assert len(set(cosines.argmax(dim=1).tolist())) == 10
    torch.testing.assert_close(torch.nn.functional.normalize(W_enc[:10], dim=1), W_dec[:10])
    assert W_enc[:10].norm(dim=1).tolist() == pytest.approx([0.2 * float(W_enc[10:].norm(dim=1).mean())] * 10, rel=0.1)
    assert not bool(b_enc[:10].any())
    assert not bool(moment[:10].any())
    assert bool(moment[10:].any())


@pytest.mark.parametrize(("asked", "wanted"), [("mean square", lambda x: x.square().sum(1).mean() ** -0.5),
                                               ("mean norm", lambda x: 4 / x.norm(dim=1).mean()), (2.0, lambda x: 2.0)])
def test_the_input_scale_is_that_of_the_first_batch(asked, wanted) -> None:
    x, _ = planted(256)
    sae = fresh(TopK(2))
    fit(sae, [x], steps=1, input_scale=asked, bias="mean")
    assert float(sae.input_scale) == pytest.approx(float(wanted(x)), rel=1e-6)


def test_a_schedule_weighs_the_penalty() -> None:
    x, _ = planted(256)
    trace = fit(fresh(L1(0.5)), [x], steps=4, lr=1e-12, sparsity_schedule=lambda step: step / 2).trace["sparsity"]
    assert trace == pytest.approx([0, trace[2] / 2, trace[2], 1.5 * trace[2]], rel=1e-4)
    assert trace[2] > 0


def test_files_that_cannot_be_read_are_refused(tmp_path) -> None:
    (tmp_path / "text.npy").write_bytes(b"not an array")
    (tmp_path / "text.safetensors").write_bytes(b"nor tensors")
    (tmp_path / "x.csv").write_text("1,2")
    safetensors.torch.save_file({"a": torch.ones(2, 2), "b": torch.ones(2, 2)}, tmp_path / "two.safetensors")
    (tmp_path / "pickle.npy").write_bytes(b"\x80\x04\x95\x0c\x00\x00\x00\x00\x00\x00\x00\x8c\x08not code\x94.")
    for name, words in (("text.npy", "not a readable array"), ("pickle.npy", r"does not begin as a \.npy file does$"),
                        ("text.safetensors", "not a readable safetensors file"),
                        ("x.csv", "must end in .npy or .safetensors"), ("two.safetensors", "must hold one tensor or")):
        with pytest.raises(ValueError, match=words):
            mapped(tmp_path / name)


def test_the_geometric_median_resists_outliers() -> None:
    g = torch.Generator().manual_seed(0)
    points = torch.randn(200, 3, generator=g, dtype=torch.float64)
    points[:60] += 1000
    median = geometric_median(points, tol=1e-12, max_iter=10_000)
    assert float(median.norm()) < 1.5
    pull = torch.nn.functional.normalize(points - median, dim=1).sum(dim=0)   # zero at the optimum
    assert float(pull.norm()) < 1e-5
    assert torch.equal(geometric_median(torch.ones(4, 2)), torch.ones(2))


@pytest.mark.public_door
def test_bad_trainings_are_refused(tmp_path) -> None:
    x, _ = planted(128)
    sae = fresh(TopK(2))
    poisoned = x.clone()
    poisoned[3, 3] = torch.nan
    for source, options, error, words in (
            (x, {"steps": 0}, ValueError, "steps must be at least 1"),
            (x, {"lr": (1e-3, 1e-3)}, ValueError, "lr must be one number or one for each of 1"),
            (x, {"bias": "median"}, ValueError, "did you mean"),
            (x, {"input_scale": "mean sqare"}, ValueError, "did you mean 'mean square'"),
            (x[:, :5], {}, ValueError, "x must have shape"),
            (poisoned, {"batch": 128}, ValueError, "x holds NaN"),
            (x.long(), {}, ValueError, "source must be floating point"),
            (7, {}, TypeError, "source must be a tensor"),
            (tmp_path / "none.npy", {}, FileNotFoundError, "there is no file"),
            (x, {"batch": 129}, ValueError, "batch must be from 1 to 128")):
        with pytest.raises(error, match=words):
            fit(sae, source, **{"steps": 2, "batch": 32, **options})
    for points in (torch.empty(0, 2), torch.ones(3)):
        with pytest.raises(ValueError, match="points must have shape"):
            geometric_median(points)
    with pytest.raises(TypeError, match="sae must be a SparseAutoencoder"):
        fit([torch.nn.Linear(2, 2)], x, steps=1)
    with pytest.raises(ValueError, match="different autoencoders"):
        fit([sae, sae], x, steps=1, batch=8)
