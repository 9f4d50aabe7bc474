"""The kernels in plain PyTorch: any device, bounded memory, and the meaning that compiled ones must reproduce."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from sparsepriors._norms import euclidean
from sparsepriors.kernels import bitmap, penalties
from sparsepriors.kernels.bitmap import SLACK, TILE, BitmapTensor
from sparsepriors.kernels.chw import PackedCHW
from sparsepriors.kernels.differences import differences, differences_adjoint, onto_bound
from sparsepriors.kernels.formats import BornTables
from sparsepriors.kernels.packed_nm import PackedNM

_MEMORY = 5  # epochs of coordinate descent between two extrapolations
_GAP_EVERY = 10  # iterations between two looks at the duality gap
_MOMENTUM = 4.0
_SINGULAR = 1e-12  # a squared pivot below this share of its diagonal entry is rounding
_DAMPING = 1e-5  # of a singular system, relative to its diagonal
_CHUNK_ENTRIES = 1 << 22  # complex entries of the largest intermediate, 32 MiB in complex64


def born_forward(x: Tensor, tables: BornTables) -> Tensor:
    """Measurements of a scene: ``y[b, k, t, r] = sum_v x[b, v] g[k, t, v] g[k, r, v]``.

    Parameters
    ----------
    x
        ``(batch, voxels)``, complex of the tables' precision.
    tables
        Propagators.

    Returns
    -------
    Tensor
        ``(batch, frequencies, transmitters, receivers)``.
    """
    y = x.new_zeros((x.shape[0], tables.frequencies, tables.transmitters, tables.receivers))
    for voxels, propagators in _chunks(tables, x.shape[0]):
        part = x[:, None, voxels]
        for k, g in propagators:
            y[:, k] += g[:tables.transmitters] @ (part * g[tables.transmitters:]).mT
    return y


def born_adjoint(y: Tensor, tables: BornTables) -> Tensor:
    """Adjoint of `born_forward`: ``x[b, v] = sum_ktr conj(g[k, t, v] g[k, r, v]) y[b, k, t, r]``.

    Parameters
    ----------
    y
        ``(batch, frequencies, transmitters, receivers)``, complex of the tables' precision.
    tables
        Propagators.

    Returns
    -------
    Tensor
        ``(batch, voxels)``.
    """
    x = y.new_zeros((y.shape[0], tables.voxels))
    for voxels, propagators in _chunks(tables, y.shape[0]):
        for k, g in propagators:
            x[:, voxels] += ((y[:, k].conj() @ g[tables.transmitters:]) * g[:tables.transmitters]).sum(dim=1).conj()
    return x


def _chunks(tables: BornTables, batch: int):
    """Slices of voxels, each with the pairs (k, propagators of all antennas to these voxels)."""
    _, tiles, antennas, _, tile = tables.base.shape
    per_chunk = max(1, _CHUNK_ENTRIES // (antennas * tile * max(batch, 1)))
    for first in range(0, tiles, per_chunk):
        last = min(first + per_chunk, tiles)
        voxels = slice(first * tile, min(last * tile, tables.voxels))
        yield voxels, _propagators(tables, slice(first, last), voxels.stop - voxels.start)


def _propagators(tables: BornTables, tiles: slice, voxels: int):
    ratio = _planar(tables.ratio[tiles], voxels)
    for s, base in enumerate(tables.base):
        g = _planar(base[tiles], voxels)
        for k in range(s * tables.segment, min((s + 1) * tables.segment, tables.frequencies)):
            yield k, g
            g = g * ratio


def _planar(table: Tensor, voxels: int) -> Tensor:
    """``(tiles, antennas, 2, tile)`` reals as ``(antennas, voxels)`` complex numbers."""
    real, imag = table.permute(2, 1, 0, 3).flatten(2)[..., :voxels].unbind(0)
    return torch.complex(real.contiguous(), imag.contiguous())


def topk_mask(scores: Tensor, k: int) -> Tensor:
    """The ``k`` largest of the last axis by a stable sort, so that ties go to the lower index."""
    order = torch.sort(scores, dim=-1, descending=True, stable=True).indices
    return torch.zeros(scores.shape, dtype=torch.bool, device=scores.device).scatter_(-1, order[..., :k], True)


def nm_mask(scores: Tensor, n: int, m: int) -> Tensor:
    """The ``n`` largest of every ``m`` consecutive scores of the last axis."""
    return topk_mask(scores.reshape(*scores.shape[:-1], scores.shape[-1] // m, m), n).reshape(scores.shape)


def spmm_chw(x: Tensor, packed: PackedCHW, lo: float = -math.inf, hi: float = math.inf,
             out: Tensor | None = None) -> Tensor:
    """``clamp(W x + bias, lo, hi)`` at every pixel, from the stored weights only.

    Parameters
    ----------
    x
        ``(batch, channels, *pixels)``.
    packed
        Weights and bias.
    lo, hi
        Bounds of the result.
    out
        Where the result goes, ``(batch, outputs, *pixels)``.

    Returns
    -------
    Tensor
        ``(batch, outputs, *pixels)``.
    """
    planes = x.flatten(2)
    y = packed.bias[:, None].expand(x.shape[0], packed.outputs, planes.shape[2]).clone()
    per_chunk = max(1, _CHUNK_ENTRIES // max(1, planes.shape[0] * planes.shape[2]))
    for rows, columns, values in zip(*(t.split(per_chunk) for t in packed.entries()), strict=True):
        y = y.index_add(1, rows, values[:, None] * planes[:, columns])
    y = y.clamp(lo, hi).reshape(x.shape[0], packed.outputs, *x.shape[2:])
    return y if out is None else out.copy_(y)


def nm_linear(x: Tensor, packed: PackedNM) -> Tensor:
    """A linear layer with packed N:M weights: ``y[..., r] = bias[r] + sum_t values[r, t] x[..., column[r, t]]``.

    Parameters
    ----------
    x
        ``(..., in_features)``, float32 or bfloat16.
    packed
        The weight and bias.

    Returns
    -------
    Tensor
        ``(..., out_features)``, of the dtype of ``x``, summed in float32.
    """
    values, places = packed.unpacked()
    columns = places + torch.arange(places.shape[1], device=places.device) // packed.n * packed.m
    rows = x.reshape(-1, packed.in_features).float()
    y = rows.new_empty((rows.shape[0], packed.out_features))
    per_chunk = max(1, _CHUNK_ENTRIES // max(1, rows.shape[0] * values.shape[1]))
    for first in range(0, packed.out_features, per_chunk):
        part = slice(first, first + per_chunk)
        y[:, part] = (rows[:, columns[part]] * values[part].float()).sum(-1)
    if packed.bias is not None:
        y += packed.bias
    return y.to(x.dtype).reshape(*x.shape[:-1], packed.out_features)


def tv_prox(x: Tensor, bound: Tensor, p: Tensor, isotropic: bool, tol: float,
            max_iter: int) -> tuple[Tensor, Tensor, Tensor]:
    """The proximal operator of total variation by its dual: min ||x - D^T p||^2 / 2 over |p| <= bound.

    The accelerated projected gradient method with Chambolle and Dossal's momentum and restarts, from ``p`` until the
    gap is at most ``tol`` times the primal objective or ``max_iter`` iterations are made, for every unknown by itself.

    Parameters
    ----------
    x
        ``(n, *spatial)``, real or complex, of order one.
    bound
        ``(n,)``, nonnegative.
    p
        ``(n, d, *spatial)``, where the iteration starts, ``|p| <= bound``.
    isotropic
        Whether |p| joins the directions by the Euclidean norm, or bounds each.
    tol, max_iter
        When to stop.

    Returns
    -------
    tuple
        The proximal points ``x - D^T p``, the dual points, and the relative gaps (float64).
    """
    n, d = x.shape[0], x.ndim - 1
    t = bound.reshape(-1, *(1,) * d)
    p = torch.where(t[:, None] > 0, p, 0)
    done, gaps = p.clone(), torch.zeros(n, device=x.device, dtype=torch.float64)
    active = torch.arange(n, device=x.device)
    rest, q, since = x, p, x.new_zeros(n, *(1,) * (d + 1), dtype=t.dtype)
    for iteration in range(max_iter + 1):
        if iteration % _GAP_EVERY == 0 or iteration == max_iter:
            gap = _relative_gap(rest, t, p, isotropic)
            left = (gap > tol) & (iteration < max_iter)
            done = done.index_copy(0, active[~left], p[~left])
            gaps[active[~left]] = gap[~left]
            active, rest, t, p, q, since = active[left], rest[left], t[left], p[left], q[left], since[left]
            if not active.numel():
                break
        u = rest - differences_adjoint(q, d)
        new = onto_bound(q + differences(u, d) / (4 * d), t[:, None], isotropic)
        move = new - p
        uphill = ((q - new).conj() * move).real.detach().sum(dim=tuple(range(1, d + 2)), keepdim=True) > 0
        q = torch.where(uphill, new, new + since / (since + 1 + _MOMENTUM) * move)
        since = torch.where(uphill, 0.0, since + 1)
        p = new
    return x - differences_adjoint(done, d), done, gaps


@torch.no_grad()
def _relative_gap(x: Tensor, t: Tensor, p: Tensor, isotropic: bool) -> Tensor:
    d = x.ndim - 1
    axes = tuple(range(1, d + 1))
    u = x - differences_adjoint(p, d)
    du = differences(u, d)
    sizes = euclidean(du, (1,)) if isotropic else du.abs().sum(dim=1)
    gap = (t * sizes - (du.conj() * p).real.sum(dim=1)).sum(dim=axes, dtype=torch.float64)
    primal = (t * sizes + 0.5 * (u - x).abs().square()).sum(dim=axes, dtype=torch.float64)
    # Differences smaller than the rounding of x itself carry no information.
    floor = torch.finfo(x.dtype).eps ** 2 * x.abs().square().sum(dim=axes, dtype=torch.float64)
    return torch.where(gap <= floor, 0.0, gap / primal)


def pack_bitmap(x: Tensor, orientation: str, keep: int | None, pad: int) -> tuple[Tensor, Tensor, Tensor]:
    """The bitmap, offsets and values of a `BitmapTensor` of what is left of ``x``.

    Parameters
    ----------
    x
        ``(batch, heads, tokens, channels)``, tokens a multiple of 64.
    orientation
        ``"key"``: a tile is one channel of 64 tokens. ``"value"``: 64 channels of one token.
    keep
        How many channels of largest magnitude stay of every token and head, ties to the lower; None for all nonzeros.
    pad
        The values of every tile are filled up to a multiple of this.
    """
    if keep is not None:
        x = torch.where(topk_mask(x.abs(), keep), x, 0)
    batch, heads, tokens, channels = x.shape
    blocked = x.reshape(batch * heads, tokens // TILE, TILE, channels)
    if orientation == "key":
        tiles = blocked.transpose(2, 3)
    else:
        filled = torch.nn.functional.pad(blocked, (0, -channels % TILE))
        tiles = filled.unflatten(3, (-1, TILE)).transpose(2, 3).flatten(2, 3)
    stored = tiles != 0
    words = (stored.long() << torch.arange(TILE, device=x.device)).sum(dim=-1)
    counts = bitmap.padded(stored.sum(dim=-1), pad)
    offsets = torch.nn.functional.pad(counts.sum(dim=-1).cumsum(dim=-1), (1, 0))
    used = int(offsets.max()) if offsets.numel() else 0
    bitmap.check_offset(used)
    values = x.new_zeros(batch * heads, used + SLACK)
    places = bitmap.tile_starts(words, offsets[:, :-1], pad)[..., None] + stored.cumsum(dim=-1) - 1
    rows = torch.arange(batch * heads, device=x.device)[:, None, None, None].expand(places.shape)
    values[rows[stored], places[stored]] = tiles[stored]
    return words, offsets.to(torch.int32), values


def bitmap_scores(q: Tensor, keys: BitmapTensor) -> Tensor:
    """Products of queries ``(batch, query_heads, channels)`` with packed keys, in float32.

    Returns
    -------
    Tensor
        ``(batch, query_heads, tokens)``; query heads in a row share a head of the keys.
    """
    return _per_group(q, keys, bitmap.unpacked(keys).mT)


def bitmap_mix(weights: Tensor, values: BitmapTensor) -> Tensor:
    """Packed values mixed by weights ``(batch, query_heads, tokens)``, in float32.

    Returns
    -------
    Tensor
        ``(batch, query_heads, channels)``; query heads in a row share a head of the values.
    """
    return _per_group(weights, values, bitmap.unpacked(values))


def _per_group(x: Tensor, packed: BitmapTensor, right: Tensor) -> Tensor:
    batch, query_heads, width = x.shape
    heads = packed.shape[1]
    grouped = x.float().reshape(batch, heads, query_heads // max(heads, 1), width)
    return (grouped @ right.float()).reshape(batch, query_heads, right.shape[3])


def bitmap_attention(q: Tensor, keys: BitmapTensor, values: BitmapTensor, recent_keys: Tensor, recent_values: Tensor,
                     scale: float, mask: Tensor | None) -> Tensor:
    """Attention over packed tokens and the dense ones after them: one softmax in float32 over both.

    Parameters
    ----------
    q
        ``(batch, query_heads, channels)``.
    keys, values
        The packed tokens.
    recent_keys, recent_values
        ``(batch, heads, recent, channels)``, the dense tokens.
    scale
        What the products are multiplied by.
    mask
        ``(batch, 1 or query_heads, tokens + recent)``: booleans, True where a token is attended to, or numbers to add.

    Returns
    -------
    Tensor
        ``(batch, query_heads, channels)`` of the dtype of q, zeros where every token is masked.
    """
    scores = torch.cat((bitmap_scores(q, keys), _per_group(q, keys, recent_keys.mT)), dim=-1) * scale
    if mask is not None:
        scores = torch.where(mask, scores, -torch.inf) if mask.dtype == torch.bool else scores + mask.float()
    top = scores.amax(dim=-1, keepdim=True) if scores.shape[-1] else scores.new_zeros((*scores.shape[:2], 1))
    weights = torch.exp(scores - torch.where(top == -torch.inf, 0.0, top))
    total = weights.sum(dim=-1, keepdim=True)
    weights = weights / torch.where(total == 0, 1.0, total)
    tokens = keys.shape[2]
    mixed = bitmap_mix(weights[..., :tokens], values) + _per_group(weights[..., tokens:], values, recent_values)
    return mixed.to(q.dtype)


def gram_descent(gram: Tensor, linear: Tensor, x: Tensor, q: Tensor, kind: int, weight: Tensor, second: Tensor,
                 factor: float, tol: float, max_epochs: int, accelerate: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Cyclic coordinate descent on ``1/2 x.G x - linear.x + factor sum_j g_j(x_j)``, from x and q = linear - G x.

    Every `_MEMORY` epochs the last iterates are extrapolated (Bertrand and Massias, 2021, Anderson acceleration of
    coordinate descent, algorithm 1); the new point is taken if its objective is lower. Coordinates with a curvature of
    zero stay.

    Parameters
    ----------
    gram
        G in its first k rows and columns.
    linear, x, q
        ``(k,)``.
    kind, weight, second
        The penalties g_j, as `sparsepriors.kernels.penalties` explains them.
    factor
        Of all penalties.
    tol
        Ends the descent after an epoch that changed no coordinate by more than tol / G_jj.
    max_epochs
        Most epochs.
    accelerate
        Whether to extrapolate.

    Returns
    -------
    tuple
        x, q, and the two numbers: epochs made, largest ``G_jj |change of x_j|`` of the last.
    """
    k = linear.numel()
    gram, curvature = gram[:k, :k], gram.diagonal()[:k].tolist()
    w, s = weight.tolist(), second.tolist()

    def objective(x: Tensor, q: Tensor) -> float:
        penalty = sum(penalties.value(kind, v, a, b) for v, a, b in zip(x.tolist(), w, s, strict=True))
        return float(-0.5 * (x @ linear + x @ q)) + factor * penalty

    def epoch(x: Tensor, q: Tensor) -> float:
        largest = 0.0
        for j, a in enumerate(curvature):
            if not a > 0:
                continue
            old = float(x[j])
            new = penalties.prox(kind, old + float(q[j]) / a, factor / a, w[j], s[j])
            if new != old:
                x[j] = new
                q -= (new - old) * gram[j]
                largest = max(largest, a * abs(new - old))
        return largest

    return _epochs(x, q, epoch, objective, tol, max_epochs, accelerate)


