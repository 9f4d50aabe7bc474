"""Whatever fails while a file is written, a reader finds the old content or the whole new one, and no stray file.

Every writer of the package is run again and again, with its first call to the file system failing, then its second,
and so on until it succeeds.
"""

import builtins
import dataclasses
import errno
import hashlib
import io
import os
import urllib.request
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn
from typer.testing import CliRunner

from sparsepriors import _files, papers
from sparsepriors.cli import app
from sparsepriors.data.arrays import read_arrays
from sparsepriors.data.find import Source, find_file
from sparsepriors.data.radar_files import Measurement, write_measurement, write_volume
from sparsepriors.gallery import write_report
from sparsepriors.gallery.demo import Panel, write_demo
from sparsepriors.networks import sparsity_report
from sparsepriors.networks.batches import Drawn
from sparsepriors.networks.checkpoints import load_checkpoint, save_checkpoint
from sparsepriors.networks.train_loop import TrainLoop
from sparsepriors.priors.denoisers import Denoiser, UNet
from sparsepriors.runs import Run, Scale
from sparsepriors.runs.execute import execute, read_status
from sparsepriors.runs.results import publish
from sparsepriors.runs.schema import read_results

TINY = papers.from_file(Path(__file__).parents[1] / "tiny_paper.py")
FAULTS = ("EIO", "ENOSPC", "short write", "interrupt", "late interrupt")
POINTS: Counter[str] = Counter()


class Faults:
    """The calls that change files under a folder, one of which fails."""

    def __init__(self, folder: Path, fail: int, fault: str) -> None:
        self.folder, self.fail, self.fault = folder, fail, fault
        self.calls, self.open = 0, io.open

    def call(self, do, half=None):
        self.calls += 1
        if self.calls != self.fail:
            return do()
        if self.fault == "late interrupt" and isinstance(made := do(), io.IOBase):
            made.close()
        if self.fault == "short write" and half is not None:
            half()
        if self.fault.endswith("interrupt"):
            raise KeyboardInterrupt
        code = errno.EIO if self.fault == "EIO" else errno.ENOSPC
        raise OSError(code, os.strerror(code))

    def opened(self, file, mode="r", *args, **kwargs):
        here = (isinstance(file, str | os.PathLike) and Path(file).is_relative_to(self.folder)
                and not Path(file).is_dir())  # a file without a name is opened by its folder
        if here and set(mode) & set("wax+"):
            return self.call(lambda: _File(self, file, mode.replace("b", "").replace("t", "")))
        if here and str(file).endswith(".part"):
            return self.call(lambda: self.open(file, mode, *args, **kwargs))
        return self.open(file, mode, *args, **kwargs)


