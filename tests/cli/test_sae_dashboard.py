"""``sparsepriors sae dashboard``: one page from a model, a text and a dictionary; one line for every mistake."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from sparsepriors.cli import _language, app
from sparsepriors.dictionaries import Crosscoder, SparseAutoencoder
from sparsepriors.language.stand_in import stand_in
from sparsepriors.priors import L1, TopK

HOOK = ("--hook", "model.layers.0")


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Random weights in the place of the real ones."""
    monkeypatch.setattr(_language, "load",
                        lambda name, dtype, data_dir: stand_in(int(name == "other"), dtype=dtype))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "text.txt").write_text("It was a dark and stormy night. " * 8, encoding="utf-8")
    g = torch.Generator().manual_seed(0)
    SparseAutoencoder(48, 20, TopK(3), generator=g).save(tmp_path / "sae")
    Crosscoder(48, 20, prior=L1(0.1), same_start=False, generator=g).save(tmp_path / "pair")
    Crosscoder(48, 20, 3, prior=L1(0.1), generator=g).save(tmp_path / "three")
    return tmp_path


def call(folder: Path, what: str, *arguments: object):
    return CliRunner().invoke(app, ["sae", "dashboard", str(folder / what), str(folder / "text.txt"), "--length", "32",
                                    "--out", str(folder / "page.html"), *map(str, arguments)])


def test_a_page_of_an_autoencoder_and_of_a_crosscoder(folder: Path) -> None:
    done = call(folder, "sae", *HOOK, "--latents", "0-4,19", "--windows", 5)
    assert done.exit_code == 0, done.output
    assert "6 latents on 160 tokens" in done.stdout
    page = (folder / "page.html").read_text(encoding="utf-8")
    assert page.count('<article class="latent"') == 6
    assert "norm difference" not in page
    assert "raises" in page
    assert call(folder, "pair", *HOOK, "--base", "other").exit_code == 0
    assert (folder / "page.html").read_text(encoding="utf-8").count("<dt>norm difference</dt>") == 20


@pytest.mark.parametrize(("what", "arguments", "code", "message"), [
    ("sae", (*HOOK, "--base", "other"), 2, "only there"),
    ("pair", HOOK, 2, "--base names the first model"),
    ("three", (*HOOK, "--base", "other"), 2, "of 3 models"),
    ("sae", ("--hook", "model.layer.0"), 1, "near it: model.layers.0"),
    ("sae", (*HOOK, "--latents", "0-x"), 1, "numbers and ranges such as 0-99,200"),
    ("sae", (*HOOK, "--latents", "30"), 1, "latents must lie in 0 to 19"),
    ("sae", (*HOOK, "--length", "1000"), 1, "at least 1000 tokens"),
    ("none", HOOK, 2, "there is no file"),
    ("sae", (*HOOK, "--out", "."), 2, "is a folder"),
])
def test_mistakes(folder: Path, what: str, arguments: tuple[str, ...], code: int, message: str) -> None:
    done = call(folder, what, *arguments)
    assert done.exit_code == code, done.output
    assert message in " ".join(done.stderr.split())
    assert not (folder / "page.html").exists()


def test_a_text_that_is_none(folder: Path) -> None:
    (folder / "text.txt").write_bytes(b"\xff\xfe\x00")
    done = call(folder, "sae", *HOOK)
    assert done.exit_code == 1
    assert "is not a text in UTF-8" in " ".join(done.stderr.split())
