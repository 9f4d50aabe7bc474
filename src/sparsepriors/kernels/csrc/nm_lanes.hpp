// Sixteen rows of an N:M weight side by side: one value and one place of each, and the entries of x that places choose.
// Included only by translation units that are compiled once per instruction set.
#pragma once
#include <cstddef>
#include <cstdint>
#include <cstring>

#if defined(__AVX512F__) || defined(__AVX2__)
#include <immintrin.h>
#endif

#include "kernels.hpp"

namespace {
namespace nm {

using sparsepriors::kNMRows;

// Entries of x that one permutation chooses from: groups are laid side by side in tables of this many, each on
// 2^bits entries, so that a place counts from the slot that its group has in the table.
#if defined(__AVX512F__)
constexpr size_t kShortTable = 16;
#else
constexpr size_t kShortTable = 8;
#endif
constexpr int kShortBits = 3;  // of places in groups that share tables
constexpr size_t table_width(int bits) { return bits <= kShortBits ? kShortTable : size_t(1) << bits; }

// How to read the places of a pair: `bytes` picks four bytes for every row out of the 16 bytes that its quarter of the
// rows sees, `shift` moves the first or second place to bit 0, `mask` clears what is above it, `slot` is added.
struct PlaceCode {
    alignas(64) uint8_t bytes[64];
    alignas(64) uint32_t shift[2][16];
    alignas(64) uint32_t slot[kShortTable / 2][16];
    int bits;
    bool wide;  // the last quarter sees the bytes from 4 on, else all see those from 0 on