def gram_group_descent(gram: Tensor, linear: Tensor, x: Tensor, q: Tensor, starts: Tensor, curvature: Tensor, kind: int,
                       weight: Tensor, second: Tensor, factor: float, tol: float, max_epochs: int,
                       accelerate: bool) -> tuple[Tensor, Tensor, Tensor]:
    """`gram_descent` group by group: ``1/2 tr(x.G x) - <linear, x> + factor sum_g h_g(||x_g||)``.

    A group takes the step that is exact where its block of G is ``curvature`` times the identity, and that lowers the
    objective wherever ``curvature`` bounds the eigenvalues of the block. Groups with a curvature of zero stay.

    Parameters
    ----------
    gram
        G in its first k rows and columns.
    linear, x, q
        ``(k, tasks)``, q = linear - G x.
    starts
        ``(groups + 1,)``: group g is the rows from ``starts[g]`` up to ``starts[g + 1]`` of x.
    curvature
        ``(groups,)``.
    kind, weight, second, factor
        The penalties h_g of norms, as for `gram_descent`.
    tol
        Ends the descent after an epoch that changed no group by more than tol / curvature.
    max_epochs
        Most epochs.
    accelerate
        Whether to extrapolate.

    Returns
    -------
    tuple
        x, q, and the two numbers: epochs made, largest ``curvature ||change of x_g||`` of the last.
    """
    k = len(linear)
    gram, edges = gram[:k, :k], starts.tolist()
    groups = list(zip(edges[:-1], edges[1:], curvature.tolist(), weight.tolist(), second.tolist(), strict=True))

    def objective(x: Tensor, q: Tensor) -> float:
        penalty = sum(penalties.value(kind, float(x[i:j].norm()), w, s) for i, j, _, w, s in groups)
        return float(-0.5 * ((x * linear).sum() + (x * q).sum())) + factor * penalty

    def epoch(x: Tensor, q: Tensor) -> float:
        largest = 0.0
        for i, j, a, w, s in groups:
            if not a > 0:
                continue
            to = x[i:j] + q[i:j] / a
            norm = float(to.norm())
            change = to * (penalties.prox(kind, norm, factor / a, w, s) / norm if norm > 0 else 0.0) - x[i:j]
            x[i:j] += change
            q -= gram[:, i:j] @ change
            largest = max(largest, a * float(change.norm()))
        return largest

    return _epochs(x, q, epoch, objective, tol, max_epochs, accelerate)


