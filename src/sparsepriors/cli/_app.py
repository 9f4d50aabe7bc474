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
Results = Annotated[Path | None, typer.Option(help="Folder of results; runs/results by default, or results where there "
                                                   "is no other.")]
Out = Annotated[Path, typer.Option(help="Folder of the runs; every seed has its own folder in it.")]


def _version(asked: bool) -> bool:
    if asked:
        import sparsepriors

        typer.echo(sparsepriors.__version__)
        raise typer.Exit
    return asked


@app.callback()
def _root(version: Annotated[bool, typer.Option("--version", help="Print the version and leave.", is_eager=True,
                                                callback=_version)] = False) -> None:
    """Without a command only the version can be asked for, which its callback answers."""


@app.command("list")
def list_papers(as_json: AsJson = False) -> None:
    """List the experiments: slug, year, room, title."""
    from sparsepriors.cli import _show

    _show.list_papers(as_json=as_json)


@app.command()
def show(slug: Annotated[str, typer.Argument(help="Slug of an experiment, or the path of a paper module (.py).")],
         results: Results = None,
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
    results: Results = None,
    out: Annotated[Path, typer.Option(help="The page.")] = Path("report.html"),
) -> None:
    """Write one self-contained HTML page with every result: claims beside measurements, figures, provenance."""
    from sparsepriors.cli import _report

    _report.report(_door.results_folder(results), out)


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


Epochs = Annotated[int, typer.Option(help="Passes over the training images.", min=1)]
Batch = Annotated[int, typer.Option(help="Images per step.", min=1)]
Optimizer = Annotated[str, typer.Option(help="sgd or adamw.")]
Rate = Annotated[float, typer.Option(help="Learning rate at the start; it falls to 0 along a cosine.")]
Shrink = Annotated[int, typer.Option(help="Average blocks of so many pixels a side.", min=1)]
Limit = Annotated[int | None, typer.Option(help="Use so many training images.", min=1)]
Threads = Annotated[int | None, typer.Option(help="Threads to compute with.")]
DataDir = Annotated[Path | None, typer.Option(help="Folder with your own copy of the data.")]


