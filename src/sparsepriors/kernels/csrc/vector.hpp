// Vectors of the width that SPARSEPRIORS_VECTOR_BYTES names, in the compiler's vector extension.
// Included only by translation units that are compiled once per instruction set; everything here is in an unnamed
// namespace, so that code built for one instruction set is never linked into another.
#pragma once
#include <cstddef>
#include <cstring>

namespace {

template <class T>
struct Simd {
    typedef T type __attribute__((vector_size(SPARSEPRIORS_VECTOR_BYTES), aligned(sizeof(T)), may_alias));
    static constexpr size_t width = SPARSEPRIORS_VECTOR_BYTES / sizeof(T);
};

template <class T>
inline typename Simd<T>::type load(const T* p) {
    return *reinterpret_cast<const typename Simd<T>::type*>(p);
}

template <class T>
inline void store(T* p, typename Simd<T>::type v) {
    *reinterpret_cast<typename Simd<T>::type*>(p) = v;
}

// The four sums over the lanes of four vectors.
template <class T>
inline void sum_lanes(const typename Simd<T>::type (&v)[4], T* out) {
    constexpr size_t w = Simd<T>::width;
    if constexpr (w >= 4) {
        typedef T Four __attribute__((vector_size(4 * sizeof(T))));
        Four f[4];
        for (int i = 0; i < 4; ++i) {
            if constexpr (w == 16) {
                auto h = __builtin_shufflevector(v[i], v[i], 0, 1, 2, 3, 4, 5, 6, 7) +
                         __builtin_shufflevector(v[i], v[i], 8, 9, 10, 11, 12, 13, 14, 15);
                f[i] = __builtin_shufflevector(h, h, 0, 1, 2, 3) + __builtin_shufflevector(h, h, 4, 5, 6, 7);
            } else if constexpr (w == 8) {
                f[i] = __builtin_shufflevector(v[i], v[i], 0, 1, 2, 3) + __builtin_shufflevector(v[i], v[i], 4, 5, 6, 7);
            } else {
                f[i] = v[i];
            }
        }
        Four a = __builtin_shufflevector(f[0], f[1], 0, 4, 2, 6) + __builtin_shufflevector(f[0], f[1], 1, 5, 3, 7);
        Four b = __builtin_shufflevector(f[2], f[3], 0, 4, 2, 6) + __builtin_shufflevector(f[2], f[3], 1, 5, 3, 7);
        Four s = __builtin_shufflevector(a, b, 0, 1, 4, 5) + __builtin_shufflevector(a, b, 2, 3, 6, 7);
        std::memcpy(out, &s, sizeof s);
    } else {
        for (int i = 0; i < 4; ++i) {
            T s = v[i][0];
            for (size_t l = 1; l < w; ++l) s += v[i][l];
            out[i] = s;
        }
    }
}

}  // namespace
