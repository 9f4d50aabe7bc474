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

// Of coordinates at zero under an elastic penalty: as in `optimality`, without a branch. Most are that.
inline void resting(const Penalty& g, size_t size, const double* q, const double* curvature, double* violation) {
    for (size_t j = 0; j < size; ++j) {
        const double a = curvature[j], over = std::abs(q[j]) - g.factor * g.weight[j];
        violation[j] = a > 0 && over > 0 ? over * (a / (a + g.factor * g.second[j])) : 0;
    }
}

// The factor, at most 1, by which q meets the constraints |q_j| <= factor * weight_j of coordinates without a square.
inline double feasible(const Penalty& g, size_t size, const double* q, bool positive) {
    double lane[8];
    std::fill(lane, lane + 8, 1.0);
    const auto bound = [&](size_t j) {
        const double w = g.factor * g.weight[j], reach = positive ? q[j] : std::abs(q[j]);
        return g.second[j] == 0 && reach > w ? w / reach : 1.0;
    };
    size_t j = 0;
    for (; j + 8 <= size; j += 8)
        for (size_t l = 0; l < 8; ++l) {
            const double b = bound(j + l);
            lane[l] = b < lane[l] ? b : lane[l];
        }
    for (; j < size; ++j) lane[0] = std::min(lane[0], bound(j));
    return *std::min_element(lane, lane + 8);
}

// See kernels.hpp.
Optimality optimality(const Penalty& g, size_t size, const double* x, const double* q, const double* curvature,
                      double residual, double projection, double* violation, bool* active) {
    const bool positive = g.kind == Penalty::positive, elastic = g.kind == Penalty::elastic;
    double largest = 0, value = 0;
    if (elastic) resting(g, size, q, curvature, violation);
    for (size_t j = 0; j < size; ++j) {
        if (elastic && x[j] == 0) continue;
        const double w = g.weight[j], s = g.second[j], a = curvature[j], step = a > 0 ? 1 / a : 0;
        value += penalty(g.kind, x[j], w, s);
        violation[j] = a > 0 ? a * std::abs(x[j] - shrink(g.kind, x[j] + q[j] * step, step * g.factor, w, s)) : 0;
    }
    bool bounded = elastic || positive, squares = false;
    for (size_t j = 0; j < size; ++j) {
        largest = violation[j] > largest ? violation[j] : largest;
        bounded &= !(g.weight[j] == 0 && g.second[j] == 0 && curvature[j] > 0);
        squares |= g.second[j] > 0;
    }
    value *= g.factor;
    if (!bounded) return {largest, value, HUGE_VAL};
    const double shrink_by = feasible(g, size, q, positive);
    double conjugate = 0;
    for (size_t j = 0; squares && j < size; ++j) {
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
        active[j] = !(reach + std::sqrt(curvature[j]) * radius < g.factor * g.weight[j]) | (x[j] != 0);
    }
    return {largest, value, gap};
}

}  // namespace