def _epochs(x: Tensor, q: Tensor, epoch: Callable[[Tensor, Tensor], float],
            objective: Callable[[Tensor, Tensor], float], tol: float, max_epochs: int,
            accelerate: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Epochs that change x and q in place and return their largest change, with extrapolation."""
    x, q = x.clone(), q.clone()
    kept, done, largest = [torch.stack([x, q])], 0, 0.0
    while done < max_epochs:
        largest, done = epoch(x, q), done + 1
        if largest <= tol:
            break
        kept.append(torch.stack([x, q]))
        if not accelerate or len(kept) <= _MEMORY:
            continue
        moves = torch.stack(kept).diff(dim=0)[:, 0].flatten(1)
        products = moves @ moves.mT
        products.diagonal().add_(1e-12 * products.trace())
        c, singular = torch.linalg.solve_ex(products, products.new_ones(_MEMORY))
        if not singular and bool(torch.isfinite(c).all()) and c.sum() != 0:
            trial = torch.einsum("i,i...->...", c / c.sum(), torch.stack(kept[1:]))
            if objective(trial[0], trial[1]) < objective(x, q):
                x, q = trial[0].clone(), trial[1].clone()
        kept = [torch.stack([x, q])]
    return x, q, torch.tensor([done, largest], dtype=torch.float64)


def gram_newton(gram: Tensor, linear: Tensor, x: Tensor, kind: int, weight: Tensor, second: Tensor, factor: float,
                max_steps: int) -> tuple[Tensor, Tensor]:
    """Newton's method on the support of x for ``1/2 x.G x - linear.x + factor sum_j g_j(x_j)``, g_j quadratic beside 0.

    A step leads towards the minimiser for the present signs. It is taken to the exact minimum along its line or, where
    that is lower, whole, with zeros where signs would change. A step that changes no sign is the last. Zeros stay; a
    singular system is damped.

    Parameters
    ----------
    gram
        G in its first k rows and columns.
    linear, x
        ``(k,)``.
    kind, weight, second
        The penalties g_j, `Penalty.elastic` or `Penalty.positive`.
    factor
        Of all penalties.
    max_steps
        Most steps.

    Returns
    -------
    tuple
        x, and linear - G x.
    """
    k, x = linear.numel(), x.clone()
    gram, positive = gram[:k, :k], kind == penalties.Penalty.positive
    for _ in range(max_steps):
        at = x.nonzero()[:, 0]
        if not at.numel():
            break
        old, w = x[at], factor * weight[at]
        hessian = gram[at[:, None], at] + torch.diag(factor * second[at])
        gradient = hessian @ old - linear[at] + w * old.sign()
        factored, failed = torch.linalg.cholesky_ex(hessian)
        singular = bool(failed) or bool((factored.diagonal() ** 2 <= _SINGULAR * hessian.diagonal()).any())
        if singular:
            factored, failed = torch.linalg.cholesky_ex(hessian + torch.diag(_DAMPING * hessian.diagonal()))
            if bool(failed):
                break
        step = -torch.cholesky_solve(gradient[:, None], factored)[:, 0]
        slope, curvature = float(gradient @ step), float(step @ hessian @ step)
        if not slope < 0:
            break
        crossing = torch.where(old * step < 0, -old / step, torch.inf)
        length, change, ends = _along(slope, curvature, crossing, 2 * w * step.abs(), positive)
        if not math.isfinite(length):
            break
        new, whole = old + length * step, not singular and float(crossing.min()) >= 1
        if ends is not None:
            new[ends] = 0.0
        cut = torch.where((old + step) * old > 0, step, -old)
        lower = float(gradient @ cut + 0.5 * cut @ hessian @ cut)
        if not whole and lower < change:
            new = torch.where((old + step) * old > 0, old + step, 0.0)
        elif not change < 0:
            break
        x[at] = new.clamp(min=0) if positive else new
        if whole:
            break
    return x, linear - gram @ x


def _along(slope: float, curvature: float, crossing: Tensor, kinks: Tensor,
           positive: bool) -> tuple[float, float, int | None]:
    """Where a convex quadratic with kinks is least along t >= 0, by how much it changes, and at whose kink that is."""
    rising, ends = slope, None
    for i in crossing.argsort().tolist():
        if (-rising / curvature if curvature > 0 else math.inf) <= crossing[i]:
            break
        rising += float(kinks[i])
        if positive or rising + curvature * float(crossing[i]) >= 0:
            ends = i
            break
    root = -rising / curvature if curvature > 0 else math.inf
    t = root if ends is None else float(crossing[ends])
    passed = torch.where(crossing < t, kinks * (t - crossing), 0.0)
    return t, t * (slope + 0.5 * t * curvature) + float(passed.sum()), ends


def optimality(x: Tensor, q: Tensor, curvature: Tensor, kind: int, weight: Tensor, second: Tensor, factor: float,
               residual: float, projection: float) -> tuple[Tensor, Tensor, Tensor]:
    """How far x is from the minimum of ``1/2 ||X x - y||^2 + factor sum_j g_j(x_j)``, given r = y - X x.

    Parameters
    ----------
    x, q, curvature
        ``(p,)``; q = X^T r, curvature the squared norms of the columns.
    kind, weight, second, factor
        The penalties, as for `gram_descent`.
    residual, projection
        ``r.r`` and ``r.y``.

    Returns
    -------
    tuple
        ``(p,)`` violations ``curvature_j |x_j - what one exact step in coordinate j leads to|``; ``(p,)`` booleans,
        False for columns that the gap proves to be zero in every solution (Ndiaye, Fercoq, Gramfort, Salmon, 2017, Gap
        safe screening rules, equation 11); the three numbers: largest violation, value of the penalty, duality gap at
        the dual point r, shrunk until it is feasible (infinite where the penalty is not quadratic beside 0 or misses
        a column).
    """
    a, w, s = curvature.tolist(), weight.tolist(), second.tolist()
    moved = [penalties.prox(kind, v + c / b, factor / b, i, j) if b > 0 else v
             for v, c, b, i, j in zip(x.tolist(), q.tolist(), a, w, s, strict=True)]
    violation = curvature * (x - torch.tensor(moved, dtype=x.dtype)).abs()
    worst = float(violation.max()) if x.numel() else 0.0
    value = factor * sum(penalties.value(kind, v, i, j) for v, i, j in zip(x.tolist(), w, s, strict=True))
    active = torch.ones_like(x, dtype=torch.bool)
    bare = (weight == 0) & (second == 0) & (curvature > 0)
    if kind not in (penalties.Penalty.elastic, penalties.Penalty.positive) or bool(bare.any()):
        return violation, active, torch.tensor([worst, value, math.inf], dtype=torch.float64)
    reach = q if kind == penalties.Penalty.positive else q.abs()
    bound = torch.where((second == 0) & (reach > factor * weight), factor * weight / reach, 1.0)
    shrink = float(bound.min()) if x.numel() else 1.0
    excess = torch.relu(shrink * reach - factor * weight).square()
    conjugate = float(torch.where(second > 0, excess / (2 * factor * second), 0.0).sum())
    gap = 0.5 * residual + value + conjugate - shrink * projection + 0.5 * shrink * shrink * residual
    radius = math.sqrt(2 * max(gap, 0.0))
    active = (x != 0) | ~(shrink * reach + curvature.sqrt() * radius < factor * weight)
    return violation, active, torch.tensor([worst, value, gap], dtype=torch.float64)


def column_products(columns: Tensor, r: Tensor, keep: Tensor | None = None) -> Tensor:
    """``columns @ r`` in float64, zero for the columns that are not kept.

    Parameters
    ----------
    columns
        ``(p, n)``, a column of the design in every row.
    r
        ``(n,)``, float64.
    keep
        ``(p,)`` booleans, or None for all.
    """
    out = columns.double() @ r
    return out if keep is None else torch.where(keep, out, 0.0)


def gram_ista(linear: Tensor, gram: Tensor, x: Tensor, kind: int, weight: Tensor, second: Tensor, factor: float,
              step: float, tol: float, floor: float, max_steps: int) -> tuple[Tensor, Tensor]:
    """Proximal gradient on ``1/2 x.G x - linear.x + factor sum_j g_j(x_j)`` for every row, until it stands still.

    Parameters
    ----------
    linear, x
        ``(rows, units)``: the linear terms, and the codes from which the iteration starts.
    gram
        G.
    kind, weight, second
        The penalties g_j, as `sparsepriors.kernels.penalties` explains them.
    factor
        Of all penalties.
    step
        Of the gradient.
    tol, floor
        A row ends after a step that moved it by at most ``tol * (floor + its length before)``.
    max_steps
        Most steps of a row.

    Returns
    -------
    tuple
        The codes ``(rows, units)`` and the steps that each row made ``(rows,)``.
    """
    w, s = weight.tolist(), second.tolist()
    codes, steps = x.clone(), torch.zeros(linear.shape[0], dtype=torch.int64, device=linear.device)
    for i in range(linear.shape[0]):
        for _ in range(max_steps):
            old = codes[i].clone()
            v = (old + step * (linear[i] - gram @ old)).tolist()
            new = [penalties.prox(kind, u, step * factor, a, b) for u, a, b in zip(v, w, s, strict=True)]
            codes[i] = torch.tensor(new, dtype=x.dtype, device=x.device)
            steps[i] += 1
            if float((codes[i] - old).norm()) <= tol * (floor + float(old.norm())):
                break
    return codes, steps


def gram_pursuit(correlation: Tensor, gram: Tensor, energy: Tensor, steps: int, tol: float = 0.0, nonneg: bool = True,
                 stop_on_repeat: bool = False) -> tuple[Tensor, Tensor]:
    """Matching pursuit: the unit with the largest correlation, whose row of the Gram matrix is subtracted, and again.

    Parameters
    ----------
    correlation
        ``(rows, units)``: of every signal with every atom.
    gram
        ``(units, units)``: products of the atoms.
    energy
        ``(rows,)`` float64: squared length of every signal, which a step changes by ``v^2 (G_jj - 2)``.
    steps
        Most steps of a row.
    tol
        A row ends once its energy is below ``tol^2``; 0 for never.
    nonneg
        Whether the largest correlation counts, and only while it is positive, rather than the largest modulus.
    stop_on_repeat
        Whether a row ends with the first step that takes a unit again.

    Returns
    -------
    tuple
        Units ``(rows, steps)``, int64, -1 after a row's last step, and correlations when they were taken, 0 there.
    """
    c = correlation
    atoms = torch.full((len(c), steps), -1, dtype=torch.int64, device=c.device)
    values, going = c.new_zeros(len(c), steps), torch.ones(len(c), dtype=torch.bool, device=c.device)
    for t in range(steps):
        index = (c if nonneg else c.abs()).argmax(dim=1)
        v = c.gather(1, index[:, None])[:, 0]
        going = going & ((v > 0) if nonneg else (v != 0)) & ((energy >= tol**2) if tol else True)
        if not bool(going.any()):
            break
        repeated = (atoms == index[:, None]).any(dim=1)
        atoms[:, t], values[:, t] = torch.where(going, index, -1), torch.where(going, v, 0)
        energy = energy + v.double().square() * (gram.diagonal()[index].double() - 2)
        c = c - v[:, None] * gram[index]
        going = going & ~repeated if stop_on_repeat else going
    return atoms, values