    explicit PlaceCode(int of) : slot{}, bits(of), wide(of > 4) {
        for (size_t r = 0; r < kNMRows; ++r) {
            const size_t bit = 2 * static_cast<size_t>(bits) * r, first = bit / 8 - (wide && r >= 12 ? 4 : 0);
            for (size_t i = 0; i < 4; ++i) bytes[4 * r + i] = static_cast<uint8_t>(first + i < 16 ? first + i : 0x80);
            for (int h = 0; h < 2; ++h) shift[h][r] = static_cast<uint32_t>(bit % 8 + h * bits);
            for (size_t s = 0; s < kShortTable >> bits; ++s) slot[s][r] = static_cast<uint32_t>(s << bits);
        }
    }
};

#if defined(__AVX512F__)

struct Rows {
    __m512 v;
};
inline Rows zero_rows() { return {_mm512_setzero_ps()}; }
inline Rows load_rows(const float* p) { return {_mm512_loadu_ps(p)}; }
inline void store_rows(float* p, Rows a) { _mm512_storeu_ps(p, a.v); }
inline Rows operator+(Rows a, Rows b) { return {_mm512_add_ps(a.v, b.v)}; }
inline Rows multiply_add(Rows a, Rows b, Rows c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }

inline void load_pair(const float* p, Rows (&out)[2]) {
    out[0] = load_rows(p);
    out[1] = load_rows(p + kNMRows);
}
inline void load_pair(const uint16_t* p, Rows (&out)[2]) {  // bfloat16, the two values of a row side by side
    const __m512i both = _mm512_loadu_si512(p);
    out[0].v = _mm512_castsi512_ps(_mm512_slli_epi32(both, 16));
    out[1].v = _mm512_castsi512_ps(_mm512_and_si512(both, _mm512_set1_epi32(static_cast<int>(0xffff0000u))));
}

struct Places {
    __m512i v;
};
template <int Bits>  // the number of bits, or kShortBits for that and fewer
struct Decoder {
    __m512i bytes, shift[2], mask;
    const PlaceCode& code;
    explicit Decoder(const PlaceCode& c)
        : bytes(_mm512_load_si512(c.bytes)),
          shift{_mm512_load_si512(c.shift[0]), _mm512_load_si512(c.shift[1])},
          mask(_mm512_set1_epi32((1 << c.bits) - 1)),
          code(c) {}
    void operator()(const uint8_t* record, const size_t (&slot)[2], Places (&out)[2]) const {
        __m512i raw = _mm512_broadcast_i32x4(_mm_loadu_si128(reinterpret_cast<const __m128i*>(record)));
        if constexpr (Bits > 4)
            raw = _mm512_mask_broadcast_i32x4(raw, 0xf000,
                                              _mm_loadu_si128(reinterpret_cast<const __m128i*>(record + 4)));
        raw = _mm512_shuffle_epi8(raw, bytes);
        for (int h = 0; h < 2; ++h) {
            out[h].v = _mm512_srlv_epi32(raw, shift[h]);
            if constexpr (Bits == kShortBits)  // (place & mask) | slot; wider tables look at no bits above the place
                out[h].v = _mm512_ternarylogic_epi32(out[h].v, mask, _mm512_load_si512(code.slot[slot[h]]), 0xea);
        }
    }
};

template <int Bits>
inline Rows chosen_entries(const float* table, Places places) {
    if constexpr (Bits == 5)
        return {_mm512_permutex2var_ps(_mm512_loadu_ps(table), places.v, _mm512_loadu_ps(table + 16))};
    else
        return {_mm512_permutexvar_ps(places.v, _mm512_loadu_ps(table))};
}

#elif defined(__AVX2__)

struct Rows {
    __m256 v[2];
};
inline Rows zero_rows() { return {{_mm256_setzero_ps(), _mm256_setzero_ps()}}; }
inline Rows load_rows(const float* p) { return {{_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}}; }
inline void store_rows(float* p, Rows a) {
    _mm256_storeu_ps(p, a.v[0]);
    _mm256_storeu_ps(p + 8, a.v[1]);
}
inline Rows operator+(Rows a, Rows b) {
    return {{_mm256_add_ps(a.v[0], b.v[0]), _mm256_add_ps(a.v[1], b.v[1])}};
}
inline Rows multiply_add(Rows a, Rows b, Rows c) {
    return {{_mm256_fmadd_ps(a.v[0], b.v[0], c.v[0]), _mm256_fmadd_ps(a.v[1], b.v[1], c.v[1])}};
}

inline void load_pair(const float* p, Rows (&out)[2]) {
    out[0] = load_rows(p);
    out[1] = load_rows(p + kNMRows);
}
inline void load_pair(const uint16_t* p, Rows (&out)[2]) {
    for (int half = 0; half < 2; ++half) {
        const __m256i both = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p + 16 * half));
        out[0].v[half] = _mm256_castsi256_ps(_mm256_slli_epi32(both, 16));
        out[1].v[half] =
            _mm256_castsi256_ps(_mm256_and_si256(both, _mm256_set1_epi32(static_cast<int>(0xffff0000u))));
    }
}

struct Places {
    __m256i v[2];
};
template <int Bits>
struct Decoder {
    __m256i bytes[2], shift[2][2], mask;
    const PlaceCode& code;
    explicit Decoder(const PlaceCode& c) : mask(_mm256_set1_epi32((1 << c.bits) - 1)), code(c) {
        for (int half = 0; half < 2; ++half) {
            bytes[half] = _mm256_load_si256(reinterpret_cast<const __m256i*>(c.bytes + 32 * half));
            for (int h = 0; h < 2; ++h)
                shift[h][half] = _mm256_load_si256(reinterpret_cast<const __m256i*>(c.shift[h] + 8 * half));
        }
    }
    void operator()(const uint8_t* record, const size_t (&slot)[2], Places (&out)[2]) const {
        const __m128i* at = reinterpret_cast<const __m128i*>(record);
        const __m256i low = _mm256_broadcastsi128_si256(_mm_loadu_si128(at));
        __m256i high = low;
        if constexpr (Bits > 4)
            high = _mm256_inserti128_si256(low, _mm_loadu_si128(reinterpret_cast<const __m128i*>(record + 4)), 1);
        const __m256i raw[2] = {_mm256_shuffle_epi8(low, bytes[0]), _mm256_shuffle_epi8(high, bytes[1])};
        for (int h = 0; h < 2; ++h)
            for (int half = 0; half < 2; ++half) {
                out[h].v[half] = _mm256_srlv_epi32(raw[half], shift[h][half]);
                if constexpr (Bits == kShortBits)
                    out[h].v[half] = _mm256_or_si256(
                        _mm256_and_si256(out[h].v[half], mask),
                        _mm256_load_si256(reinterpret_cast<const __m256i*>(code.slot[slot[h]])));
            }
    }
};

