"""He and Joseph (2024): sparse Bayesian learning for Kronecker products, and channels over a reflecting surface.

The generators are those of the official code, redrawn for every trial. Every error is a median over the trials of a
seed, in decibels; seeds are the replicates of the claims.
"""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial
from statistics import fmean, median
from typing import Any

from sparsepriors.papers._kron_measures import (
    PUBLISHED_IRS,
    PUBLISHED_SNR,
    SIZES,
    Setting,
    Sizes,
    channel,
    converged,
    descent,
    learnt_noise,
    local_minima,
    synthetic,
    unstructured,
)
from sparsepriors.runs import Claim, Paper, Run, Scale

_FIGURES = "shown in figures without numbers"
_IRS = "official results, median NMSE of 50 trials"

PAPER = Paper(
    slug="kron-sbl",
    title="Bayesian Algorithms for Kronecker-structured Sparse Vector Recovery With Application to IRS-MIMO Channel "
          "Estimation",
    authors="Yanbin He, Geethu Joseph",
    year=2024,
    url="https://arxiv.org/abs/2307.14719",
    room="regression",
    method=(
        "y = (A1 (x) A2 (x) A3) x + noise, x Gaussian with variances g1 (x) g2 (x) g3 that maximise the evidence.",
        "E-step: one small eigendecomposition per matrix gives the exact posterior; no large matrix is formed.",
        "M-step AM: each factor's exact minimiser in turn. SVD: the best rank-one product of the second moments.",
        "PC: a factor is a nonnegative mixture of neighbours, so that blocks along an angle are found together.",
        "The variance of the noise is given or learnt by the same EM.",
    ),
    claims=(
        Claim("svd-over-am-10", "At 10 dB the SVD rule beats AM by a factor of 0.7 (median NMSE, dB)", _FIGURES, "AM",
              margin=1.55, better="lower"),
        Claim("svd-over-am-20", "At 20 dB the SVD rule beats AM by a factor of 0.7 (median NMSE, dB)", _FIGURES, "AM",
              margin=1.55, better="lower"),
        Claim("svd-over-am-30", "At 30 dB the SVD rule beats AM by a factor of 0.7 (median NMSE, dB)", _FIGURES, "AM",
              margin=1.55, better="lower"),
        Claim("svd-over-csbl-10", "At 10 dB, 6 rows, the SVD rule is at most 0.35 of unstructured SBL (NMSE, dB)",
              _FIGURES, "unstructured SBL, same trial", margin=4.56, better="lower"),
        Claim("svd-over-csbl-20", "At 20 dB, 6 rows, the SVD rule is at most 0.35 of unstructured SBL (NMSE, dB)",
              _FIGURES, "unstructured SBL, same trial", margin=4.56, better="lower"),
        Claim("svd-near-oracle", "At 20 dB the SVD rule is within a factor of 1.5 of least squares on the true support "
              "(median NMSE, dB)", _FIGURES, "least squares, support known", margin=-1.76, better="lower"),
        Claim("svd-over-komp", "At 20 dB the SVD rule beats Kronecker matching pursuit by 10 dB (median NMSE)",
              _FIGURES, "KOMP, the better of two stopping rules", margin=10.0, better="lower"),
        Claim("am-like-ksbl", "AM and the earlier KSBL end within 0.5 dB of each other (median NMSE at 20 dB)",
              _FIGURES, "0.5 dB", better="lower"),
        Claim("svd-fastest", "The SVD rule takes less time than AM and KSBL (processor seconds a trial, 20 dB)",
              "SVD 5.7 s, AM 11.9 s (IRS at 20 dB, MATLAB)", "the faster of AM and KSBL", better="lower"),
        Claim("e-step-20x", "The E-step on the factors takes a twentieth of the unstructured one or less (ms)",
              "not reported", "a twentieth of the unstructured E-step", better="lower"),
        Claim("am-monotone", "In 100 iterations of AM the objective never rises by more than 1e-9 of itself",
              "proved", "1e-9", better="lower"),
        Claim("am-stationary", "After 1000 iterations of AM the gradient in the logarithms of the factors is "
              "below 1e-4", "proved: limits are stationary points", "1e-4", better="lower"),
        Claim("am-gradient-falls", "Ten times as many iterations of AM (100, 1000) leave at most a fifth of the "
              "gradient", "proved: limits are stationary points", "a fifth of that after 100", better="lower"),
        Claim("fewer-minima", "From 100 random starts EM ends in fewer different supports if the variances are a "
              "product", "proved: fewer local minima", "different supports, variances free", better="lower"),
        Claim("noise-learnt", "The learnt variance of the noise is within 15 % of the truth (share of trials, SVD, "
              "20 dB)", "not reported", "0.9"),
        Claim("noise-costs-little", "Learning the noise at most doubles the NMSE (SVD, median, dB, 20 dB)",
              "shown in figures without numbers", "SVD, noise known", margin=-3.0, better="lower"),
        Claim("pc-over-am-4", "IRS channel at 4 dB: PC (0.8) at most half the NMSE of AM (median, dB)",
              f"{_IRS}: PC 0.125, AM 0.949", "AM", margin=3.0, better="lower"),
        Claim("pc-over-am-12", "IRS channel at 12 dB: PC (0.8) is no worse than AM (median NMSE, dB)",
              f"{_IRS}: PC 0.012, AM 0.023", "AM", better="lower"),
        Claim("structure-over-csbl-12", "IRS channel at 12 dB: the worst of PC, SVD and AM is below 0.6 of "
              "unstructured SBL (median NMSE, dB)", f"{_IRS}: 0.023 (AM) and 0.289",
              "unstructured SBL, same trials", margin=2.2, better="lower"),
        Claim("pc-symbols-12", "IRS channel at 12 dB: PC (0.8) has the lowest symbol error rate",
              "PC 0.0005, AM 0.027, SVD 0.092", "the lower of AM and SVD", better="lower"),
    ),
    seeds=(0, 1, 2, 3, 4),
)


