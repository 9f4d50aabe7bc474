"""The trainers of transformers and Lightning run a plan, and resume to the same bits."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from sparse_nets import batch, network, plan_of
from sparsepriors import _files
from sparsepriors.networks.sparse.callbacks import plain_names

pytestmark = pytest.mark.slow
TOTAL = 12


def same(a, b):
    assert a.state_dict().keys() == b.state_dict().keys()
    return all(torch.equal(v, b.state_dict()[k]) for k, v in a.state_dict().items())


class Wrapped(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = network("mlp")

    def forward(self, x, labels):
        logits = self.net(x)
        return {"loss": nn.functional.cross_entropy(logits, labels), "logits": logits}


def hugging_face(folder, preset, *, stop=None, resume=None, accumulate=1):
    transformers = pytest.importorskip("transformers")
    from sparsepriors.networks.sparse.transformers_callback import SparsifyTrainer

    class Stop(transformers.TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            if state.global_step == stop:
                raise KeyboardInterrupt

    x, y = batch(0, 8 * TOTAL * accumulate)
    args = transformers.TrainingArguments(
        output_dir=str(folder), max_steps=TOTAL, per_device_train_batch_size=8, use_cpu=True, report_to=[],
        gradient_accumulation_steps=accumulate, save_strategy="steps", save_steps=5, learning_rate=1e-2,
        disable_tqdm=True, logging_strategy="no", remove_unused_columns=False, dataloader_pin_memory=False, seed=3)
    model, callback = Wrapped(), SparsifyTrainer(plan_of(preset))
    trainer = transformers.Trainer(
        model, args, train_dataset=[{"x": a, "labels": b} for a, b in zip(x, y, strict=True)],
        callbacks=[callback, *([Stop()] if stop is not None else [])])
    trainer.train(resume_from_checkpoint=resume)
    return model, callback


@pytest.mark.parametrize(("preset", "accumulate"), [("rigl", 2), ("sr-ste", 1)])
def test_the_trainer_of_transformers_resumes_to_the_same_bits(tmp_path, preset, accumulate):
    model, callback = hugging_face(tmp_path / "whole", preset, accumulate=accumulate)
    report = callback.report
    assert report is not None
    assert report.steps == TOTAL
    assert report.density == pytest.approx(0.3 if preset == "rigl" else 0.5, abs=0.01)
    weights = dict(model.named_parameters())
    assert weights.keys() == dict(Wrapped().named_parameters()).keys()
    assert all(bool((weights[n][~m] == 0).all()) for n, m in report.masks.items())
    with pytest.raises(KeyboardInterrupt):
        hugging_face(tmp_path / "parts", preset, stop=7, accumulate=accumulate)
    folder = tmp_path / "parts" / "checkpoint-5"
    assert set(_files.read_tensors(folder / "model.safetensors")) == set(model.state_dict())
    resumed, again = hugging_face(tmp_path / "parts", preset, resume=str(folder), accumulate=accumulate)
    assert again.report is not None
    assert again.report.to_dict() == report.to_dict()
    assert same(model, resumed)


def lightning(folder, preset, *, stop=None, resume=None):
    pl = pytest.importorskip("lightning.pytorch")
    from sparsepriors.networks.sparse.lightning_callback import SparsifyLightning

    class Module(pl.LightningModule):
        def __init__(self):
            super().__init__()
            self.net = network("mlp")

        def training_step(self, rows, index):
            x, y = rows
            return nn.functional.cross_entropy(self.net(x), y)

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), 0.05, momentum=0.9)

    class Stop(pl.Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            if trainer.global_step == stop:
                raise RuntimeError("stop")

    data = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(*batch(0, 4 * TOTAL)), batch_size=8)
    model, callback = Module(), SparsifyLightning(plan_of(preset))
    keep = pl.callbacks.ModelCheckpoint(folder, filename="{epoch}", save_on_train_epoch_end=True, save_top_k=-1)
    trainer = pl.Trainer(max_epochs=2, accelerator="cpu", devices=1, logger=False, enable_progress_bar=False,
                         enable_model_summary=False, default_root_dir=folder,
                         callbacks=[callback, keep, *([Stop()] if stop is not None else [])])
    trainer.fit(model, data, ckpt_path=resume)
    return model, callback


# What Lightning says of its own calls of torch, and of loaders and loggers that this test does without.
@pytest.mark.filterwarnings("ignore:.*treespec:FutureWarning", "ignore:.*not have many workers", "ignore:.*not empty")
@pytest.mark.parametrize("preset", ["rigl", "sr-ste"])
def test_the_trainer_of_lightning_resumes_to_the_same_bits(tmp_path, preset):
    model, callback = lightning(tmp_path / "whole", preset)
    report = callback.report
    assert report is not None
    assert report.steps == TOTAL
    assert report.updates == {"rigl": 2, "sr-ste": TOTAL}[preset]
    weights = dict(model.named_parameters())
    assert all(bool((weights[n][~m] == 0).all()) for n, m in report.masks.items())
    with pytest.raises(RuntimeError, match="stop"):
        lightning(tmp_path / "parts", preset, stop=8)
    resumed, again = lightning(tmp_path / "parts", preset, resume=str(tmp_path / "parts" / "epoch=0.ckpt"))
    assert again.report is not None
    assert again.report.to_dict() == report.to_dict()
    assert same(model, resumed)


def test_plain_names_are_those_of_the_plain_model():
    from sparse_nets import optimizer_of, sparsifier_of

    model = network("residual")
    want = {k: v.clone() for k, v in model.state_dict().items()}
    sparsifier_of(model, plan_of("sr-ste"), optimizer_of(model))
    found = plain_names(model.state_dict())
    assert found.keys() == want.keys()
    assert all(torch.equal(v, want[k]) for k, v in found.items())


@pytest.mark.public_door
def test_trainings_that_a_plan_cannot_follow_are_refused():
    pytest.importorskip("lightning.pytorch")
    from types import SimpleNamespace

    from sparsepriors.networks.sparse.lightning_callback import SparsifyLightning

    callback = SparsifyLightning(plan_of("rigl"))
    model = network("mlp")
    with pytest.raises(ValueError, match="follows one optimizer, the module has 2"):
        callback.on_train_start(SimpleNamespace(optimizers=[None, None]), model)
    with pytest.raises(ValueError, match="give the trainer max_epochs or max_steps"):
        callback.on_train_start(SimpleNamespace(optimizers=[None], estimated_stepping_batches=float("inf")), model)
