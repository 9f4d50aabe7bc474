// Total variation by lines: u = x - D^T p, one step of the dual projected gradient method, and the duality gap.
#pragma once
#include <cmath>
#include <cstddef>
#include <cstring>

#include "kernels.hpp"

namespace {

using sparsepriors::Variation;
using sparsepriors::VariationKernels;

// u on one line, its parts `columns + 1` apart: one more entry that repeats the last, so that the last difference is 0.
template <class T, int Axes, int Parts>
void primal_line(const Variation<T>& v, const T* p, const T* zeros, size_t line, T* u) {
    const size_t n = v.columns, entries = v.entries(), at = line * n;
    for (int c = 0; c < Parts; ++c) {
        const T* x = v.x + c * entries + at;
        const T* along = p + ((Axes - 1) * Parts + c) * entries + at;
        const T* row = Axes >= 2 ? p + ((Axes - 2) * Parts + c) * entries + at : zeros;
        const T* above = Axes >= 2 && line % v.rows > 0 ? row - n : zeros;
        const T* plane = Axes == 3 ? p + c * entries + at : zeros;
        const T* before = Axes == 3 && line >= v.rows ? plane - v.rows * n : zeros;
        T* out = u + c * (n + 1);
        out[0] = x[0] + along[0] + (row[0] - above[0]) + (plane[0] - before[0]);
#pragma omp simd
        for (size_t i = 1; i < n; ++i) {
            T s = x[i] + (along[i] - along[i - 1]);
            if constexpr (Axes >= 2) s += row[i] - above[i];
            if constexpr (Axes == 3) s += plane[i] - before[i];
            out[i] = s;
        }
        out[n] = out[n - 1];
    }
}

// Calls visit(line, u, u of the next row, u of the next plane) for the lines [first, last); at a boundary the
// neighbour is u itself.
template <class T, int Axes, int Parts, class Visit>
void each_line(const Variation<T>& v, size_t first, size_t last, const T* p, T* scratch, const Visit& visit) {
    const size_t lines = v.lines(), ahead = v.ahead(), slots = ahead + 1, each = Parts * (v.columns + 1);
    T* zeros = scratch;
    T* ring = scratch + v.columns;
    std::memset(zeros, 0, v.columns * sizeof(T));
    const auto slot = [&](size_t line) { return ring + line % slots * each; };
    for (size_t line = first; line < first + ahead && line < lines; ++line)
        primal_line<T, Axes, Parts>(v, p, zeros, line, slot(line));
    for (size_t line = first; line < last; ++line) {
        if (line + ahead < lines) primal_line<T, Axes, Parts>(v, p, zeros, line + ahead, slot(line + ahead));
        const T* u = slot(line);
        visit(line, u, Axes >= 2 && (line + 1) % v.rows > 0 ? slot(line + 1) : u,
              Axes == 3 && line + v.rows < lines ? slot(line + v.rows) : u);
    }
}

// Where the difference k, in the order [axes][parts], takes its minuend: the next entry, row or plane.
template <class T, int Axes, int Parts>
const T* beyond(const T* u, const T* row, const T* plane, size_t n, int k) {
    const size_t part = k % Parts * (n + 1);
    const int from_last = Axes - 1 - k / Parts;
    return part + (from_last == 0 ? u + 1 : from_last == 1 ? row : plane);
}

// The last loop of a step on a line: the new points from the free ones and their factors. A function of its own, never
// inlined, because GCC 12 forgets that the loop may become vectors when it unrolls the one around it.
template <class T>
[[gnu::noinline]] T move_line(size_t n, const T* __restrict q, const T* __restrict moved, const T* __restrict factor,
                              T beta, T* __restrict p, T* __restrict next) {
    T sum = 0;
#pragma omp simd reduction(+ : sum)
    for (size_t i = 0; i < n; ++i) {
        const T now = moved[i] * factor[i], move = now - p[i];
        sum += (q[i] - now) * move;
        p[i] = now;
        next[i] = now + beta * move;
    }
    return sum;
}

template <class T, int Axes, int Parts, bool Isotropic>
double step(const Variation<T>& v, size_t first, size_t last, T beta, const T* q, T* p, T* next, T* scratch) {
    constexpr int K = Axes * Parts, joined = Isotropic ? K : Parts;
    const size_t n = v.columns, entries = v.entries();
    const T bound = v.bound, square = bound * bound, length = T(1) / (4 * Axes);
    T* size = scratch;
    T* moved = scratch + n;
    double inner = 0;
    each_line<T, Axes, Parts>(v, first, last, q, scratch + (K + 1) * n, [&](size_t line, const T* u, const T* row,
                                                                            const T* plane) {
        T sum = 0;
        for (int k = 0; k < K; ++k) {
            const T* from = q + k * entries + line * n;
            const T* here = u + k % Parts * (n + 1);
            const T* there = beyond<T, Axes, Parts>(u, row, plane, n, k);
            T* w = moved + k * n;
            if (k % joined == 0) std::memset(size, 0, n * sizeof(T));
#pragma omp simd
            for (size_t i = 0; i < n; ++i) {
                w[i] = from[i] + length * (there[i] - here[i]);
                size[i] += w[i] * w[i];
            }
            if (k % joined < joined - 1) continue;
#pragma omp simd
            for (size_t i = 0; i < n; ++i) size[i] = bound / std::sqrt(size[i] > square ? size[i] : square);
            for (int j = k + 1 - joined; j <= k; ++j) {
                const size_t at = j * entries + line * n;
                sum += move_line(n, q + at, moved + j * n, size, beta, p + at, next + at);
            }
        }
        inner += sum;
    });
    return inner;
}

// The gap is summed entry by entry, each term nonnegative, so that it does not drown in the rounding of the objectives.
template <class T, int Axes, int Parts, bool Isotropic>
void gap(const Variation<T>& v, size_t first, size_t last, const T* p, T* scratch, double* sums) {
    constexpr int K = Axes * Parts, joined = Isotropic ? K : Parts;
    const size_t n = v.columns, entries = v.entries();
    const T bound = v.bound;
    T* size = scratch;
    T* short_of = scratch + n;
    each_line<T, Axes, Parts>(v, first, last, p, scratch + (K + 1) * n, [&](size_t line, const T* u, const T* row,
                                                                            const T* plane) {
        T gap = 0, primal = 0, data = 0;
        for (int k = 0; k < K; ++k) {
            const T* dual = p + k * entries + line * n;
            const T* here = u + k % Parts * (n + 1);
            const T* there = beyond<T, Axes, Parts>(u, row, plane, n, k);
            if (k % joined == 0) std::memset(scratch, 0, 2 * n * sizeof(T));
#pragma omp simd
            for (size_t i = 0; i < n; ++i) {
                const T d = there[i] - here[i];
                size[i] += d * d;
                short_of[i] -= dual[i] * d;
            }
            if (k % joined < joined - 1) continue;
#pragma omp simd reduction(+ : gap, primal)
            for (size_t i = 0; i < n; ++i) {
                const T tv = bound * std::sqrt(size[i]);
                gap += tv + short_of[i];
                primal += tv;
            }
        }
        for (int c = 0; c < Parts; ++c) {
            const T* x = v.x + c * entries + line * n;
            const T* here = u + c * (n + 1);
#pragma omp simd reduction(+ : primal, data)
            for (size_t i = 0; i < n; ++i) {
                primal += (here[i] - x[i]) * (here[i] - x[i]) / 2;
                data += x[i] * x[i];
            }
        }
        sums[0] += gap, sums[1] += primal, sums[2] += data;
    });
}

template <class T, int Axes, int Parts>
void primal(const Variation<T>& v, size_t first, size_t last, const T* p, T* scratch, T* u) {
    std::memset(scratch, 0, v.columns * sizeof(T));
    T* buffer = scratch + v.columns;
    for (size_t line = first; line < last; ++line) {
        primal_line<T, Axes, Parts>(v, p, scratch, line, buffer);
        for (int c = 0; c < Parts; ++c)
            std::memcpy(u + c * v.entries() + line * v.columns, buffer + c * (v.columns + 1), v.columns * sizeof(T));
    }
}

template <class T, int Axes, int Parts>
constexpr VariationKernels<T> variation_kernels(bool isotropic) {
    return {isotropic ? step<T, Axes, Parts, true> : step<T, Axes, Parts, false>,
            isotropic ? gap<T, Axes, Parts, true> : gap<T, Axes, Parts, false>, primal<T, Axes, Parts>};
}

template <class T>
VariationKernels<T> variation(int axes, int parts, bool isotropic) {
    if (parts == 1)
        return axes == 1   ? variation_kernels<T, 1, 1>(isotropic)
               : axes == 2 ? variation_kernels<T, 2, 1>(isotropic)
                           : variation_kernels<T, 3, 1>(isotropic);
    return axes == 1   ? variation_kernels<T, 1, 2>(isotropic)
           : axes == 2 ? variation_kernels<T, 2, 2>(isotropic)
                       : variation_kernels<T, 3, 2>(isotropic);
}

}  // namespace