def run(scale: Scale, seed: int, run: Run) -> None:
    """Every method on every setting of the sweeps, the theory on small problems, and the IRS channel."""
    sizes = SIZES[scale]
    base = sizes.base
    settings = list(dict.fromkeys([base, *(replace(base, snr=s) for s in sizes.snrs),
                                   *(replace(base, rows=m) for m in sizes.rows),
                                   *(replace(base, nonzeros=k) for k in sizes.nonzeros)]))
    table: dict[Setting, dict[str, dict[str, Any]]] = {}
    irs: dict[float, dict[str, dict[str, Any]]] = {}
    with run.progress(len(settings) + len(sizes.irs_snrs) + 6, "settings") as bar:
        for setting in settings:
            table[setting] = run.once(setting.key, partial(synthetic, setting, sizes.trials, seed))
            for method, found in table[setting].items():
                run.log(part="synthetic", method=method, snr_db=setting.snr, rows=setting.rows,
                        nonzeros=setting.nonzeros, nmse=median(found["nmse"]), support=median(found["support"]),
                        **{k: found[k] for k in ("seconds", "iterations") if k in found})
            bar.advance()
        hard = replace(base, rows=min(sizes.rows))
        free = {snr: run.once(f"unstructured-snr{snr:g}", partial(
            unstructured, replace(hard, snr=snr), sizes.unstructured, seed, sizes.iterations)) for snr in (10.0, 20.0)}
        for snr, found in free.items():
            run.log(part="synthetic", method="cSBL", snr_db=snr, rows=hard.rows, nonzeros=hard.nonzeros,
                    nmse=median(found["nmse"]), support=median(found["support"]), seconds=found["seconds"],
                    iterations=found["iterations"])
            bar.advance()
        noise = run.once("noise", partial(learnt_noise, base, sizes.trials, seed))
        run.log(part="noise learnt", method="SVD", snr_db=base.snr, nmse=median(noise["nmse"]),
                noise_ratio=median(noise["ratio"]))
        theory = run.once("theory", partial(descent, sizes.long, seed))
        run.log(part="theory", method="AM", largest_rise=theory["am_rise"], gradient=theory["gradients"][-1],
                first_gradient=theory["gradients"][0], iterations=sizes.long)
        run.log(part="theory", method="SVD", share_of_rises=theory["svd_rises"], iterations=100)
        minima = run.once("minima", partial(local_minima, sizes.starts, sizes.starts_iterations,
                                              sizes.starts_problems, seed))
        for method in ("product", "free"):
            run.log(part="local minima", method=method, supports=minima[method], bound=minima[f"{method}_bound"])
        long = run.once("converged", partial(converged, base, sizes.converged, sizes.converged_iterations, seed))
        for method, value in long.items():
            run.log(part="converged, noise learnt", method=method, snr_db=30.0, rows=14, nonzeros=4, nmse=value)
        bar.advance(4)
        for snr in sizes.irs_snrs:
            irs[snr] = run.once(f"irs-snr{snr:g}", partial(channel, snr, sizes, seed))
            for method, found in irs[snr].items():
                run.log(part="IRS channel", method=method, snr_db=snr, nmse=median(found["nmse"]),
                        mean_nmse=fmean(found["nmse"]), symbol_error_rate=fmean(found["symbols"]),
                        seconds=found["seconds"], iterations=found["iterations"],
                        published=PUBLISHED_IRS[method][PUBLISHED_SNR.index(snr)])
            bar.advance()
    _claims(run, base, table, free, noise, theory, minima, irs)
    _draw(run, sizes, table, free, irs)


