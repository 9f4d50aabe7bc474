"""``audit``."""

from __future__ import annotations

from pathlib import Path

import typer
from rich.markup import escape
from rich.table import Table

from sparsepriors import _files
from sparsepriors.cli import _door

_STYLE = {"pass": "green", "warn": "yellow", "fail": "red", "na": "dim"}


def audit(path: Path, *, html: Path | None, as_json: bool) -> None:
    """Audit a record or weights, print what was found, and leave with 1 if a check failed."""
    from sparsepriors.networks import audit as auditing

    try:
        if path.suffix == ".json":
            record, claims = auditing.read_record(path)
        else:
            record, claims = auditing.record_weights(_weights(path)), ()
        report = auditing.audit(record, claims)
    except FileNotFoundError as e:
        _door.usage(f"there is no file {e.filename}" if e.filename else str(e))
    except ValueError as e:
        _door.fail(str(e))
    except OSError as e:
        _door.fail(_door.reason(e))
    if html is not None:
        from sparsepriors.gallery.audit import audit_page

        _door.write_page(html, audit_page(report.to_dict(), title=f"Audit of {path.name}"))
    if as_json:
        _door.print_json(report.to_dict())
    else:
        table = Table(box=None, pad_edge=False, header_style="bold")
        for column in ("", "verdict", "question", "evidence", "what to do"):
            table.add_column(column, overflow="fold")
        for f in report.findings:
            table.add_row(f.lesson, f"[{_STYLE[f.status]}]{f.status.value}[/]", f.code, escape(f.evidence),
                          escape(f.remedy))
        _door.out().print(table)
    if report.exit_code:
        raise typer.Exit(report.exit_code)


def _weights(path: Path) -> dict:
    """The tensors of a safetensors or PyTorch file, or of every safetensors file in a folder."""
    from sparsepriors.data.weights import read_torch_weights

    if path.is_dir():
        found = sorted(path.glob("*.safetensors"))
        if not found:
            raise FileNotFoundError(f"the folder {path} holds no .safetensors file")
        return {name: w for file in found for name, w in _files.read_tensors(file).items()}
    if path.suffix == ".safetensors":
        return _files.read_tensors(path)
    if path.suffix in (".pt", ".pth", ".bin"):
        return read_torch_weights(path)
    if not path.exists():
        raise FileNotFoundError(f"there is no file {path}")
    raise ValueError(f"{path} must be a record (.json) or weights (.safetensors, .pt, .pth, or a folder of them)")
