// From packed values and the bits of a word to vectors with zeros where no bit is set.
// Included only by translation units that are compiled once per instruction set.
#pragma once
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "kernels.hpp"
#include "vector.hpp"

#if defined(__AVX2__)
#include <immintrin.h>
#endif

namespace {

using sparsepriors::BFloat16;
using sparsepriors::Float16;
using Floats = Simd<float>::type;
constexpr size_t kFloats = Simd<float>::width;

inline float to_float(float v) { return v; }

inline float to_float(BFloat16 v) {
    const uint32_t bits = uint32_t(v.bits) << 16;
    float f;
    std::memcpy(&f, &bits, sizeof f);
    return f;
}

inline float to_float(Float16 v) {
#if defined(__F16C__)
    return _mm_cvtss_f32(_mm_cvtph_ps(_mm_cvtsi32_si128(v.bits)));
#else
    // The exponent moves from 15 to 127 by a product, which is exact and takes subnormal numbers along.
    const uint32_t sign = uint32_t(v.bits & 0x8000) << 16, rest = uint32_t(v.bits & 0x7fff) << 13;
    uint32_t bits = rest;
    float f;
    if (rest >= uint32_t(0x7c00) << 13) {
        bits = rest | 0x7f800000;
        std::memcpy(&f, &bits, sizeof f);
    } else {
        std::memcpy(&f, &bits, sizeof f);
        f *= 5.192296858534828e33f;  // 2^112
    }
    std::memcpy(&bits, &f, sizeof bits);
    bits |= sign;
    std::memcpy(&f, &bits, sizeof f);
    return f;
#endif
}

// The next kFloats values, all of which may be read.
template <class V>
inline Floats widen(const V* p) {
#if defined(__AVX512F__)
    if constexpr (sizeof(V) == 4) return (Floats)_mm512_loadu_ps(p);
    const __m256i v = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
    if constexpr (std::is_same_v<V, Float16>) return (Floats)_mm512_cvtph_ps(v);
    return (Floats)_mm512_slli_epi32(_mm512_cvtepu16_epi32(v), 16);
#elif defined(__AVX2__)
    if constexpr (sizeof(V) == 4) return (Floats)_mm256_loadu_ps(reinterpret_cast<const float*>(p));
    const __m128i v = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
    if constexpr (std::is_same_v<V, Float16>) return (Floats)_mm256_cvtph_ps(v);
    return (Floats)_mm256_slli_epi32(_mm256_cvtepu16_epi32(v), 16);
#else
    Floats out;
    for (size_t i = 0; i < kFloats; ++i) out[i] = to_float(p[i]);
    return out;
#endif
}

#if defined(__AVX2__) && !defined(__AVX512F__)
// For every mask of 8 bits the place of each lane's value among those of the set bits, 128 where the bit is not set.
struct Places {
    uint8_t at[256][8];
    constexpr Places() : at() {
        for (int mask = 0; mask < 256; ++mask)
            for (int lane = 0, place = 0; lane < 8; ++lane)
                at[mask][lane] = mask >> lane & 1 ? uint8_t(place++) : uint8_t(128);
    }
};
constexpr Places kPlaces;
#endif

// How the lanes of consecutive vectors follow the entries of a tile: brain floats with VBMI2 are expanded 32 at a time,
// and even and odd entries then lie in two vectors, which spares the moves across lanes.
#if defined(__AVX512VBMI2__)
template <class V>
constexpr bool kEvenOdd = std::is_same_v<V, BFloat16>;
#else
template <class V>
constexpr bool kEvenOdd = false;
#endif

// The first N * kFloats entries of a tile, given its bits from there on and the value of the first of them.
template <class V, int N>
inline void expand(const V* p, uint64_t bits, Floats (&out)[N]) {
#if defined(__AVX512VBMI2__)
    if constexpr (kEvenOdd<V>) {
        static_assert(N % 2 == 0, "even and odd entries come together");
#pragma GCC unroll 4
        for (int i = 0; i < N; i += 2, bits >>= 32) {
            const __m512i v = _mm512_maskz_expand_epi16(static_cast<__mmask32>(bits), _mm512_loadu_si512(p));
            out[i] = (Floats)_mm512_slli_epi32(v, 16);
            out[i + 1] = (Floats)_mm512_and_si512(v, _mm512_set1_epi32(static_cast<int>(0xffff0000u)));
            p += __builtin_popcount(static_cast<uint32_t>(bits));
        }
        return;
    }
#endif
#if defined(__AVX512F__)
#pragma GCC unroll 4
    for (int i = 0; i < N; ++i, bits >>= 16) {
        out[i] = (Floats)_mm512_maskz_expand_ps(static_cast<__mmask16>(bits), (__m512)widen(p));
        p += __builtin_popcount(static_cast<uint32_t>(bits & 0xffff));
    }
#elif defined(__AVX2__)
#pragma GCC unroll 8
    for (int i = 0; i < N; ++i, bits >>= 8) {
        const __m128i bytes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(kPlaces.at[bits & 0xff]));
        const __m256i places = _mm256_cvtepi8_epi32(bytes);
        const __m256 moved = _mm256_permutevar8x32_ps((__m256)widen(p), places);
        out[i] = (Floats)_mm256_blendv_ps(moved, _mm256_setzero_ps(), _mm256_castsi256_ps(places));
        p += __builtin_popcount(static_cast<uint32_t>(bits & 0xff));
    }
#else
    alignas(64) float tile[N * kFloats] = {};
    for (uint64_t left = bits & (~uint64_t(0) >> (64 - N * kFloats)); left; left &= left - 1)
        tile[__builtin_ctzll(left)] = to_float(*p++);
    for (int i = 0; i < N; ++i) out[i] = load(tile + i * kFloats);
#endif
}

// Memory in the order of the entries, vectors in that of `expand`.
template <class V, int N>
inline void load_entries(const float* p, Floats (&v)[N]) {
    for (int i = 0; i < N; ++i) v[i] = load(p + i * kFloats);
#if defined(__AVX512VBMI2__)
    if constexpr (kEvenOdd<V>)
        for (int i = 0; i < N; i += 2) {
            const Floats a = v[i], b = v[i + 1];
            v[i] = __builtin_shufflevector(a, b, 0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
            v[i + 1] = __builtin_shufflevector(a, b, 1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31);
        }
#endif
}

template <class V, int N>
inline void store_entries(float* p, Floats (&v)[N]) {
#if defined(__AVX512VBMI2__)
    if constexpr (kEvenOdd<V>)
        for (int i = 0; i < N; i += 2) {
            const Floats a = v[i], b = v[i + 1];
            v[i] = __builtin_shufflevector(a, b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
            v[i + 1] = __builtin_shufflevector(a, b, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
        }
#endif
    for (int i = 0; i < N; ++i) store(p + i * kFloats, v[i]);
}

}  // namespace
