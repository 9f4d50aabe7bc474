// Proximal gradient on x.G x / 2 - b.x + sum_j g_j(x_j) for one b at a time: gradients are sums over the support of x.
#pragma once
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "descent.hpp"
#include "kernels.hpp"
#include "vector.hpp"

namespace {

using sparsepriors::Ista;

constexpr size_t kScan = 16;  // entries that are looked at together for one that leaves the dead zone

// v -= the sum of c[k] times the row of G that support[k] names, for four rows at a time.
template <class T>
inline void subtract_rows(const Ista<T>& p, const int32_t* support, size_t count, const T* x, T* v) {
    using V = typename Simd<T>::type;
    constexpr size_t w = Simd<T>::width;
    auto row = [&](size_t k) { return p.gram + static_cast<size_t>(support[k]) * p.units; };
    size_t k = 0;
    for (; k + 4 <= count; k += 4) {
        const T *r0 = row(k), *r1 = row(k + 1), *r2 = row(k + 2), *r3 = row(k + 3);
        const T c0 = x[support[k]], c1 = x[support[k + 1]], c2 = x[support[k + 2]], c3 = x[support[k + 3]];
        const V s0 = V{} + c0, s1 = V{} + c1, s2 = V{} + c2, s3 = V{} + c3;
        size_t i = 0;
        for (; i + w <= p.units; i += w)
            store<T>(v + i, load(v + i) - (s0 * load(r0 + i) + s1 * load(r1 + i)) -
                                (s2 * load(r2 + i) + s3 * load(r3 + i)));
        for (; i < p.units; ++i) v[i] -= (c0 * r0[i] + c1 * r1[i]) + (c2 * r2[i] + c3 * r3[i]);
    }
    for (; k < count; ++k) {
        const T *r = row(k), c = x[support[k]];
        const V s = V{} + c;
        size_t i = 0;
        for (; i + w <= p.units; i += w) store<T>(v + i, load(v + i) - s * load(r + i));
        for (; i < p.units; ++i) v[i] -= c * r[i];
    }
}

// v becomes x + step * v; lists the entries that leave the dead zone.
template <class T>
inline size_t leave(const Ista<T>& p, const T* x, T* v, int32_t* list) {
    const T step = static_cast<T>(p.step);
    size_t count = 0;
    for (size_t first = 0; first < p.units; first += kScan) {
        const size_t last = first + kScan < p.units ? first + kScan : p.units;
        int any = 0;
#pragma omp simd reduction(| : any)
        for (size_t j = first; j < last; ++j) {
            v[j] = x[j] + step * v[j];
            any |= std::abs(v[j]) > p.dead[j];
        }
        if (!any) continue;
        for (size_t j = first; j < last; ++j) {
            list[count] = static_cast<int32_t>(j);
            count += std::abs(v[j]) > p.dead[j];
        }
    }
    return count;
}

// Beyond its jump at 3/2 b, which is where the dead zone ends, the prox of the square root is b times the largest root
// of m - rho + m^(-1/2) / 2, rho = |v| / b: Newton's method from rho, which does not pass it.
inline double root_prox(double v, double edge) {
    if (!(edge > 0)) return v;
    if (!(std::abs(v) > edge)) return 0;
    const double b = edge / 1.5, rho = std::abs(v) / b;
    double m = rho;
    for (int i = 0; i < 60; ++i) {
        const double slope = 0.5 / std::sqrt(m), next = m - (m - rho + slope) / (1 - 0.5 * slope / m);
        const bool done = std::abs(next - m) <= 1e-15 * m;
        m = next;
        if (done) break;
    }
    return std::copysign(m * b, v);
}

// Iterates from x, which is overwritten, until a step moves it by at most tol * (floor + its length); returns the steps
// made. v: an entry for each unit; lists: two.
template <class T>
size_t ista(const Ista<T>& p, const T* linear, T* x, T* v, int32_t* lists) {
    int32_t *support = lists, *found = lists + p.units;
    const bool root = p.penalty.kind == Penalty::power && p.units && p.penalty.second[0] == 0.5;
    size_t size = 0, done = 0;
    double squares = 0;
    for (size_t j = 0; j < p.units; ++j)
        if (x[j] != 0) {
            support[size++] = static_cast<int32_t>(j);
            squares += static_cast<double>(x[j]) * x[j];
        }
    while (done < p.max_steps) {
        ++done;
        std::memcpy(v, linear, p.units * sizeof(T));
        subtract_rows(p, support, size, x, v);
        const size_t count = leave(p, x, v, found);
        double moved = 0, length = 0;
        for (size_t k = 0; k < size; ++k) {
            const int32_t j = support[k];
            if (std::abs(v[j]) > p.dead[j]) continue;
            moved += static_cast<double>(x[j]) * x[j];
            x[j] = 0;
        }
        size = 0;
        for (size_t k = 0; k < count; ++k) {
            const int32_t j = found[k];
            const double w = p.penalty.weight[j], s = p.penalty.second[j];
            const T next = static_cast<T>(root ? root_prox(v[j], p.edge[j])
                                               : shrink(p.penalty.kind, v[j], p.step * p.penalty.factor, w, s));
            const double change = static_cast<double>(next) - x[j];
            moved += change * change;
            length += static_cast<double>(next) * next;
            x[j] = next;
            support[size] = j;
            size += next != 0;
        }
        const bool still = std::sqrt(moved) <= p.tol * (p.floor + std::sqrt(squares));
        squares = length;
        if (still) break;
    }
    return done;
}

}  // namespace
