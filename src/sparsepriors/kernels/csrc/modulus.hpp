// The largest modulus, by the order of the bits: those of a float without its sign grow with it, infinity lies beyond
// every number, and NaN beyond infinity.
#pragma once
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <type_traits>

namespace {

template <class T>
T largest_modulus(const T* x, size_t count) {
    using Bits = std::conditional_t<sizeof(T) == 4, int32_t, int64_t>;
    static_assert(sizeof(Bits) == sizeof(T) && std::numeric_limits<T>::is_iec559);
    Bits most = 0;
#pragma omp simd reduction(max : most)
    for (size_t i = 0; i < count; ++i) {
        Bits bits;
        std::memcpy(&bits, x + i, sizeof bits);
        bits &= std::numeric_limits<Bits>::max();
        most = bits > most ? bits : most;
    }
    T largest;
    std::memcpy(&largest, &most, sizeof largest);
    return largest;
}

}  // namespace
