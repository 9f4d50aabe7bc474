// Projections onto the simplex and the l1 ball: loops over one piece of a row. What is lowered are the entries, or their
// moduli.
#pragma once
#include <cmath>
#include <cstddef>
#include <limits>

#include "kernels.hpp"

namespace {

using sparsepriors::SimplexEntries;
using sparsepriors::SimplexShift;
using sparsepriors::SimplexTotals;

// Entry i of x under each reading, in the precision of x.
template <class T, SimplexEntries kind>
inline T simplex_entry(const T* x, size_t i) {
    if constexpr (kind == SimplexEntries::plain) return x[i];
    if constexpr (kind == SimplexEntries::modulus) return std::abs(x[i]);
    const T re = std::abs(x[2 * i]), im = std::abs(x[2 * i + 1]);
    const T more = re > im ? re : im, ratio = (re > im ? im : re) / (more > 0 ? more : T(1));
    return more * std::sqrt(T(1) + ratio * ratio);
}

template <class T, SimplexEntries kind>
SimplexTotals simplex_totals(const T* x, size_t count) {
    T top = -std::numeric_limits<T>::infinity();
    double sum = 0, moduli = 0;
#pragma omp simd reduction(max : top) reduction(+ : sum, moduli)
    for (size_t i = 0; i < count; ++i) {
        const T v = simplex_entry<T, kind>(x, i);
        top = v > top ? v : top;
        sum += static_cast<double>(v);
        moduli += std::abs(static_cast<double>(v));
    }
    return {static_cast<double>(top), sum, moduli};
}

// See kernels.hpp.
template <class T, SimplexEntries kind>
size_t simplex_above(const T* x, size_t count, SimplexShift shift, double unit, T* kept, double* excess) {
    size_t found = 0;
    for (size_t i = 0; i < count; ++i) {
        const T v = simplex_entry<T, kind>(x, i);
        kept[found] = v;
        found += static_cast<double>(v) - shift.at > shift.more;
    }
    double sum = 0;
#pragma omp simd reduction(+ : sum)
    for (size_t i = 0; i < found; ++i) sum += unit * ((static_cast<double>(kept[i]) - shift.at) - shift.more);
    *excess = sum;
    return found;
}

// See kernels.hpp.
template <class T, SimplexEntries kind>
void simplex_lower(const T* x, size_t count, SimplexShift shift, T* out) {
#pragma omp simd
    for (size_t i = 0; i < count; ++i) {
        const T v = simplex_entry<T, kind>(x, i);
        const double over = (static_cast<double>(v) - shift.at) - shift.more;
        const T left = static_cast<T>(over > 0 ? over : 0.0);
        if constexpr (kind == SimplexEntries::plain) out[i] = left;
        if constexpr (kind == SimplexEntries::modulus) out[i] = std::copysign(left, x[i]);
        if constexpr (kind == SimplexEntries::complex_modulus) {
            const T factor = left / (v > 0 ? v : T(1));
            out[2 * i] = x[2 * i] * factor;
            out[2 * i + 1] = x[2 * i + 1] * factor;
        }
    }
}

template <class T, SimplexEntries kind>
constexpr sparsepriors::SimplexKernels<T> kSimplex = {simplex_totals<T, kind>, simplex_above<T, kind>,
                                                      simplex_above<T, SimplexEntries::plain>, simplex_lower<T, kind>};

template <class T>
sparsepriors::SimplexKernels<T> simplex(SimplexEntries kind) {
    if (kind == SimplexEntries::plain) return kSimplex<T, SimplexEntries::plain>;
    if (kind == SimplexEntries::modulus) return kSimplex<T, SimplexEntries::modulus>;
    return kSimplex<T, SimplexEntries::complex_modulus>;
}

}  // namespace
