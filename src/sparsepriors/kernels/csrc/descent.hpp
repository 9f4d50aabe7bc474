// Cyclic coordinate descent on x.G x / 2 - c.x + factor * sum_j g_j(x_j), the state being x and q = c - G x.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstring>

#include "kernels.hpp"
#include "vector.hpp"

namespace {

using sparsepriors::Descent;
using sparsepriors::GroupDescent;
using sparsepriors::Penalty;

// Sums of eight lanes, in an order that no compiler flag changes.
inline double inner(const double* a, const double* b, size_t n) {
    double lane[8] = {};
    size_t i = 0;
    for (; i + 8 <= n; i += 8)
        for (size_t l = 0; l < 8; ++l) lane[l] += a[i + l] * b[i + l];
    for (; i < n; ++i) lane[0] += a[i] * b[i];
    return ((lane[0] + lane[4]) + (lane[1] + lane[5])) + ((lane[2] + lane[6]) + (lane[3] + lane[7]));
}

// y += a x; the tail goes entry by entry.
inline void add_multiple(double* y, double a, const double* x, size_t n) {
    constexpr size_t w = Simd<double>::width;
    const Simd<double>::type s = Simd<double>::type{} + a;
    size_t i = 0;
    for (; i + w <= n; i += w) store(y + i, load(y + i) + s * load(x + i));
    for (; i < n; ++i) y[i] += a * x[i];
}

// The penalties of priors/penalties.py, priors/nonconvex.py and priors/sets.py at one coordinate: value at v, and the
// global minimiser u of step * value(u) + (u - v)^2 / 2. Where w and s are `weight` and `second`, see the codes.
inline double power_root(double r, double t, double q) {
    const double b = std::pow(2 * t * (1 - q), 1 / (2 - q)) / (2 * (1 - q));
    if (!(r > (2 - q) * b)) return 0;
    if (!(b > 1e-20 * r)) return r;
    // Newton's method on m - rho + slope m^(q-1), increasing and concave to the right of the jump: from rho it
    // falls to the largest root without passing it.
    const double rho = r / b, slope = q * std::pow(2 * (1 - q), 1 - q);
    double m = rho;
    for (int i = 0; i < 60; ++i) {
        const double p = slope * std::pow(m, q - 1), next = m - (m - rho + p) / (1 + (q - 1) * p / m);
        const bool done = std::abs(next - m) <= 1e-15 * m;
        m = next;
        if (done) break;
    }
    return m * b;
}

inline double firm(double r, double t, double w, double gamma) {
    if (t >= gamma) return r > w * std::sqrt(t * gamma) ? r : 0;
    if (r > gamma * w) return r;
    return std::max(r - t * w, 0.0) / (1 - t / gamma);
}

inline double scad(double r, double t, double w, double a) {
    const double soft = std::max(r - t * w, 0.0);
    if (t >= a - 1) return r <= w * (t <= a + 1 ? (a + 1 + t) / 2 : std::sqrt(t * (a + 1))) ? soft : r;
    if (r <= (1 + t) * w) return soft;
    return r <= a * w ? ((a - 1) * r - a * t * w) / (a - 1 - t) : r;
}

inline double log_sum(double r, double t, double epsilon) {
    const double twice = 2 * std::sqrt(t), radicand = (r + epsilon - twice) * (r + epsilon + twice);
    if (!(radicand > 0)) return 0;
    const double m = std::max((r - epsilon + std::sqrt(radicand)) / 2, 0.0);
    if (t <= epsilon * epsilon) return r * epsilon > t ? m : 0;
    return t * std::log1p(m / epsilon) + 0.5 * (m - r) * (m - r) < 0.5 * r * r ? m : 0;
}

inline double shrink(int kind, double v, double t, double w, double s) {
    const double r = std::abs(v);
    double m = 0;
    switch (kind) {
        case Penalty::elastic: m = std::max(r - t * w, 0.0) / (1 + s * t); break;
        case Penalty::positive: return std::max(v - t * w, 0.0) / (1 + s * t);
        case Penalty::box: return std::min(std::max(v, w), s);
        case Penalty::l0: m = r > std::sqrt(2 * w * t) ? r : 0; break;
        case Penalty::mcp: m = firm(r, t, w, s); break;
        case Penalty::scad: m = scad(r, t, w, s); break;
        case Penalty::log_sum: m = log_sum(r, t * w, s); break;
        case Penalty::power: m = power_root(r, t * w, s); break;
        default: break;
    }
    return std::copysign(m, v);
}

inline double penalty(int kind, double v, double w, double s) {
    const double r = std::abs(v);
    switch (kind) {
        case Penalty::positive:
            if (v < 0) return HUGE_VAL;
            [[fallthrough]];
        case Penalty::elastic: return w * r + 0.5 * s * r * r;
        case Penalty::box: return v >= w && v <= s ? 0 : HUGE_VAL;
        case Penalty::l0: return r != 0 ? w : 0;
        case Penalty::mcp: return r <= s * w ? w * r - r * r / (2 * s) : 0.5 * s * w * w;
        case Penalty::scad:
            if (r <= w) return w * r;
            return r <= s * w ? (2 * s * w * r - r * r - w * w) / (2 * (s - 1)) : w * w * (s + 1) / 2;
        case Penalty::log_sum: return w * std::log1p(r / s);
        case Penalty::power: return w * std::pow(r, s);
        default: return 0;
    }
}

// The smooth part from x and q = linear - gram x.
inline double quadratic(const double* linear, size_t size, const double* x, const double* q) {
    return -0.5 * (inner(x, linear, size) + inner(x, q, size));
}

inline double objective(const Descent& d, const double* x, const double* q) {
    double penalties = 0;
    for (size_t j = 0; j < d.size; ++j)
        penalties += penalty(d.penalty.kind, x[j], d.penalty.weight[j], d.penalty.second[j]);
    return quadratic(d.linear, d.size, x, q) + d.penalty.factor * penalties;
}

// One epoch; returns the largest change of the gradient's own coordinate, G_jj |change of x_j|.
inline double epoch(const Descent& d, double* x, double* q) {
    double largest = 0;
    for (size_t j = 0; j < d.size; ++j) {
        const double curvature = d.gram[j * d.stride + j];
        if (!(curvature > 0)) continue;  // a column of zeros: its coordinate stays
        const double step = 1 / curvature, old = x[j];
        const double next = (shrink(d.penalty.kind, old + q[j] * step, step * d.penalty.factor,
                                             d.penalty.weight[j], d.penalty.second[j]));
        const double change = next - x[j];
        if (change == 0) continue;
        x[j] = next;
        add_multiple(q, (-change), d.gram + j * d.stride, d.size);
        largest = std::max(largest, std::abs(change) * curvature);
    }
    return largest;
}

// Euclidean norm of the entries of group g, which lie together.
inline double group_norm(const GroupDescent& d, size_t g, const double* x) {
    const size_t first = d.starts[g] * d.tasks;
    return std::sqrt(inner(x + first, x + first, d.starts[g + 1] * d.tasks - first));
}

inline double objective(const GroupDescent& d, const double* x, const double* q) {
    double penalties = 0;
    for (size_t g = 0; g < d.groups; ++g)
        penalties += penalty(d.penalty.kind, group_norm(d, g, x), d.penalty.weight[g], d.penalty.second[g]);
    return quadratic(d.linear, d.size * d.tasks, x, q) + d.penalty.factor * penalties;
}

// One step of every group, majorised by its curvature; returns the largest curvature |change of x_g|.
inline double epoch(const GroupDescent& d, double* x, double* q) {
    double largest = 0;
    const size_t tasks = d.tasks;
    for (size_t g = 0; g < d.groups; ++g) {
        const double curvature = d.curvature[g];
        if (!(curvature > 0)) continue;
        const size_t first = d.starts[g], last = d.starts[g + 1], entries = (last - first) * tasks;
        const double step = 1 / curvature;
        double *at = x + first * tasks, *move = d.moves;
        for (size_t i = 0; i < entries; ++i) move[i] = at[i] + step * q[first * tasks + i];
        const double norm = std::sqrt(inner(move, move, entries));
        const double to = norm > 0 ? shrink(d.penalty.kind, norm, step * d.penalty.factor, d.penalty.weight[g],
                                            d.penalty.second[g]) : 0;
        const double ratio = norm > 0 ? to / norm : 0;
        for (size_t i = 0; i < entries; ++i) {
            const double next = ratio * move[i];
            move[i] = next - at[i];
            at[i] = next;
        }
        const double change = std::sqrt(inner(move, move, entries));
        if (change == 0) continue;
        largest = std::max(largest, change * curvature);
        for (size_t j = first; j < last; ++j, move += tasks) {
            const double* row = d.gram + j * d.stride;
            if (tasks == 1) {
                add_multiple(q, -move[0], row, d.size);
                continue;
            }
            for (size_t i = 0; i < d.size; ++i)
                for (size_t t = 0; t < tasks; ++t) q[i * tasks + t] -= row[i] * move[t];
        }
    }
    return largest;
}

}  // namespace
