// Newton's method on the support of an elastic penalty: factor, step, and the exact minimum along the step.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <utility>

#include "descent.hpp"

namespace {

using sparsepriors::NewtonScratch;

constexpr double kSingular = 1e-12;  // a pivot below this share of its diagonal entry is rounding
constexpr double kDamping = 1e-5;    // of a singular system, relative to its diagonal

// out[a][b] = product of row a of `left` and row b of `right`, four rows each, over n entries, a multiple of 4.
inline void products(const double* left, const double* right, size_t stride, size_t n, double (*out)[4]) {
    typedef Simd<double>::type V;
    constexpr size_t w = Simd<double>::width;
    V sums[4][4] = {};
    size_t i = 0;
    for (; i + w <= n; i += w) {
        V r[4];
        for (int b = 0; b < 4; ++b) r[b] = load(right + b * stride + i);
        for (int a = 0; a < 4; ++a) {
            const V l = load(left + a * stride + i);
            for (int b = 0; b < 4; ++b) sums[a][b] += l * r[b];
        }
    }
    for (int a = 0; a < 4; ++a) sum_lanes<double>(sums[a], out[a]);
    for (; i < n; ++i)
        for (int a = 0; a < 4; ++a)
            for (int b = 0; b < 4; ++b) out[a][b] += left[a * stride + i] * right[b * stride + i];
}

// The lower factor of a symmetric matrix in place of its lower triangle, in tiles of four; false if it is singular.
inline bool cholesky(double* m, size_t rows, size_t stride) {
    for (size_t i = 0; i < rows; i += 4)
        for (size_t j = 0; j <= i; j += 4) {
            double t[4][4];
            products(m + i * stride, m + j * stride, stride, j, t);
            double *tile = m + i * stride + j, *corner = m + j * stride + j;
            for (size_t a = 0; a < 4; ++a) {
                const size_t last = i == j ? a : 3;
                for (size_t b = 0; b <= last; ++b) {
                    double v = tile[a * stride + b] - t[a][b];
                    for (size_t c = 0; c < b; ++c) v -= tile[a * stride + c] * corner[b * stride + c];
                    if (i == j && a == b) {
                        if (!(v > kSingular * tile[a * stride + a])) return false;
                        tile[a * stride + a] = std::sqrt(v);
                    } else {
                        tile[a * stride + b] = v / corner[b * stride + b];
                    }
                }
            }
        }
    return true;
}

// v := (L L^T)^-1 v
inline void solve(const double* factor, size_t rows, size_t stride, double* v) {
    for (size_t i = 0; i < rows; ++i) v[i] = (v[i] - inner(factor + i * stride, v, i)) / factor[i * stride + i];
    for (size_t i = rows; i-- > 0;) {
        v[i] /= factor[i * stride + i];
        add_multiple(v, -v[i], factor + i * stride, i);
    }
}

// The quadratic g.z + z.H z / 2.
inline double model(const double* hessian, size_t rows, size_t stride, const double* g, const double* z) {
    double sum = 0;
    for (size_t i = 0; i < rows; ++i) sum += z[i] * (g[i] + 0.5 * inner(hessian + i * stride, z, rows));
    return sum;
}

// See kernels.hpp.
void newton(const Descent& d, size_t max_steps, double* x, double* q, const NewtonScratch& scratch) {
    const bool positive = d.penalty.kind == Penalty::positive;
    auto weight = [&](size_t j) { return d.penalty.factor * d.penalty.weight[j]; };
    size_t* support = scratch.support;
    double *g = scratch.vectors, *step = g + scratch.room, *trial = step + scratch.room;
    for (size_t done = 0; done < max_steps; ++done) {
        size_t m = 0;
        for (size_t j = 0; j < d.size; ++j)
            if (x[j] != 0) support[m++] = j;
        if (m == 0) break;
        const size_t rows = (m + 3) / 4 * 4, stride = scratch.stride;
        double *hessian = scratch.hessian, *factor = scratch.factor;
        for (size_t i = 0; i < rows; ++i) {
            double* row = hessian + i * stride;
            std::fill(row, row + rows, 0.0);
            if (i >= m) continue;
            const double* from = d.gram + support[i] * d.stride;
            for (size_t j = 0; j < m; ++j) row[j] = from[support[j]];
            row[i] += d.penalty.factor * d.penalty.second[support[i]];
            trial[i] = x[support[i]];
        }
        for (size_t i = m; i < rows; ++i) hessian[i * stride + i] = 1, trial[i] = g[i] = step[i] = 0;
        for (size_t i = 0; i < m; ++i) {
            const size_t j = support[i];
            g[i] = inner(hessian + i * stride, trial, rows) - d.linear[j] + std::copysign(weight(j), x[j]);
            step[i] = -g[i];
        }
        bool factored = false, damped = false;
        for (double damping : {0.0, kDamping}) {  // more columns than their rank: a long step ends at a sign
            for (size_t i = 0; i < rows; ++i) {
                std::copy(hessian + i * stride, hessian + i * stride + i + 1, factor + i * stride);
                factor[i * stride + i] *= 1 + damping;
            }
            damped = damping > 0;
            if ((factored = cholesky(factor, rows, stride))) break;
        }
        if (!factored) break;
        solve(factor, rows, stride, step);

        // Along x + t step the objective is a quadratic with a kink wherever a sign changes: its minimiser t.
        auto* kinks = scratch.kinks;
        size_t crossings = 0;
        double slope = 0, curvature = 0;
        for (size_t i = 0; i < m; ++i) {
            slope += g[i] * step[i];
            curvature += step[i] * inner(hessian + i * stride, step, rows);
            const double at = x[support[i]], t = -at / step[i];
            if (step[i] != 0 && t > 0 && std::isfinite(t)) kinks[crossings++] = {t, i};
        }
        if (!(slope < 0) || !std::isfinite(slope)) break;
        std::sort(kinks, kinks + crossings);
        const double first = crossings ? kinks[0].first : HUGE_VAL;
        double length = 0, change = 0;
        size_t passed = 0, ends = m;  // the coordinate whose kink is the minimiser, if one is
        for (double rising = slope;; ++passed) {
            const double root = curvature > 0 ? -rising / curvature : HUGE_VAL;
            if (passed == crossings || root <= kinks[passed].first) {
                length = root;
                break;
            }
            const size_t i = kinks[passed].second;
            length = kinks[passed].first;
            rising += 2 * weight(support[i]) * std::abs(step[i]);
            if (positive || rising + curvature * length >= 0) {
                ends = i;
                break;
            }
        }
        if (!std::isfinite(length)) break;
        change = length * (slope + 0.5 * length * curvature);
        for (size_t k = 0; k < passed; ++k) {
            const size_t i = kinks[k].second;
            change += 2 * weight(support[i]) * std::abs(step[i]) * (length - kinks[k].first);
        }

        // The whole step with every coordinate that changes its sign at zero drops many at a time, where that is lower.
        const bool whole = !damped && first >= 1;
        bool cut = false;
        if (!whole) {
            for (size_t i = 0; i < m; ++i) {
                const double at = x[support[i]], to = at + step[i];
                trial[i] = (to > 0) == (at > 0) && to != 0 ? step[i] : -at;
            }
            cut = model(hessian, rows, stride, g, trial) < change;
        }
        if (!cut && !(change < 0)) break;
        for (size_t i = 0; i < m; ++i) {
            double& at = x[support[i]];
            const double to = at + (cut ? trial[i] : length * step[i]);
            at = !cut && i == ends ? 0 : (positive && to < 0 ? 0 : to);
        }
        if (whole) break;
    }
    std::copy(d.linear, d.linear + d.size, q);
    for (size_t j = 0; j < d.size; ++j)
        if (x[j] != 0) add_multiple(q, -x[j], d.gram + j * d.stride, d.size);
}

}  // namespace
