// Blocks of 64 tokens to bitmaps: which channels of a token are largest, and their values in the order of the bits.
#pragma once
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "bitmap.hpp"

namespace {

// Magnitudes as integers of the same order.
inline uint32_t magnitude(float v) {
    uint32_t bits;
    std::memcpy(&bits, &v, sizeof bits);
    return bits & 0x7fffffff;
}
inline uint16_t magnitude(Float16 v) { return v.bits & 0x7fff; }
inline uint16_t magnitude(BFloat16 v) { return v.bits & 0x7fff; }

template <class V>
constexpr uint32_t kInfinity = 0x7f800000;
template <>
constexpr uint32_t kInfinity<Float16> = 0x7c00;
template <>
constexpr uint32_t kInfinity<BFloat16> = 0x7f80;

inline size_t count_not_below(const uint32_t* keys, size_t count, uint32_t bound) {
    uint32_t found = 0;
#if defined(__AVX512F__)
    const __m512i least = _mm512_set1_epi32(static_cast<int>(bound));
    for (size_t i = 0; i < count; i += 16)
        found += __builtin_popcount(_mm512_cmpge_epu32_mask(_mm512_loadu_si512(keys + i), least));
#else
#pragma omp simd reduction(+ : found)
    for (size_t i = 0; i < count; ++i) found += keys[i] >= bound;
#endif
    return found;
}

inline size_t count_not_below(const uint16_t* keys, size_t count, uint32_t bound) {
#if defined(__AVX512BW__)
    uint32_t found = 0;
    const __m512i least = _mm512_set1_epi16(static_cast<short>(bound));
    for (size_t i = 0; i < count; i += 32)
        found += __builtin_popcount(_mm512_cmpge_epu16_mask(_mm512_loadu_si512(keys + i), least));
#else
    uint16_t found = 0;
    const uint16_t least = static_cast<uint16_t>(bound);
#pragma omp simd reduction(+ : found)
    for (size_t i = 0; i < count; ++i) found += keys[i] >= least;
#endif
    return found;
}

// The bits of 64 keys above a bound and of those equal to it.
struct Compared {
    uint64_t above, equal;
};

inline Compared compare(const uint32_t* keys, uint32_t bound) {
    Compared found = {0, 0};
#if defined(__AVX512F__)
    const __m512i least = _mm512_set1_epi32(static_cast<int>(bound));
    for (int i = 0; i < 64; i += 16) {
        const __m512i k = _mm512_loadu_si512(keys + i);
        found.above |= uint64_t(_mm512_cmpgt_epu32_mask(k, least)) << i;
        found.equal |= uint64_t(_mm512_cmpeq_epu32_mask(k, least)) << i;
    }
#else
    for (int i = 0; i < 64; ++i) {
        found.above |= uint64_t(keys[i] > bound) << i;
        found.equal |= uint64_t(keys[i] == bound) << i;
    }
#endif
    return found;
}

inline Compared compare(const uint16_t* keys, uint32_t bound) {
    Compared found = {0, 0};
#if defined(__AVX512BW__)
    const __m512i least = _mm512_set1_epi16(static_cast<short>(bound));
    for (int i = 0; i < 64; i += 32) {
        const __m512i k = _mm512_loadu_si512(keys + i);
        found.above |= uint64_t(_mm512_cmpgt_epu16_mask(k, least)) << i;
        found.equal |= uint64_t(_mm512_cmpeq_epu16_mask(k, least)) << i;
    }
#else
    for (int i = 0; i < 64; ++i) {
        found.above |= uint64_t(keys[i] > bound) << i;
        found.equal |= uint64_t(keys[i] == bound) << i;
    }
#endif
    return found;
}

// What stays of a row of keys: those above the bound, and so many of those equal to it, the first ones.
struct Cut {
    uint32_t bound;
    size_t ties;
};

// The cut that leaves the `keep` largest of keys between `low` and `high`, or all above zero if there are fewer. The
// bound, the largest that `keep` keys reach, is found by halving; where exactly `keep` keys reach a bound, it will do.
template <class U>
inline Cut cut(const U* keys, size_t count, size_t keep, uint32_t low, uint32_t high) {
    while (low < high) {
        const uint32_t middle = low + (high - low + 1) / 2;
        const size_t reached = count_not_below(keys, count, middle);
        if (reached == keep) return {middle - 1, 0};
        if (reached > keep) low = middle;
        else high = middle - 1;
    }
    return {low, low ? keep - count_not_below(keys, count, low + 1) : 0};
}

// Bit j of word i changes places with bit i of word j.
inline void transpose_bits(uint64_t* w) {
    uint64_t mask = 0x00000000ffffffff;
    for (int step = 32; step; step >>= 1, mask ^= mask << step)
        for (int i = 0; i < 64; i = (i + step + 1) & ~step) {
            const uint64_t t = ((w[i] >> step) ^ w[i + step]) & mask;
            w[i] ^= t << step;
            w[i + step] ^= t;
        }
}

template <class V>
bool bitmap_mark(const V* x, size_t channels, size_t keep, size_t pad, bool by_channel, uint64_t* words,
                 int32_t* count, uint64_t* scratch) {
    using U = decltype(magnitude(V{}));
    const size_t columns = (channels + 63) / 64;
    uint64_t* rows = by_channel ? scratch : words;  // word of token t and column c at [c * 64 + t]
    U* keys = reinterpret_cast<U*>(scratch + columns * 64);
    const size_t wide = columns * 64;
    std::fill(keys + channels, keys + wide, U(0));
    for (size_t t = 0; t < 64; ++t) {
        const V* row = x + t * channels;
        U low = U(-1), high = 0;
        for (size_t c = 0; c < channels; ++c) {
            keys[c] = magnitude(row[c]);
            low = std::min(low, keys[c]);
            high = std::max(high, keys[c]);
        }
        Cut left = {0, 0};
        if (keep <= channels) {
            if (high > kInfinity<V>) return true;
            left = keep ? cut(keys, wide, keep, low, high) : Cut{kInfinity<V>, 0};
        }
        for (size_t c = 0; c < columns; ++c) {
            Compared found = compare(keys + c * 64, left.bound);
            for (; found.equal && left.ties; found.equal &= found.equal - 1, --left.ties)
                found.above |= found.equal & (~found.equal + 1);
            rows[c * 64 + t] = found.above;
        }
    }
    size_t total = 0;
    if (by_channel)
        for (size_t c = 0; c < columns; ++c) {
            transpose_bits(rows + c * 64);
            std::copy_n(rows + c * 64, std::min<size_t>(64, channels - c * 64), words + c * 64);
        }
    for (size_t i = 0; i < (by_channel ? channels : columns * 64); ++i)
        total += padded(__builtin_popcountll(words[i]), pad);
    *count = static_cast<int32_t>(total);
    return false;
}

template <class V>
void bitmap_fill(const V* x, size_t channels, size_t pad, bool by_channel, const uint64_t* words, V* values) {
    const size_t tiles = by_channel ? channels : (channels + 63) / 64 * 64, step = by_channel ? channels : 1;
    for (size_t i = 0; i < tiles; ++i) {
        const V* tile = by_channel ? x + i : x + i % 64 * channels + i / 64 * 64;
        V* end = values;
        for (uint64_t left = words[i]; left; left &= left - 1) *end++ = tile[__builtin_ctzll(left) * step];
        values += padded(end - values, pad);
        std::fill(end, values, V{});
    }
}

template <class V>
void bitmap_unpack(const BitmapHead<V>& packed, size_t block, size_t channels, bool by_channel, V* x) {
    const size_t step = by_channel ? channels : 1;
    const V* values = packed.values + packed.offsets[block];
    std::fill_n(x, 64 * channels, V{});
    for (size_t i = 0; i < packed.tiles; ++i) {
        V* tile = by_channel ? x + i : x + i % 64 * channels + i / 64 * 64;
        const V* next = values;
        const uint64_t word = packed.words[block * packed.tiles + i];
        for (uint64_t left = word; left; left &= left - 1) tile[__builtin_ctzll(left) * step] = *next++;
        values += padded(__builtin_popcountll(word), packed.pad);
    }
}

}  // namespace
