// Products of a matrix [rows][columns] with one vector, from either side, by pieces that threads share.
#pragma once
#include <cstddef>

#include "vector.hpp"

namespace {

// The sums over `count` rows times x. The sums of a row do not depend on the rows beside it.
template <int count, class T>
inline void rows_times(const T* rows, size_t columns, const T* x, T* out) {
    typedef typename Simd<T>::type V;
    constexpr size_t w = Simd<T>::width;
    V even[count] = {}, odd[count] = {};
    size_t i = 0;
    for (; i + 2 * w <= columns; i += 2 * w) {
        const V a = load(x + i), b = load(x + i + w);
        for (int k = 0; k < count; ++k) {
            even[k] += a * load(rows + k * columns + i);
            odd[k] += b * load(rows + k * columns + i + w);
        }
    }
    for (int k = 0; k < count; ++k) {
        const V both = even[k] + odd[k];
        T sum = 0, rest = 0;
        for (size_t l = 0; l < w; ++l) sum += both[l];
        for (size_t at = i; at < columns; ++at) rest += x[at] * rows[k * columns + at];
        out[k] = sum + rest;
    }
}

// out[j] = row j times x, for the rows [first, last).
template <class T>
void matrix_vector(const T* matrix, size_t columns, size_t first, size_t last, const T* x, T* out) {
    size_t j = first;
    for (; j + 4 <= last; j += 4) rows_times<4>(matrix + j * columns, columns, x, out + j);
    for (; j < last; ++j) rows_times<1>(matrix + j * columns, columns, x, out + j);
}

// out[i] = the sum of y[j] matrix[j][i] over the rows [first, last), for the columns [begin, end); out begins with
// `begin`.
template <class T>
void vector_matrix(const T* matrix, size_t columns, size_t first, size_t last, size_t begin, size_t end, const T* y,
                   T* __restrict out) {
    const size_t n = end - begin;
    for (size_t i = 0; i < n; ++i) out[i] = 0;
    size_t j = first;
    for (; j + 4 <= last; j += 4) {
        const T *a = matrix + j * columns + begin, *b = a + columns, *c = b + columns, *d = c + columns;
        const T p = y[j], q = y[j + 1], r = y[j + 2], s = y[j + 3];
#pragma omp simd
        for (size_t i = 0; i < n; ++i) out[i] += (p * a[i] + q * b[i]) + (r * c[i] + s * d[i]);
    }
    for (; j < last; ++j) {
        const T* a = matrix + j * columns + begin;
        const T p = y[j];
#pragma omp simd
        for (size_t i = 0; i < n; ++i) out[i] += p * a[i];
    }
}

}  // namespace
