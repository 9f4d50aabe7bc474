import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from sparsepriors import _files
from sparsepriors.networks.batches import Drawn, Shuffled
from sparsepriors.networks.hooks import ClipGradNorm, EarlyStopping, KeepBest, ReduceOnPlateau
from sparsepriors.networks.schedules import cosine, staircase
from sparsepriors.networks.train_loop import Hook, TrainingDivergedError, TrainLoop


def make(steps=12, checkpoint=None, hooks=(), seed=3, every=5, **kwargs) -> Any:
    start = torch.Generator().manual_seed(seed)
    model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.3), nn.Linear(8, 1))
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(torch.randn(p.shape, generator=start) * 0.3)
    x = torch.randn(22, 4, generator=start)
    y = x.sum(1, keepdim=True)

    def loss(model, batch, generator):
        rows, target = batch
        return nn.functional.mse_loss(model(rows + 0.1 * torch.randn(rows.shape, generator=generator)), target)

    return TrainLoop(model, torch.optim.Adam(model.parameters(), 1e-2), loss, Shuffled(x, y, batch_size=4), steps=steps,
                     generator=torch.Generator().manual_seed(seed + 1), schedule=cosine(steps, warmup=2), hooks=hooks,
                     validate=lambda m: {"mse": nn.functional.mse_loss(m(x), y).item()}, validate_every=3,
                     checkpoint=checkpoint, checkpoint_every=every if checkpoint else 0, **kwargs)


def bits(loop):
    adam = loop.optimizer.state_dict()["state"]
    return [*loop.model.state_dict().values(), *(v for s in adam.values() for v in s.values()),
            loop.generator.get_state(), *(torch.tensor(v, dtype=torch.float64) for v in loop.trace.values())]


def assert_same_bits(a, b):
    for u, v in zip(bits(a), bits(b), strict=True):
        assert torch.equal(u, v)


class Record(Hook):
    def __init__(self, log, name):
        self.log, self.name = log, name

    def on_start(self, loop):
        self.log.append((self.name, "on_start"))

    def before_step(self, loop):
        self.log.append((self.name, "before_step"))

    def after_backward(self, loop):
        assert all(p.grad is not None for p in loop.model.parameters())
        self.log.append((self.name, "after_backward"))

    def after_step(self, loop):
        self.log.append((self.name, "after_step"))

    def after_validation(self, loop, metrics):
        assert not loop.model.training
        self.log.append((self.name, "after_validation"))

    def on_end(self, loop):
        self.log.append((self.name, "on_end"))


def test_hooks_run_in_the_documented_order():
    log = []
    make(steps=3, hooks=[Record(log, "a"), Record(log, "b")]).fit()
    step = ["before_step", "after_backward", "after_step"]
    moments = ["on_start", *step, *step, *step, "after_validation", "on_end"]
    assert log == [(name, m) for m in moments for name in "ab"]


def test_training_lowers_the_loss_and_the_schedule_sets_the_rate():
    loop = make(steps=300)
    done = loop.fit()
    assert done.steps == 300
    assert done.stopped == "steps"
    losses = done.trace["loss"]
    assert sum(losses[-20:]) < 0.5 * sum(losses[:20])
    assert done.trace["lr"][0] == pytest.approx(0.5e-2)
    assert done.trace["lr"][1] == pytest.approx(1e-2)
    assert done.trace["lr"][-1] < 1e-5
    assert done.trace["validation/step"] == list(range(3, 301, 3))


def test_same_seed_same_bits_and_the_callers_generator_is_left_alone():
    before = torch.get_rng_state()
    a, b, c = make(), make(), make(seed=4)
    made = torch.get_rng_state()
    a.fit()
    assert torch.equal(torch.get_rng_state(), made)
    torch.manual_seed(99)
    b.fit()
    torch.set_rng_state(before)
    c.fit()
    assert_same_bits(a, b)
    assert not torch.equal(bits(a)[0], bits(c)[0])