class _File(io.FileIO):
    def __init__(self, faults: Faults, file, mode: str) -> None:
        super().__init__(file, mode)
        self.faults = faults

    def write(self, data) -> int:
        write, some = super().write, memoryview(data).cast("B")
        return self.faults.call(lambda: write(some), lambda: write(some[:len(some) // 2]))


def attempt(write: Callable[[Path], object], folder: Path, fail: int, fault: str) -> tuple[bool, bool]:
    """Write with call number ``fail`` failing; whether that many calls were made, and whether the writer succeeded."""
    faults = Faults(folder, fail, fault)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(builtins, "open", faults.opened)
        patch.setattr(io, "open", faults.opened)
        for name in ("fsync", "replace", "rename"):
            real = getattr(os, name)
            patch.setattr(os, name, lambda *a, real=real, **k: faults.call(lambda: real(*a, **k)))
        try:
            write(folder)
        except (OSError, KeyboardInterrupt):
            return faults.calls >= fail, False
    return faults.calls >= fail, True


def content(path: Path):
    """What a reader finds in a whole file; clocks and memory, which differ between runs, are left out."""
    if path.name == "status.json":
        return read_status(path.parent) is not None
    if path.suffix == ".safetensors":  # the format does not fix the order of metadata
        tensors, metadata = _files.read_described_tensors(path)
        return {k: v.numpy().tobytes() for k, v in tensors.items()}, metadata
    if path.suffix == ".npz":
        return {k: v.tobytes() for k, v in read_arrays(path).items()}
    if path.parent.name == "results" and path.suffix == ".json":
        return {k: v for k, v in read_results(path).items() if k not in ("seconds", "peak_rss_mb")}
    return path.read_bytes()


def snapshot(folder: Path):
    return {str(p.relative_to(folder)): content(p) for p in sorted(folder.rglob("*")) if p.is_file()}


def check(folder: Path, old, new, *, succeeded: bool) -> None:
    found = snapshot(folder)
    found = {k: v for k, v in found.items() if not k.endswith("error.txt")}  # the command's account of the failure
    assert found == new if succeeded else set(found) <= set(old) | set(new)
    for name, value in found.items():
        assert value in (old.get(name, new.get(name)), new.get(name, old.get(name))), f"{name} is half-written"
    assert set(old) & set(new) <= set(found)


def faulted(tmp_path: Path, name: str, write: Callable[[Path, int], object], after=None, *, fresh=(True, False)):
    """Run a writer through every fault of every call, over nothing and over what it wrote before."""
    for empty in fresh:
        def prepared(folder: Path, empty=empty) -> Path:
            folder.mkdir()
            if not empty:
                write(folder, 0)
            return folder

        old = snapshot(prepared(tmp_path / f"{empty}-old"))
        clean = prepared(tmp_path / f"{empty}-new")
        write(clean, 1)
        new = snapshot(clean)
        assert new != old
        for fault in FAULTS:
            fail, reached = 1, True
            while reached:
                folder = prepared(tmp_path / f"{empty}-{fault}-{fail}")
                reached, succeeded = attempt(lambda f: write(f, 1), folder, fail, fault)
                check(folder, old, new, succeeded=succeeded)
                if after is not None:
                    after(folder, fault)
                POINTS[name] += reached
                fail += 1


class TwoLines(nn.Module):
    def __init__(self, version: int) -> None:
        super().__init__()
        self.line = nn.Linear(2, 3 + version)


def ones(version: int, *shape: int) -> torch.Tensor:
    return torch.full(shape, 1.0 + version)


def measurement(version: int) -> Measurement:
    return Measurement(ones(version, 2, 3, 4).to(torch.complex64), ones(version, 2), ones(version, 3, 3),
                       ones(version, 4, 3))


def volume(folder: Path, version: int, ending: str) -> None:
    x = ones(version, 2, 3, 4).to(torch.complex64) * torch.exp(1j * torch.arange(24.).reshape(2, 3, 4) * (1 + version))
    write_volume(folder / f"v{ending}", x, (torch.arange(2.), torch.arange(3.), torch.arange(4.)))


def trained(folder: Path, version: int) -> None:
    model = nn.Linear(2, 1)
    nn.init.constant_(model.weight, 0.1 * (version + 1))
    nn.init.zeros_(model.bias)
    TrainLoop(model, torch.optim.SGD(model.parameters(), 0.1), lambda m, x, g: m(x).square().mean(),
              Drawn(lambda g: torch.rand(4, 2, generator=g)), steps=2, checkpoint=folder / "c.safetensors",
              generator=torch.Generator().manual_seed(version), checkpoint_every=1).fit()


ONE_FILE: dict[str, Callable[[Path, int], object]] = {
    "bytes": lambda f, v: _files.write_bytes(f / "a.bin", bytes(1000 + v)),
    "text": lambda f, v: _files.write_text(f / "deep" / "a.txt", f"version {v}\n" * 100),
    "json": lambda f, v: _files.write_json(f / "a.json", {"version": v, "list": list(range(100))}),
    "tensors": lambda f, v: _files.write_tensors(f / "a.safetensors", {"x": ones(v, 50)}, {"version": str(v)}),
    "volume .npz": lambda f, v: volume(f, v, ".npz"),
    "volume .safetensors": lambda f, v: volume(f, v, ".safetensors"),
    "measurement .npz": lambda f, v: write_measurement(f / "m.npz", measurement(v)),
    "measurement .safetensors": lambda f, v: write_measurement(f / "m.safetensors", measurement(v)),
    "checkpoint": lambda f, v: save_checkpoint(f / "c.safetensors", {"x": ones(v, 9), "step": v}),
    "ledger": lambda f, v: sparsity_report(TwoLines(v)).write(f / "books.json"),
}


@pytest.mark.parametrize("name", ONE_FILE)
def test_a_file_is_old_or_new(tmp_path, name):
    faulted(tmp_path, name, ONE_FILE[name])
    assert POINTS[name] >= 40


def test_a_checkpoint_of_a_training_can_always_be_read(tmp_path):
    def readable(folder, fault):
        if (folder / "c.safetensors").exists():
            assert load_checkpoint(folder / "c.safetensors")["step"] in (1, 2)

    def write(folder, version):
        trained(folder, version)

    for fault in FAULTS:  # two checkpoints are written, so that the first one is a third content that is right
        fail, reached = 1, True
        while reached:
            folder = tmp_path / f"{fault}-{fail}"
            folder.mkdir()
            reached, _ = attempt(lambda f: write(f, 1), folder, fail, fault)
            readable(folder, fault)
            assert {p.name for p in folder.iterdir()} <= {"c.safetensors"}
            POINTS["training"] += reached
            fail += 1


def test_a_denoiser_is_the_old_one_or_the_new_one(tmp_path):
    def network(version: int) -> UNet:
        net = UNet(1, base=1, levels=1)
        for p in net.parameters():
            nn.init.constant_(p, 1.0 + version)
        return net

    def whole(folder, fault):
        if (path := folder / "d.safetensors").is_file():
            version = Denoiser.load(path).record["training"]["version"]
            assert float(_files.read_tensors(path)["out.weight"].flatten()[0]) == 1.0 + version

    faulted(tmp_path, "denoiser", lambda f, v: Denoiser.save(f / "d.safetensors", network(v), {"version": v}), whole)


def test_a_download_is_whole_or_absent(tmp_path, monkeypatch):
    data = bytes(range(256)) * 20
    monkeypatch.setattr(urllib.request, "urlopen", lambda url, timeout: io.BytesIO(data))
    source = Source("a.bin", url="https://example.org/a.bin", sha256=hashlib.sha256(data).hexdigest())
    faulted(tmp_path, "download", lambda f, v: find_file(source, cache_dir=f, download=True), fresh=(True,))


def begun(folder: Path) -> Run:
    return Run.start(TINY, folder, scale=Scale.SMOKE, seed=0, resume=True)


def draw(folder: Path, version: int) -> None:
    from matplotlib.figure import Figure

    fig = Figure(figsize=(1, 1))
    fig.text(0.1, 0.5, f"version {version}")
    begun(folder).figure("f", fig, f"version {version}")


RUN: dict[str, Callable[[Path, int], object]] = {
    "config": lambda f, v: Run.start(dataclasses.replace(TINY, source=""), f / f"seed-{v}", scale=Scale.SMOKE, seed=v),
    "unit": lambda f, v: begun(f).once(f"u{v}", lambda: {"x": v}),
    "unit of tensors": lambda f, v: begun(f).tensors(f"t{v}", lambda: {"x": ones(v, 7)}),
    "row": lambda f, v: begun(f).log(version=v),
    "claim": lambda f, v: begun(f).claim("better", ours=float(v), baseline=0.0),
    "figure": draw,
}


@pytest.mark.parametrize("name", RUN)
def test_a_run_folder_holds_whole_files(tmp_path, name):
    if name == "config":  # an earlier run's folder cannot be begun again
        faulted(tmp_path, name, RUN[name], fresh=(True,))
    else:
        faulted(tmp_path, name, RUN[name], lambda folder, fault: begun(folder), fresh=(False,))


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> list[Path]:
    """The folders of two versions of a finished run with a figure."""
    def of(version: int) -> Path:
        def run(scale, seed, run):
            from matplotlib.figure import Figure

            fig = Figure(figsize=(1, 1))
            fig.text(0.1, 0.5, f"version {version}")
            run.figure(f"f{version}", fig, "a caption")
            run.log(version=version)
            run.claim("better", ours=version, baseline=1.0)

        return execute(dataclasses.replace(TINY, run=run), tmp_path_factory.mktemp(f"v{version}"), scale=Scale.SMOKE,
                       seed=0)

    return [of(0), of(1)]


def test_results_never_name_a_picture_that_is_not_there(tmp_path, finished):
    def named(folder, fault):
        path = folder / "results" / "tiny-paper.json"
        if path.exists():
            for figure in read_results(path)["figures"]:
                assert (folder / "results" / figure["file"]).read_bytes()[:4] == b"\x89PNG"

    faulted(tmp_path, "results", lambda f, v: publish(TINY.paper, Scale.SMOKE, [finished[v]], f / "results"), named)


def test_pages_are_old_or_new(tmp_path, finished):
    results = [publish(TINY.paper, Scale.SMOKE, [f], tmp_path / f"results-{v}").parent for v, f in enumerate(finished)]
    faulted(tmp_path, "report", lambda f, v: write_report(results[v], f / "report.html"))
    page = tmp_path / "pages"
    page.mkdir()
    faulted(page, "demo", lambda f, v: write_demo([Panel("tiny-paper", TINY.paper, finished[v], 1.0)], f / "i.html"))


def test_a_command_leaves_a_folder_that_resume_finishes(tmp_path):
    paper = tmp_path / "tiny.py"
    paper.write_text(Path(TINY.source).read_text().replace("range(12)", "range(1)"))

    def command(folder, *more):
        return CliRunner().invoke(app, ["run", str(paper), "--scale", "smoke", "--out", str(folder), "--quiet", *more])

    def write(folder, version):
        answer = command(folder)
        if answer.exit_code:
            assert answer.exit_code in (1, 130)
            raise OSError(answer.output)

    clean = tmp_path / "clean"
    write(clean, 0)
    want = snapshot(clean)

    def resumes(folder, fault):
        if fault not in ("EIO", "late interrupt"):  # the others stop at the same places
            return
        answer = command(folder, "--resume")
        assert answer.exit_code == 0, answer.output
        assert {k: v for k, v in snapshot(folder).items() if not k.endswith("error.txt")} == want

    faulted(tmp_path, "command run", write, resumes, fresh=(True,))
    assert POINTS["command run"] >= 150


def test_a_radar_image_is_whole_or_absent(tmp_path):
    data = write_measurement(tmp_path / "m.npz", measurement(0))

    def write(folder, version):
        answer = CliRunner().invoke(app, [
            "radar", str(data), "--out", str(folder / "v.safetensors"), "--shape", "2,2,2", "--prior", "adjoint",
            "--quiet"])
        if answer.exit_code:
            assert answer.exit_code in (1, 130), answer.output
            raise OSError(answer.output)

    faulted(tmp_path, "command radar", write, fresh=(True,))


def test_five_hundred_points_were_tried():
    """Counted over the writers that the list names; each of them is run through both of its states above."""
    if not all(POINTS[name] for name in (*ONE_FILE, *RUN, "command run", "results", "report")):
        pytest.skip("the other tests of this file were not run in this process")
    assert sum(POINTS.values()) >= 500
