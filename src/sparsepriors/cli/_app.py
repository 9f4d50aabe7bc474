"""The commands, their options and their help; what they do is imported when they are called."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sparsepriors.cli import _door

app = typer.Typer(
    name="sparsepriors",
    help="Sparsity and priors as one kind of object: run the published experiments, and read what was measured.\n\n"
         + _door.EXIT_CODES,
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

AsJson = Annotated[bool, typer.Option("--json", help="One JSON document on standard output instead of a table.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress bars, even on a terminal.")]
Device = Annotated[str, typer.Option(help="Where to compute: cpu, cuda, cuda:1, ...")]
Out = Annotated[Path, typer.Option(help="Folder of the runs; every seed has its own folder in it.")]


@app.callback()
def _root(version: Annotated[bool, typer.Option("--version", help="Print the version and leave.",
                                                is_eager=True)] = False) -> None:
    if version:
        import sparsepriors

        typer.echo(sparsepriors.__version__)
        raise typer.Exit


@app.command("list")
def list_papers(as_json: AsJson = False) -> None:
    """List the experiments: slug, year, room, title."""
    from sparsepriors.cli import _show

    _show.list_papers(as_json=as_json)


@app.command()
def show(slug: Annotated[str, typer.Argument(help="Slug of an experiment, or the path of a paper module (.py).")],
         results: Annotated[Path, typer.Option(help="Folder of results to show.")] = Path("runs/results"),
         as_json: AsJson = False) -> None:
    """Show one experiment: citation, method, claims and, where they were measured, verdicts."""
    from sparsepriors.cli import _show

    _show.show(slug, results, as_json=as_json)


@app.command(epilog=_door.EXIT_CODES)
def run(
    slug: Annotated[str, typer.Argument(help="Slug of an experiment, 'all', or the path of a paper module (.py).")],
    scale: Annotated[str, typer.Option(help="smoke (seconds), default (minutes on two cores), "
                                            "full (the paper's sizes).")] = "default",
    seeds: Annotated[str | None, typer.Option(help="Seeds, such as 0,1,2; the paper's own by default, "
                                                   "the first of them for smoke.")] = None,
    device: Device = "cpu",
    out: Out = Path("runs"),
    data: Annotated[Path | None, typer.Option(help="Folder with your own or the full-scale data.")] = None,
    resume: Annotated[bool, typer.Option("--resume/--no-resume", help="Continue what the folders hold. Without it an "
                                         "earlier run is kept under another name and a new one begins.")] = False,
    results: Annotated[Path | None, typer.Option(help="Where the judged results go; OUT/results by default.")] = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Run an experiment for each seed and judge its claims. Ctrl-C leaves folders that --resume continues."""
    from sparsepriors.cli import _run

    _run.run(slug, scale=scale, seeds=seeds, device=device, out=out, data=data, resume=resume,
             results=results if results is not None else out / "results", quiet=quiet, as_json=as_json)


@app.command(epilog=_door.EXIT_CODES)
def report(
    results: Annotated[Path, typer.Option(help="Folder of results, as `run` writes them.")] = Path("runs/results"),
    out: Annotated[Path, typer.Option(help="The page.")] = Path("report.html"),
) -> None:
    """Write one self-contained HTML page with every result: claims beside measurements, figures, provenance."""
    from sparsepriors.cli import _report

    _report.report(results, out)


@app.command(epilog=_door.EXIT_CODES)
def demo(
    out: Annotated[Path, typer.Option(help="Folder of the page and its run folders.")] = Path("demo"),
    device: Device = "cpu",
    quiet: Quiet = False,
) -> None:
    """Reconstruct a scan, prune a network, image a radar scene: a page of pictures in a few minutes."""
    from sparsepriors.cli import _demo

    _demo.demo(out, device=device, quiet=quiet)


@app.command(epilog=_door.EXIT_CODES)
def radar(
    measurement: Annotated[Path, typer.Argument(help="A .npz, .mat or .safetensors file with y (frequencies, "
                                                     "transmitters, receivers; complex), freqs (Hz), tx and rx (m).")],
    out: Annotated[Path, typer.Option(help="The volume, .npz or .safetensors.")] = Path("volume.npz"),
    low: Annotated[str, typer.Option(help="Lowest x,y,z of the scene, metres.")] = "-0.15,-0.15,0.35",
    high: Annotated[str, typer.Option(help="Highest x,y,z of the scene, metres.")] = "0.15,0.15,0.65",
    shape: Annotated[str, typer.Option(help="Voxels along x,y,z.")] = "25,25,49",
    prior: Annotated[str, typer.Option(help="network, tv, tv-inexact or l1; or adjoint, backprojection, kirchhoff for "
                                            "a direct inversion.")] = "network",
    snr: Annotated[float, typer.Option(help="Signal-to-noise ratio of the data, dB.")] = 10.0,
    steps: Annotated[int | None, typer.Option(help="Use so many of the frequencies, evenly spread.")] = None,
    iterations: Annotated[int | None, typer.Option(help="Iterations at most.")] = None,
    swap_yz: Annotated[bool, typer.Option("--swap-yz", help="The antennas' second coordinate points at the scene.")]
        = False,
    device: Device = "cpu",
    picture: Annotated[Path | None, typer.Option(help="Also draw projections of the magnitude, .png.")] = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Image a scene from your own near-field radar measurement."""
    from sparsepriors.cli import _radar

    _radar.radar(measurement, out, low=low, high=high, shape=shape, prior=prior, snr_db=snr, steps=steps,
                 iterations=iterations, swap_yz=swap_yz, device=device, picture=picture, quiet=quiet, as_json=as_json)


@app.command()
def doctor(as_json: AsJson = False) -> None:
    """Say what works here: versions, instruction set, threads, GPU, kernels, optional rooms and how to get them."""
    from sparsepriors.cli import _doctor

    _doctor.doctor(as_json=as_json)