@pytest.mark.parametrize("cut", [1, 5, 6, 11])
def test_a_stopped_run_resumes_to_the_same_bits(tmp_path, cut):
    def hooks():
        return [ClipGradNorm(0.5), ReduceOnPlateau("mse", patience=1, factor=0.5), KeepBest("mse")]

    whole = make(hooks=hooks())
    whole.fit()
    first = make(checkpoint=tmp_path / "c.safetensors", hooks=hooks())
    assert first.fit(callback=lambda s: s.step == cut).stopped == "callback"
    second = make(checkpoint=tmp_path / "c.safetensors", hooks=hooks(), seed=3)
    second.generator.manual_seed(1234)  # the checkpoint's state must win
    second.fit(resume=True)
    assert_same_bits(whole, second)
    finished = make(checkpoint=tmp_path / "c.safetensors", hooks=hooks())
    assert finished.fit(resume=True).steps == 12
    assert_same_bits(whole, finished)


SCRIPT = """
    import os, signal, sys
    sys.path.insert(0, {folder!r})
    import torch
    torch.set_num_threads(1)
    from test_train_loop import make, bits
    from sparsepriors import _files
    steps, path, kill = 60, {path!r}, int(sys.argv[1])
    loop = make(steps=steps, checkpoint=path, every=7)
    def callback(state):
        if state.step == kill:
            os.kill(os.getpid(), signal.{signal})
    loop.fit(callback=callback, resume=True)
    _files.write_tensors({path!r} + ".out", {{str(i): t.clone() for i, t in enumerate(bits(loop))}})
"""


def run_script(path, kill, sig="SIGKILL"):
    code = textwrap.dedent(SCRIPT.format(folder=str(Path(__file__).parent), path=str(path), signal=sig))
    return subprocess.run([sys.executable, "-c", code, str(kill)], capture_output=True, text=True,
                          env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}, check=False)


def test_killed_runs_resume_to_the_same_bits(tmp_path):
    path = tmp_path / "c.safetensors"
    for kill in (3, 20, 50):
        assert run_script(path, kill).returncode == -signal.SIGKILL
        assert path.exists() == (kill > 7)
    assert run_script(path, -1).returncode == 0
    whole = make(steps=60)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    whole.fit()
    torch.set_num_threads(threads)
    out = _files.read_tensors(str(path) + ".out")
    for i, t in enumerate(bits(whole)):
        assert torch.equal(out[str(i)], t)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["c.safetensors", "c.safetensors.out"]


def test_ctrl_c_finishes_the_step_and_writes_the_checkpoint(tmp_path):
    path = tmp_path / "c.safetensors"
    handler = signal.getsignal(signal.SIGINT)

    class Interrupt(Hook):
        at = 3

        def after_backward(self, loop):
            if loop.step == self.at:
                os.kill(os.getpid(), signal.SIGINT)

    interrupted = make(checkpoint=path, hooks=[Interrupt()])
    with pytest.raises(KeyboardInterrupt):
        interrupted.fit()
    assert interrupted.step == 4
    assert signal.getsignal(signal.SIGINT) is handler
    Interrupt.at = -1
    loop = make(checkpoint=path, hooks=[Interrupt()])
    loop.fit(resume=True)
    whole = make()
    whole.fit()
    assert_same_bits(whole, loop)


def test_a_write_that_fails_leaves_the_old_checkpoint(tmp_path, monkeypatch):
    path = tmp_path / "c.safetensors"
    make(steps=4, checkpoint=path).fit()
    old = path.read_bytes()

    def full(source, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="No space"):
        make(checkpoint=path).fit()
    assert path.read_bytes() == old
    assert list(tmp_path.iterdir()) == [path]


def test_a_nan_loss_is_an_error_before_it_reaches_the_weights():
    loop = make()
    plain = loop.loss
    loop.loss = lambda m, b, g: plain(m, b, g) * (float("nan") if loop.step == 5 else 1.0)
    with pytest.raises(TrainingDivergedError, match="nan at step 5"):
        loop.fit()
    assert all(p.isfinite().all() for p in loop.model.parameters())
    assert loop.step == 5


