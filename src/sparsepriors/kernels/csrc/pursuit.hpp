// Matching pursuit of one signal at a time on the Gram matrix of the atoms.
#pragma once
#include <cmath>
#include <cstddef>
#include <cstdint>

#include "kernels.hpp"

namespace {

using sparsepriors::Pursuit;

// The largest entry of c, or of its moduli.
template <class T, bool kModuli>
inline T largest(const T* c, size_t n) {
    T best = kModuli ? T(0) : c[0];
#pragma omp simd reduction(max : best)
    for (size_t i = 0; i < n; ++i) {
        const T x = kModuli ? std::abs(c[i]) : c[i];
        best = best < x ? x : best;
    }
    return best;
}

// c -= v row; returns what `largest` would of the new c.
template <class T, bool kModuli>
inline T subtract(T* c, const T* row, T v, size_t n) {
    T best = kModuli ? T(0) : c[0] - v * row[0];
#pragma omp simd reduction(max : best)
    for (size_t i = 0; i < n; ++i) {
        const T x = c[i] = c[i] - v * row[i];
        const T m = kModuli ? std::abs(x) : x;
        best = best < m ? m : best;
    }
    return best;
}

template <class T, bool kModuli>
size_t pursue(const Pursuit<T>& p, T* c, double energy, int64_t* atoms, T* values) {
    const double least = p.tol * p.tol;
    T best = largest<T, kModuli>(c, p.units);
    size_t t = 0;
    while (t < p.steps && best > 0 && !(p.tol > 0 && energy < least)) {
        size_t j = 0;
        while (j + 1 < p.units && (kModuli ? std::abs(c[j]) : c[j]) != best) ++j;  // the first at ties
        const T v = c[j];
        const T* row = p.gram + j * p.units;
        bool repeated = false;
        if (p.stop_on_repeat)
            for (size_t s = 0; s < t && !repeated; ++s) repeated = atoms[s] == static_cast<int64_t>(j);
        atoms[t] = static_cast<int64_t>(j);
        values[t++] = v;
        if (repeated || t == p.steps) break;
        energy += static_cast<double>(v) * v * (static_cast<double>(row[j]) - 2);
        best = subtract<T, kModuli>(c, row, v, p.units);
    }
    return t;
}

template <class T>
size_t pursuit(const Pursuit<T>& p, T* c, double energy, int64_t* atoms, T* values) {
    return p.nonneg ? pursue<T, false>(p, c, energy, atoms, values) : pursue<T, true>(p, c, energy, atoms, values);
}

}  // namespace
