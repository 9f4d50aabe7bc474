// Coordinate descent on groups of orthogonal columns, the state being x and r = y - X x.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstddef>

#include "columns.hpp"
#include "descent.hpp"

namespace {

using sparsepriors::BlockDescent;

constexpr int kSecular = 50;  // Newton steps at most; three are usual

inline double objective(const BlockDescent& d, const double* x, const double* r) {
    double penalties = 0;
    for (size_t g = 0; g < d.groups; ++g) {
        const size_t first = d.starts[g] * d.tasks, last = d.starts[g + 1] * d.tasks;
        penalties += penalty(d.penalty.kind, std::sqrt(inner(x + first, x + first, last - first)), d.penalty.weight[g],
                             d.penalty.second[g]);
    }
    return 0.5 * inner(r, r, d.rows * d.tasks) + d.penalty.factor * penalties;
}

// The norm of the minimiser of sum_j (squares_j + ridge) |u_j|^2 / 2 - b.u + w |u|, b [count][tasks] being longer than
// w > 0: the root of sum_j |b_j|^2 / ((squares_j + ridge) rho + w)^2 = 1. The root of that sum, inverted, is concave in
// rho and rises, so that Newton's method climbs to it from zero.
inline double group_length(const double* b, const double* squares, size_t count, size_t tasks, double ridge, double w) {
    double rho = 0;
    for (int i = 0; i < kSecular; ++i) {
        double sum = 0, slope = 0;
        for (size_t j = 0; j < count; ++j) {
            const double a = squares[j] + ridge, scale = 1 / (a * rho + w);
            const double part = inner(b + j * tasks, b + j * tasks, tasks) * scale * scale;
            sum += part;
            slope += part * scale * a;
        }
        const double step = (std::sqrt(sum) - 1) * sum / slope;
        if (!(step > 1e-15 * rho)) break;
        rho += step;
    }
    return rho;
}

// The exact minimiser over every group where its penalty is of a norm and its square; elsewhere a step that is exact
// for the largest of the group's squares. Returns the largest such square times |change of x_g|.
inline double epoch(const BlockDescent& d, double* x, double* r) {
    double largest = 0;
    const size_t tasks = d.tasks, n = d.rows;
    for (size_t g = 0; g < d.groups; ++g) {
        const size_t first = d.starts[g], count = d.starts[g + 1] - first, entries = count * tasks;
        const double* squares = d.squares + first;
        const double curvature = count ? *std::max_element(squares, squares + count) : 0;
        if (!(curvature > 0)) continue;
        double *at = x + first * tasks, *move = d.moves;
        const double* columns = d.columns + first * n;
        if (tasks == 1) {
            column_products(columns, n, 0, count, r, nullptr, move);
        } else {
            std::fill(move, move + entries, 0.0);
            for (size_t j = 0; j < count; ++j)
                for (size_t i = 0; i < n; ++i)
                    for (size_t t = 0; t < tasks; ++t) move[j * tasks + t] += columns[j * n + i] * r[i * tasks + t];
        }
        const double w = d.penalty.factor * d.penalty.weight[g], s = d.penalty.second[g];
        if (d.penalty.kind == Penalty::elastic) {
            const double ridge = d.penalty.factor * s;
            for (size_t i = 0; i < entries; ++i) move[i] += squares[i / tasks] * at[i];
            const bool some = inner(move, move, entries) > w * w;
            const double rho = some && w > 0 ? group_length(move, squares, count, tasks, ridge, w) : 0;
            for (size_t i = 0; i < entries; ++i) {
                const double a = squares[i / tasks] + ridge, pull = w > 0 ? a * rho + w : a;
                // Without a weight and a square nothing moves along a column of zeros.
                const double to = !(pull > 0) ? at[i] : some ? (w > 0 ? rho : 1) * move[i] / pull : 0;
                move[i] = to - at[i];
            }
        } else {
            const double step = 1 / curvature;
            for (size_t i = 0; i < entries; ++i) move[i] = at[i] + step * move[i];
            const double norm = std::sqrt(inner(move, move, entries));
            const double to = shrink(d.penalty.kind, norm, step * d.penalty.factor, d.penalty.weight[g], s);
            const double ratio = norm > 0 ? to / norm : 0;
            for (size_t i = 0; i < entries; ++i) move[i] = ratio * move[i] - at[i];
        }
        const double change = std::sqrt(inner(move, move, entries));
        if (change == 0) continue;
        largest = std::max(largest, change * curvature);
        for (size_t i = 0; i < entries; ++i) at[i] += move[i];
        for (size_t j = 0; j < count; ++j, move += tasks) {
            if (tasks == 1) {
                add_multiple(r, -move[0], columns + j * n, n);
                continue;
            }
            for (size_t i = 0; i < n; ++i)
                for (size_t t = 0; t < tasks; ++t) r[i * tasks + t] -= columns[j * n + i] * move[t];
        }
    }
    return largest;
}

}  // namespace