@app.command(epilog=_door.EXIT_CODES)
def train(
    preset: Annotated[str, typer.Option(help="How: dense, or a sparse training method such as rigl, gmp, sr-ste.")],
    model: Annotated[str, typer.Option(help="The network: mlp, small-conv, resnet8, resnet20, vit, ...")]
        = "small-conv",
    data: Annotated[str, typer.Option(help="The data set: fashion-mnist, digits8, mnist5k, cifar10, ...")]
        = "fashion-mnist",
    pattern: Annotated[str | None, typer.Option(help="N:M such as 2:4, for methods that keep n of m weights.")] = None,
    density: Annotated[float | None, typer.Option(help="Share of the weights that is kept, for the others.")] = None,
    epochs: Epochs = 3,
    batch: Batch = 128,
    optimizer: Optimizer = "sgd",
    rate: Rate = 0.05,
    shrink: Shrink = 1,
    limit: Limit = None,
    seed: Annotated[int, typer.Option(help="Of the weights, the batches and the masks.", min=0)] = 0,
    data_dir: DataDir = None,
    out: Annotated[Path, typer.Option(help="Folder of the network, its masks and the report.")] = Path("trained"),
    resume: Annotated[bool, typer.Option("--resume", help="Continue what the folder holds, to the same bits.")] = False,
    threads: Threads = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Train a classifier, sparse or dense, and say what it keeps and what it cost. Ctrl-C, then --resume."""
    from sparsepriors.cli import _train

    _train.train(preset, pattern=pattern, density=density, model=model, data=data, data_dir=data_dir, epochs=epochs,
                 batch=batch, optimizer=optimizer, rate=rate, shrink=shrink, limit=limit, seed=seed, out=out,
                 resume=resume, threads=threads, quiet=quiet, as_json=as_json)


@app.command(epilog=_door.EXIT_CODES)
def compare(
    presets: Annotated[str, typer.Option(help="Methods, or all; dense is one of them.")]
        = "dense,gmp,one-shot,rigl,set,random,random-one-shot,sr-ste",
    sparsity: Annotated[str, typer.Option(help="Shares of the weights that are left out.")] = "0.8,0.9,0.95",
    model: Annotated[str, typer.Option(help="The network: mlp, small-conv, resnet8, resnet20, vit, ...")]
        = "small-conv",
    data: Annotated[str, typer.Option(help="The data set: fashion-mnist, digits8, mnist5k, cifar10, ...")]
        = "fashion-mnist",
    epochs: Epochs = 5,
    batch: Batch = 128,
    optimizer: Optimizer = "sgd",
    rate: Rate = 0.1,
    shrink: Shrink = 2,
    limit: Limit = 4000,
    seeds: Annotated[str, typer.Option(help="Seeds; every method has the same ones.")] = "0,1,2,3,4",
    data_dir: DataDir = None,
    out: Annotated[Path, typer.Option(help="Folder of the table, the plot and every training.")] = Path("compared"),
    resume: Annotated[bool, typer.Option("--resume", help="Continue what the folder holds.")] = False,
    threads: Threads = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Compare sparse training methods: accuracy, cost of training and inference, bytes, and how masks moved."""
    from sparsepriors.cli import _compare

    _compare.compare(presets, sparsity=sparsity, model=model, data=data, data_dir=data_dir, epochs=epochs, batch=batch,
                     optimizer=optimizer, rate=rate, shrink=shrink, limit=limit, seeds=seeds, out=out, resume=resume,
                     threads=threads, quiet=quiet, as_json=as_json)


@app.command(epilog="Exit codes: 0 nothing failed, 1 a check failed or a file cannot be read, 2 wrong usage.")
def audit(
    path: Annotated[Path, typer.Argument(help="A record of a training with its claims (.json), or weights "
                                              "(.safetensors, .pt, .pth, or a folder of .safetensors).")],
    html: Annotated[Path | None, typer.Option(help="Also write the audit as a page.")] = None,
    as_json: AsJson = False,
) -> None:
    """Check what is said of a sparse training against what was recorded: ten lessons, each answered by a number."""
    from sparsepriors.cli import _audit

    _audit.audit(path, html=html, as_json=as_json)


@app.command()
def doctor(as_json: AsJson = False) -> None:
    """Say what works here: versions, instruction set, threads, GPU, kernels, optional rooms and how to get them."""
    from sparsepriors.cli import _doctor

    _doctor.doctor(as_json=as_json)


@app.command(epilog=_door.EXIT_CODES)
def generate(
    prompt: Annotated[str, typer.Option(help="What to continue; - reads it from standard input.")],
    model: Annotated[str, typer.Option(help="smollm2, or the folder of a model of transformers.")] = "smollm2",
    kv: Annotated[str, typer.Option(help="The cache of keys and values: dense, mustafar, think, alisa, h2o, streaming, "
                                         "snapkv.")] = "mustafar",
    sparsity: Annotated[float, typer.Option(help="Share of the cache that is given up.")] = 0.5,
    max_new_tokens: Annotated[int, typer.Option(help="Write so many tokens at most.", min=1)] = 100,
    temperature: Annotated[float, typer.Option(help="0 takes the likeliest token; above, tokens are drawn.")] = 0.0,
    seed: Annotated[int, typer.Option(help="Of the draws.", min=0)] = 0,
    dtype: Annotated[str, typer.Option(help="bfloat16 or float32.")] = "bfloat16",
    packed: Annotated[str | None, typer.Option(help="N:M, for a model whose matrices are pruned so: run on packed "
                                                    "weights.")] = None,
    chat: Annotated[bool, typer.Option("--chat", help="Hand the prompt over as a user's message.")] = False,
    data_dir: DataDir = None,
    threads: Threads = None,
    as_json: AsJson = False,
) -> None:
    """Let a language model write with a sparse cache: the text as it comes, then speed, and bytes beside dense."""
    from sparsepriors.cli import _generate

    _generate.generate(model, kv=kv, sparsity=sparsity, prompt=prompt, count=max_new_tokens, temperature=temperature,
                       seed=seed, dtype=dtype, packed=packed, chat=chat, data_dir=data_dir, threads=threads,
                       as_json=as_json)


@app.command(epilog=_door.EXIT_CODES)
def prune(
    model: Annotated[str, typer.Argument(help="smollm2, or the folder of a causal language model of transformers.")],
    out: Annotated[Path, typer.Option(help="A new folder for the pruned checkpoint.")],
    pattern: Annotated[str, typer.Option(help="N:M such as 2:4 (N of every M kept), or a share of zeros such as "
                                              "0.5.")] = "2:4",
    method: Annotated[str, typer.Option(help="magnitude, wanda or sparsegpt.")] = "wanda",
    calibrate: Annotated[Path | None, typer.Option(help="Text to calibrate with, UTF-8; by default the validation "
                                                        "part of WikiText-2.", exists=True, dir_okay=False)] = None,
    windows: Annotated[int, typer.Option(help="Windows of the text that are read.", min=1)] = 16,
    length: Annotated[int, typer.Option(help="Tokens of a window.", min=2)] = 512,
    judge: Annotated[int, typer.Option(help="Windows of WikiText-2's test part to measure perplexity on; 0 for "
                                            "none.", min=0)] = 8,
    dtype: Annotated[str, typer.Option(help="bfloat16 or float32.")] = "bfloat16",
    data_dir: DataDir = None,
    threads: Threads = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Prune the linear layers of a language model and write a checkpoint that loads like any other."""
    from sparsepriors.cli import _prune

    _prune.prune(model, out=out, pattern=pattern, method=method, calibrate=calibrate, windows=windows, length=length,
                 judge=judge, dtype=dtype, data_dir=data_dir, threads=threads, quiet=quiet, as_json=as_json)


@app.command(epilog=_door.EXIT_CODES)
def inspect(
    model: Annotated[str, typer.Argument(help="smollm2, the folder of a model of transformers or of safetensors "
                                              "files, or one such file.")],
    other: Annotated[str | None, typer.Argument(help="A second one: what differs between both.")] = None,
    modules: Annotated[str, typer.Option(help="Tensors to look at: names, or parts of them, with wildcards, such as "
                                              "'q_proj,*.mlp.*'.")] = "*",
    near: Annotated[float, typer.Option(help="Below so many standard deviations a weight is nearly zero.")] = 0.01,
    text: Annotated[Path | None, typer.Option(help="A text, UTF-8, on which to measure activations.")] = None,
    length: Annotated[int, typer.Option(help="Tokens of a window of the text.", min=1)] = 256,
    windows: Annotated[int, typer.Option(help="Windows to read at most.", min=1)] = 16,
    threshold: Annotated[float | None, typer.Option(help="Above which modulus an activation is active; by default 0, "
                                                         "or 0.1 where the function has no zeros.", min=0.0)] = None,
    ranks: Annotated[bool, typer.Option("--ranks", help="Also the ranks of the differences, which takes a while.")]
        = False,
    dtype: Annotated[str | None, typer.Option(help="Compare both as bfloat16 or float32; by default as they are "
                                                   "stored.")] = None,
    skip_mismatch: Annotated[bool, typer.Option("--skip-mismatch", help="Leave out tensors that are not in both, or "
                                                                        "of another shape.")] = False,
    each: Annotated[bool, typer.Option("--each", help="A line for every matrix, not one for each kind.")] = False,
    data_dir: DataDir = None,
    html: Annotated[Path | None, typer.Option(help="Also write a page with plots over the layers.")] = None,
    threads: Threads = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Say how sparse a checkpoint is: its weights, its activations on a text, and what another one changed in it."""
    from sparsepriors.cli import _inspect

    _inspect.inspect(model, other, modules=modules, near=near, text=text, length=length, windows=windows,
                     threshold=threshold, ranks=ranks, dtype=dtype, skip_mismatch=skip_mismatch, each=each,
                     data_dir=data_dir, html=html, threads=threads, quiet=quiet, as_json=as_json)


sae = typer.Typer(help="Sparse autoencoders of activations in files.", no_args_is_help=True)
app.add_typer(sae, name="sae")

Signals = Annotated[Path, typer.Argument(help="Rows of activations: .npy, .safetensors, or a folder of shards.")]


@sae.command("train", epilog=_door.EXIT_CODES)
def sae_train(
    data: Signals,
    latents: Annotated[int, typer.Option(help="Atoms of the dictionary.")] = 4096,
    prior: Annotated[str, typer.Option(help="topk, batch-topk, jumprelu, l1 or matching-pursuit.")] = "batch-topk",
    k: Annotated[float, typer.Option(help="Latents of one row, for topk, batch-topk and matching-pursuit.")] = 32,
    weight: Annotated[float, typer.Option(help="Weight of the penalty, for jumprelu and l1.")] = 1e-3,
    prefixes: Annotated[str | None, typer.Option(help="Nested dictionaries that reconstruct on their own, such as "
                                                      "64,256.")] = None,
    aux: Annotated[bool, typer.Option("--aux/--no-aux", help="Give latents that no longer fire a loss of their own.")]
        = True,
    steps: Annotated[int, typer.Option(help="Batches.", min=1)] = 5000,
    batch: Annotated[int, typer.Option(help="Rows per batch.", min=1)] = 1024,
    rate: Annotated[float | None, typer.Option(help="Learning rate; by default 2e-4 / sqrt(latents / 16384).")] = None,
    scale: Annotated[str, typer.Option(help="Of the rows: mean-norm (sqrt of their length), mean-square (1) or none.")]
        = "mean-norm",
    seed: Annotated[int, typer.Option(help="Of the first atoms and the batches.", min=0)] = 0,
    out: Annotated[Path, typer.Option(help="Folder of the autoencoder.")] = Path("autoencoder"),
    resume: Annotated[bool, typer.Option("--resume", help="Continue what the folder holds, to the same bits.")] = False,
    threads: Threads = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Train a sparse autoencoder on rows of activations. Ctrl-C, then --resume."""
    from sparsepriors.cli import _sae

    _sae.train(data, latents=latents, prior=prior, k=k, weight=weight, prefixes=prefixes, aux=aux, steps=steps,
               batch=batch, rate=rate, scale=scale, seed=seed, out=out, resume=resume, threads=threads, quiet=quiet,
               as_json=as_json)


@sae.command("eval", epilog=_door.EXIT_CODES)
def sae_eval(
    folder: Annotated[Path, typer.Argument(help="Folder of an autoencoder.")],
    data: Signals,
    limit: Annotated[int | None, typer.Option(help="Use so many rows.", min=1)] = None,
    threads: Threads = None,
    as_json: AsJson = False,
) -> None:
    """Measure an autoencoder on rows of activations: variance explained, active and dead latents."""
    from sparsepriors.cli import _sae

    _sae.evaluated(folder, data, limit=limit, threads=threads, as_json=as_json)


@sae.command("dashboard", epilog=_door.EXIT_CODES)
def sae_dashboard(
    folder: Annotated[Path, typer.Argument(help="Folder of an autoencoder, or of a crosscoder of two models.")],
    text: Annotated[Path, typer.Argument(help="A text to read, UTF-8.")],
    hook: Annotated[str, typer.Option(help="Submodule whose output is read, such as model.layers.15.")],
    model: Annotated[str, typer.Option(help="smollm2, or a folder of a model of transformers.")] = "smollm2",
    base: Annotated[str | None, typer.Option(help="For a crosscoder: the first of its two models.")] = None,
    latents: Annotated[str, typer.Option(help="Which latents, such as 0-99,200.")] = "0-199",
    length: Annotated[int, typer.Option(help="Tokens of a window.", min=2)] = 128,
    windows: Annotated[int, typer.Option(help="Windows to read at most.", min=1)] = 200,
    contexts: Annotated[int, typer.Option(help="Contexts of a latent.", min=1)] = 8,
    data_dir: DataDir = None,
    out: Annotated[Path, typer.Option(help="The page.")] = Path("latents.html"),
    threads: Threads = None,
) -> None:
    """Write a page of what latents respond to: strongest contexts, spread of codes, effects on logits, a search box."""
    from sparsepriors.cli import _dashboard

    _dashboard.dashboard(folder, model=model, base=base, hook=hook, text=text, latents=latents, length=length,
                         windows=windows, contexts=contexts, data_dir=data_dir, out=out, threads=threads)
