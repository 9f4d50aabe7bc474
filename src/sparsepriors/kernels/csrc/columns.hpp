// What coordinate descent asks of all columns at once: products with a residual, and how far each is from its optimum.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstddef>

#include "descent.hpp"

namespace {

using sparsepriors::Optimality;

template <class T>
inline Simd<double>::type load_double(const T* p) {
    typedef T Narrow __attribute__((vector_size(Simd<double>::width * sizeof(T)), aligned(sizeof(T)), may_alias));
    return __builtin_convertvector(*reinterpret_cast<const Narrow*>(p), Simd<double>::type);
}

// Products of `count` rows with r. The sums of a row do not depend on the rows beside it.
template <int count, class T>
inline void row_products(const T* const* rows, const double* r, size_t n, double* out) {
    typedef Simd<double>::type V;
    constexpr size_t w = Simd<double>::width;
    V even[count] = {}, odd[count] = {};
    size_t i = 0;
    for (; i + 2 * w <= n; i += 2 * w) {
        const V a = load(r + i), b = load(r + i + w);
        for (int k = 0; k < count; ++k) {
            even[k] += a * load_double(rows[k] + i);
            odd[k] += b * load_double(rows[k] + i + w);
        }
    }
    for (int k = 0; k < count; ++k) {
        double sum = 0, rest = 0;
        const V both = even[k] + odd[k];
        for (size_t l = 0; l < w; ++l) sum += both[l];
        for (size_t at = i; at < n; ++at) rest += r[at] * rows[k][at];
        out[k] = sum + rest;
    }
}

// See kernels.hpp.
template <class T>
void column_products(const T* rows, size_t n, size_t first, size_t last, const double* r, const bool* keep,
                     double* out) {
    const T* at[4];
    size_t which[4], filled = 0;
    double sums[4];
    for (size_t j = first; j < last; ++j) {
        out[j] = 0;
        if (keep && !keep[j]) continue;
        at[filled] = rows + j * n;
        which[filled++] = j;
        if (filled < 4) continue;
        row_products<4>(at, r, n, sums);
        for (int k = 0; k < 4; ++k) out[which[k]] = sums[k];
        filled = 0;
    }
    for (size_t k = 0; k < filled; ++k) row_products<1>(at + k, r, n, out + which[k]);
}

// See kernels.hpp.
Optimality optimality(const Penalty& g, size_t size, const double* x, const double* q, const double* curvature,
                      double residual, double projection, double* violation, bool* active) {
    const bool positive = g.kind == Penalty::positive;
    bool bounded = g.kind == Penalty::elastic || positive;
    double largest = 0, value = 0, shrink_by = 1;
    for (size_t j = 0; j < size; ++j) {
        const double w = g.weight[j], s = g.second[j], a = curvature[j];
        value += penalty(g.kind, x[j], w, s);
        const double step = a > 0 ? 1 / a : 0;
        violation[j] = a > 0 ? a * std::abs(x[j] - shrink(g.kind, x[j] + q[j] * step, step * g.factor, w, s)) : 0;
        largest = std::max(largest, violation[j]);
        if (!bounded) continue;
        if (w == 0 && s == 0 && a > 0) bounded = false;
        const double reach = positive ? q[j] : std::abs(q[j]);
        if (s == 0 && reach > g.factor * w) shrink_by = std::min(shrink_by, g.factor * w / reach);
    }
    value *= g.factor;
    if (!bounded) return {largest, value, HUGE_VAL};
    double conjugate = 0;
    for (size_t j = 0; j < size; ++j) {
        if (!(g.second[j] > 0)) continue;
        const double reach = shrink_by * (positive ? q[j] : std::abs(q[j])) - g.factor * g.weight[j];
        if (reach > 0) conjugate += reach * reach / (2 * g.factor * g.second[j]);
    }
    const double gap =
        0.5 * residual + value + conjugate - shrink_by * projection + 0.5 * shrink_by * shrink_by * residual;
    // The best dual point is within sqrt(2 gap): a column whose constraint cannot be reached from here is inactive.
    const double radius = std::sqrt(2 * std::max(gap, 0.0));
    for (size_t j = 0; j < size; ++j) {
        const double reach = shrink_by * (positive ? q[j] : std::abs(q[j]));
        active[j] = x[j] != 0 || !(reach + std::sqrt(curvature[j]) * radius < g.factor * g.weight[j]);
    }
    return {largest, value, gap};
}

}  // namespace