def _db(errors: list[float]) -> float:
    return 10 * math.log10(median(errors))


def _claims(run: Run, base: Setting, table: dict[Setting, dict[str, dict[str, Any]]], free: dict[float, dict[str, Any]],
            noise: dict[str, Any], theory: dict[str, Any], minima: dict[str, Any],
            irs: dict[float, dict[str, dict[str, Any]]]) -> None:
    plain = table[base]
    error = {method: _db(found["nmse"]) for method, found in plain.items()}
    for snr in (10.0, 20.0, 30.0):
        at = table[replace(base, snr=snr)]
        run.claim(f"svd-over-am-{snr:g}", ours=_db(at["SVD"]["nmse"]), baseline=_db(at["AM"]["nmse"]))
    for snr, found in free.items():
        run.claim(f"svd-over-csbl-{snr:g}", ours=_db(found["svd_nmse"]), baseline=_db(found["nmse"]))
    run.claim("svd-near-oracle", ours=error["SVD"], baseline=error["oracle"])
    run.claim("svd-over-komp", ours=error["SVD"], baseline=min(error["KOMP"], error["KOMP, noise known"]))
    run.claim("am-like-ksbl", ours=abs(error["AM"] - error["KSBL"]), baseline=0.5)
    run.claim("svd-fastest", ours=plain["SVD"]["seconds"],
              baseline=min(plain[method]["seconds"] for method in ("AM", "KSBL")))
    run.claim("e-step-20x", ours=free[20.0]["structured_ms"], baseline=free[20.0]["free_ms"] / 20)
    run.claim("am-monotone", ours=theory["am_rise"], baseline=1e-9)
    run.claim("am-stationary", ours=theory["gradients"][-1], baseline=1e-4)
    run.claim("am-gradient-falls", ours=theory["gradients"][-1], baseline=theory["gradients"][1] / 5)
    run.claim("fewer-minima", ours=minima["product"], baseline=minima["free"])
    run.claim("noise-learnt", ours=fmean(float(abs(r - 1) <= 0.15) for r in noise["ratio"]), baseline=0.9)
    run.claim("noise-costs-little", ours=_db(noise["nmse"]), baseline=error["SVD"])
    low, middle = irs[4.0], irs[12.0]
    run.claim("pc-over-am-4", ours=_db(low["PC (0.8)"]["nmse"]), baseline=_db(low["AM"]["nmse"]))
    run.claim("pc-over-am-12", ours=_db(middle["PC (0.8)"]["nmse"]), baseline=_db(middle["AM"]["nmse"]))
    few = len(middle["cSBL"]["nmse"])
    run.claim("structure-over-csbl-12", ours=max(_db(middle[m]["nmse"][:few]) for m in ("PC (0.8)", "SVD", "AM")),
              baseline=_db(middle["cSBL"]["nmse"]))
    run.claim("pc-symbols-12", ours=fmean(middle["PC (0.8)"]["symbols"]),
              baseline=min(fmean(middle[m]["symbols"]) for m in ("AM", "SVD")))


