// Codes of few nonzeros: which entries are largest, and products that touch only these. Entries of row i are those from
// starts[i] to starts[i + 1], in increasing order of their index.
#pragma once
#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "kernels.hpp"
#include "vector.hpp"

namespace {

using sparsepriors::kLook;

// Lists the positions of scores >= least in [0, count) and returns how many; `list` has an entry more than there are
// scores. bad: whether a score is NaN.
template <class T>
size_t reaching(const T* scores, size_t count, T least, int32_t* list, bool* bad) {
    size_t found = 0;
    int nan = 0;
    for (size_t first = 0; first < count; first += kLook) {
        const size_t last = first + kLook < count ? first + kLook : count;
        int any = 0;
#pragma omp simd reduction(| : any, nan)
        for (size_t i = first; i < last; ++i) {
            any |= scores[i] >= least;
            nan |= scores[i] != scores[i];
        }
        if (!any) continue;
        for (size_t i = first; i < last; ++i) {
            list[found] = static_cast<int32_t>(i);
            found += scores[i] >= least;
        }
    }
    *bad = nan != 0;
    return found;
}

// out[i] = sum of values[e] * rows[indices[e]] over the entries e of i, for i in [first, last).
template <class T>
void sum_rows(const int64_t* starts, const int32_t* indices, const T* values, const T* rows, size_t width, size_t first,
              size_t last, T* out) {
    using V = typename Simd<T>::type;
    constexpr size_t w = Simd<T>::width, tile = 8;
    for (size_t i = first; i < last; ++i) {
        T* to = out + i * width;
        const int64_t begin = starts[i], end = starts[i + 1];
        size_t c = 0;
        for (; c + tile * w <= width; c += tile * w) {
            V sum[tile] = {};
            for (int64_t e = begin; e < end; ++e) {
                const T* from = rows + static_cast<size_t>(indices[e]) * width + c;
                const V v = V{} + values[e];
                for (size_t t = 0; t < tile; ++t) sum[t] += v * load(from + t * w);
            }
            for (size_t t = 0; t < tile; ++t) store<T>(to + c + t * w, sum[t]);
        }
        for (; c + w <= width; c += w) {
            V sum = {};
            for (int64_t e = begin; e < end; ++e)
                sum += (V{} + values[e]) * load(rows + static_cast<size_t>(indices[e]) * width + c);
            store<T>(to + c, sum);
        }
        for (; c < width; ++c) {
            T sum = 0;
            for (int64_t e = begin; e < end; ++e) sum += values[e] * rows[static_cast<size_t>(indices[e]) * width + c];
            to[c] = sum;
        }
    }
}

// out[e] = left[i] . right[indices[e]] for the entries e of i in [first, last).
template <class T>
void dot_rows(const int64_t* starts, const int32_t* indices, const T* left, const T* right, size_t width, size_t first,
              size_t last, T* out) {
    using V = typename Simd<T>::type;
    constexpr size_t w = Simd<T>::width;
    for (size_t i = first; i < last; ++i) {
        const T* l = left + i * width;
        int64_t e = starts[i];
        for (; e < starts[i + 1]; e += 4) {
            const size_t some = starts[i + 1] - e < 4 ? static_cast<size_t>(starts[i + 1] - e) : 4;
            const T* r[4];
            for (size_t k = 0; k < 4; ++k) r[k] = right + static_cast<size_t>(indices[e + (k < some ? k : 0)]) * width;
            V sum[4] = {};
            size_t c = 0;
            for (; c + w <= width; c += w) {
                const V v = load(l + c);
                for (size_t k = 0; k < 4; ++k) sum[k] += v * load(r[k] + c);
            }
            T dots[4];
            sum_lanes<T>(sum, dots);
            for (; c < width; ++c)
                for (size_t k = 0; k < 4; ++k) dots[k] += l[c] * r[k][c];
            for (size_t k = 0; k < some; ++k) out[e + k] = dots[k];
        }
    }
}

}  // namespace
