// Nesterov's momentum: what a step of proximal gradient moved, and the point from which the next one starts.
#pragma once
#include <cstddef>

namespace {

// Adds to sums, over entries of one problem, ||now - v||^2, ||now||^2 and <v - now, now - old>.
template <class T>
void moves(const T* old, const T* now, const T* v, size_t count, double* sums) {
    constexpr size_t block = 1024;  // entries that are summed in T
    for (size_t first = 0; first < count; first += block) {
        const size_t last = first + block < count ? first + block : count;
        T moved = 0, size = 0, uphill = 0;
#pragma omp simd reduction(+ : moved, size, uphill)
        for (size_t i = first; i < last; ++i) {
            const T back = v[i] - now[i];
            moved += back * back;
            size += now[i] * now[i];
            uphill += back * (now[i] - old[i]);
        }
        sums[0] += moved, sums[1] += size, sums[2] += uphill;
    }
}

// out = now + weight (now - old)
template <class T>
void beyond_line(const T* old, const T* now, T weight, size_t count, T* __restrict out) {
#pragma omp simd
    for (size_t i = 0; i < count; ++i) out[i] = now[i] + weight * (now[i] - old[i]);
}

}  // namespace