_COLOURS = {"SVD": "C0", "AM": "C3", "KSBL": "C1", "KOMP": "C4", "KOMP, noise known": "C5", "oracle": "black",
            "PC (0.8)": "C2", "PC (0.5)": "C6", "cSBL": "C7", "PC-SBL": "C8"}


def _draw(run: Run, sizes: Sizes, table: dict[Setting, dict[str, dict[str, Any]]],
          free: dict[float, dict[str, Any]], irs: dict[float, dict[str, dict[str, Any]]]) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 6.4), layout="constrained")
    axes = figure.subplots(2, 3, sharex="col")
    sweeps = ((sizes.snrs, "snr", "signal-to-noise ratio (dB)"),
              (sizes.rows, "rows", f"rows of the first matrix, of {sizes.base.columns} columns"),
              (sizes.nonzeros, "nonzeros", "entries that are not zero, per axis"))
    for column, (values, name, label) in enumerate(sweeps):
        for row, (what, title) in enumerate((("nmse", "median NMSE"), ("support", "support recovered"))):
            ax = axes[row, column]
            for method in ("SVD", "AM", "KSBL", "KOMP", "KOMP, noise known", "oracle"):
                ys = [median(table[replace(sizes.base, **{name: v})][method][what]) for v in values]
                ax.plot(values, ys, "--" if method == "oracle" else "o-", ms=3.5, color=_COLOURS[method], label=method)
            if name == "rows":
                ax.plot([min(values)], [median(free[20.0][what])], "s", color=_COLOURS["cSBL"],
                        label=f"cSBL, {sizes.unstructured} trials")
            if what == "nmse":
                ax.set_yscale("log")
            else:
                ax.set_xlabel(label)
            if column == 0:
                ax.set_ylabel(title)
            ax.grid(alpha=0.3)
            ax.spines[["top", "right"]].set_visible(False)
    axes[0, 1].legend(frameon=False, fontsize=8)
    run.figure("recovery", figure, caption=(
        f"Medians of {sizes.trials} trials of one seed around {sizes.base.snr:g} dB, {sizes.base.rows} rows and "
        f"{sizes.base.nonzeros} entries; unknowns of {sizes.base.columns}^3 entries. "
        f"The support is that of entries above a thousandth of the largest, over the union with the true one."),
        alt="Error and support recovery of each method against noise, rows and sparsity")
    figure = Figure(figsize=(9, 3.8), layout="constrained")
    left, right = figure.subplots(1, 2)
    for method, values in PUBLISHED_IRS.items():
        here = [snr for snr in irs if method in irs[snr]]
        left.plot(here, [median(irs[snr][method]["nmse"]) for snr in here], "o-", ms=4, color=_COLOURS[method],
                  label=method)
        left.plot(PUBLISHED_SNR, values, "x:", ms=5, color=_COLOURS[method])
        right.plot(here, [max(fmean(irs[snr][method]["symbols"]), 1e-5) for snr in here], "o-", ms=4,
                   color=_COLOURS[method], label=method)
    left.set(yscale="log", xlabel="signal-to-noise ratio (dB)", ylabel="median NMSE of the channel")
    right.set(yscale="log", xlabel="signal-to-noise ratio (dB)", ylabel="mean symbol error rate")
    left.legend(frameon=False, fontsize=8, title="ours; crosses: published", title_fontsize=8)
    for ax in (left, right):
        ax.grid(alpha=0.3)
        ax.spines[["top", "right"]].set_visible(False)
    run.figure("irs", figure, caption=(
        f"The channel over a reflecting surface: medians of {sizes.irs_trials} trials of one seed (cSBL and "
        f"PC-SBL: {sizes.irs_unstructured}) beside the medians of the 50 official ones; rates below 1e-5 are drawn "
        f"there."), alt="Channel error and symbol error rate against noise, ours beside the published medians")