def test_plateau_early_stopping_and_best_weights():
    values = iter([3.0, 2.0, 2.5, 2.5, 2.5, 2.5, 2.5])
    seen = []
    loop = make(steps=100, hooks=[ReduceOnPlateau("m", patience=2, factor=0.5), KeepBest("m"),
                                  EarlyStopping("m", patience=4)])

    def validate(model):
        seen.append(model[0].weight.clone())
        return {"m": next(values)}

    loop.validate = validate
    done = loop.fit()
    assert done.stopped == "no better m for 4 validations"
    assert len(seen) == 6
    assert loop.lr_scale == 0.25
    assert torch.equal(loop.model[0].weight, seen[1])


def test_early_stopping_survives_a_resume(tmp_path):
    def stopped():
        patience = EarlyStopping("mse", patience=1, margin=9)
        return make(steps=100, checkpoint=tmp_path / "c.safetensors", hooks=[patience])

    first = stopped().fit()
    assert first.steps == 6
    assert stopped().fit(resume=True) == first


def test_a_watched_metric_that_is_not_there_is_named():
    with pytest.raises(KeyError, match="watches 'acc', but validate returned mse"):
        make(hooks=[KeepBest("acc", better="higher")]).fit()


def test_a_checkpoint_of_another_training_is_refused(tmp_path):
    path = tmp_path / "c.safetensors"
    make(steps=3, checkpoint=path).fit()
    other = make(checkpoint=path)
    other.model[4] = nn.Linear(8, 2)
    with pytest.raises(ValueError, match="does not fit this training"):
        other.fit(resume=True)
    with pytest.raises(ValueError, match=r"its hooks are \[\]"):
        make(checkpoint=path, hooks=[KeepBest("mse")]).fit(resume=True)
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(ValueError, match="not a readable safetensors"):
        make(checkpoint=path).fit(resume=True)


@pytest.mark.public_door
def test_bad_arguments_are_named():
    absent: Any = None
    with pytest.raises(ValueError, match="steps must be at least 1"):
        TrainLoop(absent, absent, absent, absent, steps=0, generator=torch.Generator())
    with pytest.raises(TypeError, match=r"generator must be a torch\.Generator"):
        TrainLoop(absent, absent, absent, absent, steps=1, generator=absent)
    with pytest.raises(ValueError, match="resume needs a checkpoint"):
        make().fit(resume=True)
    opt = torch.optim.SGD(nn.Linear(1, 1).parameters(), 0.1)
    with pytest.raises(ValueError, match="go together"):
        TrainLoop(nn.Linear(1, 1), opt, lambda m, b, g: b, Drawn(lambda g: 0), steps=1,
                  generator=torch.Generator(), validate_every=3)
    with pytest.raises(ValueError, match="needs a checkpoint file"):
        TrainLoop(nn.Linear(1, 1), opt, lambda m, b, g: b, Drawn(lambda g: 0), steps=1,
                  generator=torch.Generator(), checkpoint_every=3)
    with pytest.raises(ValueError, match="batch_size must be from 1 to 3"):
        Shuffled(torch.zeros(3), batch_size=4)
    with pytest.raises(ValueError, match="share their first axis"):
        Shuffled(torch.zeros(3), torch.zeros(4), batch_size=2)
    with pytest.raises(ValueError, match="milestones"):
        staircase([5, 5])


def test_every_row_comes_once_an_epoch():
    data = Shuffled(torch.arange(12), batch_size=4)
    g = torch.Generator().manual_seed(0)
    first, second = [torch.cat([data.next(g)[0] for _ in range(3)]) for _ in range(2)]
    assert sorted(first.tolist()) == list(range(12)) == sorted(second.tolist())
    assert first.tolist() != second.tolist()


def test_schedules():
    c = cosine(10, warmup=2, final=0.1)
    assert [c(0), c(1), c(2)] == [0.5, 1.0, 1.0]
    assert c(6) == pytest.approx(0.55)
    assert c(10) == pytest.approx(0.1) == c(99)
    s = staircase([2, 4], factor=0.5)
    assert [s(i) for i in range(6)] == [1, 1, 0.5, 0.5, 0.25, 0.25]