template <int Bits>
inline Rows chosen_entries(const float* table, Places places) {
    Rows out;
    for (int half = 0; half < 2; ++half) {
        const __m256i at = places.v[half];
        __m256 found[(1 << Bits) / 8];
        for (int i = 0; i < (1 << Bits) / 8; ++i) found[i] = _mm256_permutevar8x32_ps(_mm256_loadu_ps(table + 8 * i), at);
        // A blend looks at the sign: bit 3 of the place, then bit 4.
        for (int bit = 3, left = (1 << Bits) / 8; left > 1; ++bit, left /= 2)
            for (int i = 0; i < left / 2; ++i)
                found[i] = _mm256_blendv_ps(found[2 * i], found[2 * i + 1],
                                            _mm256_castsi256_ps(_mm256_slli_epi32(at, 31 - bit)));
        out.v[half] = found[0];
    }
    return out;
}

#else

struct Rows {
    float v[kNMRows];
};
inline Rows zero_rows() { return {}; }
inline Rows load_rows(const float* p) {
    Rows out;
    std::memcpy(out.v, p, sizeof out.v);
    return out;
}
inline void store_rows(float* p, const Rows& a) { std::memcpy(p, a.v, sizeof a.v); }
inline Rows operator+(const Rows& a, const Rows& b) {
    Rows out;
    for (size_t r = 0; r < kNMRows; ++r) out.v[r] = a.v[r] + b.v[r];
    return out;
}
inline Rows multiply_add(const Rows& a, const Rows& b, const Rows& c) {
    Rows out;
    for (size_t r = 0; r < kNMRows; ++r) out.v[r] = a.v[r] * b.v[r] + c.v[r];
    return out;
}

inline void load_pair(const float* p, Rows (&out)[2]) {
    out[0] = load_rows(p);
    out[1] = load_rows(p + kNMRows);
}
inline void load_pair(const uint16_t* p, Rows (&out)[2]) {
    for (size_t r = 0; r < kNMRows; ++r)
        for (int h = 0; h < 2; ++h) {
            const uint32_t bits = static_cast<uint32_t>(p[2 * r + h]) << 16;
            std::memcpy(&out[h].v[r], &bits, sizeof bits);
        }
}

struct Places {
    uint8_t v[kNMRows];
};
template <int Bits>
struct Decoder {
    const PlaceCode& code;
    explicit Decoder(const PlaceCode& c) : code(c) {}
    void operator()(const uint8_t* record, const size_t (&slot)[2], Places (&out)[2]) const {
        const size_t bits = static_cast<size_t>(code.bits);
        for (size_t r = 0; r < kNMRows; ++r)
            for (size_t h = 0; h < 2; ++h) {
                const size_t bit = bits * (2 * r + h);
                const size_t two = record[bit / 8] | static_cast<size_t>(record[bit / 8 + 1]) << 8;
                out[h].v[r] = static_cast<uint8_t>((two >> bit % 8 & ((size_t(1) << bits) - 1)) + (slot[h] << bits));
            }
    }
};

template <int Bits>
inline Rows chosen_entries(const float* table, const Places& places) {
    Rows out;
    for (size_t r = 0; r < kNMRows; ++r) out.v[r] = table[places.v[r]];
    return out;
}

#endif

}  // namespace nm
}  // namespace
