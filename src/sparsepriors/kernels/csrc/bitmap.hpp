// Products with keys and values packed as bitmaps: each tile is expanded into registers and used for every query head
// that shares it; the dense tile is never written.
#pragma once
#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "bitmap_expand.hpp"
#include "kernels.hpp"
#include "vector.hpp"

namespace {

using sparsepriors::BitmapHead;
using sparsepriors::DenseHead;

constexpr size_t kTile = 64;

// Most query heads that one pass over the words serves, and vectors of a tile that it then covers: their sums have to
// stay in registers.
constexpr int kHeads = kFloats == 16 ? 8 : 4;
template <int G>
constexpr int kVectors = kFloats == 16 ? (G <= 4 ? 4 : 2) : (G <= 2 ? 4 : 2);

inline size_t padded(size_t count, size_t pad) { return (count + pad - 1) & ~(pad - 1); }

// sums[g] += sum over tiles of factors[g][tile] times the N vectors of the tile that begin at entry `from`. Returns where
// the values of the last tile end.
template <class V, int G, int N>
inline const V* add_tiles(const uint64_t* words, size_t tiles, size_t pad, const V* values, const float* factors,
                          size_t stride, int from, Floats (&sums)[G][N]) {
    for (size_t i = 0; i < tiles; ++i) {
        const uint64_t word = words[i];
        const V* at = values;
        uint64_t bits = word;
        if constexpr (N * kFloats < kTile) {
            at += __builtin_popcountll(word & ((uint64_t(1) << from) - 1));
            bits >>= from;
        }
        Floats entries[N];
        expand<V, N>(at, bits, entries);
#pragma GCC unroll 8
        for (int g = 0; g < G; ++g) {
            const Floats factor = factors[g * stride + i] - Floats{};
#pragma GCC unroll 4
            for (int n = 0; n < N; ++n) sums[g][n] += factor * entries[n];
        }
        values += padded(__builtin_popcountll(word), pad);
    }
    return values;
}

template <class V, int G>
void scores_of_group(const BitmapHead<V>& k, size_t first, size_t last, const float* q, size_t q_stride, float* out,
                     size_t out_stride) {
    constexpr int N = kVectors<G>;
    for (size_t b = first; b < last; ++b)
        for (size_t from = 0; from < kTile; from += N * kFloats) {
            Floats sums[G][N] = {};
            add_tiles<V, G, N>(k.words + b * k.tiles, k.tiles, k.pad, k.values + k.offsets[b], q, q_stride,
                               static_cast<int>(from), sums);
            for (int g = 0; g < G; ++g)
                store_entries<V, N>(out + g * out_stride + (b - first) * kTile + from, sums[g]);
        }
}

template <class V, int G>
void mix_of_group(const BitmapHead<V>& v, size_t first, size_t last, const float* weights, size_t stride, float* out) {
    constexpr int N = kVectors<G>;
    for (size_t b = first; b < last; ++b) {
        const V* values = v.values + v.offsets[b];
        for (size_t column = 0; column < v.tiles; column += kTile) {
            const V* end = values;
            for (size_t from = 0; from < kTile; from += N * kFloats) {
                float* to = out + column + from;
                Floats sums[G][N];
                for (int g = 0; g < G; ++g) load_entries<V, N>(to + g * v.tiles, sums[g]);
                end = add_tiles<V, G, N>(v.words + b * v.tiles + column, kTile, v.pad, values,
                                         weights + (b - first) * kTile, stride, static_cast<int>(from), sums);
                for (int g = 0; g < G; ++g) store_entries<V, N>(to + g * v.tiles, sums[g]);
            }
            values = end;
        }
    }
}

// Calls work with the number of heads as a constant, for all heads in groups of at most kHeads.
template <class Work>
inline void by_group(size_t heads, const Work& work) {
    for (size_t h = 0; h < heads;) {
        const size_t group = std::min<size_t>(heads - h, kHeads);
        switch (group) {
            case 1: work(h, std::integral_constant<int, 1>{}); break;
            case 2: work(h, std::integral_constant<int, 2>{}); break;
            case 3: work(h, std::integral_constant<int, 3>{}); break;
            case 4: work(h, std::integral_constant<int, 4>{}); break;
            default:
                if constexpr (kHeads > 4) {
                    if (group == 5) work(h, std::integral_constant<int, 5>{});
                    if (group == 6) work(h, std::integral_constant<int, 6>{});
                    if (group == 7) work(h, std::integral_constant<int, 7>{});
                    if (group == 8) work(h, std::integral_constant<int, 8>{});
                }
        }
        h += group;
    }
}

template <class V>
void bitmap_scores(const BitmapHead<V>& k, size_t first, size_t last, size_t heads, const float* q, size_t q_stride,
                   float* out, size_t out_stride) {
    by_group(heads, [&](size_t h, auto group) {
        scores_of_group<V, group.value>(k, first, last, q + h * q_stride, q_stride, out + h * out_stride, out_stride);
    });
}

template <class V>
void bitmap_mix(const BitmapHead<V>& v, size_t first, size_t last, size_t heads, const float* weights, size_t stride,
                float* out) {
    by_group(heads, [&](size_t h, auto group) {
        mix_of_group<V, group.value>(v, first, last, weights + h * stride, stride, out + h * v.tiles);
    });
}

// The sums over the lanes of four vectors are taken at once, those of four tokens; past the end the last one is repeated.
template <class V>
void dense_scores(const DenseHead<V>& k, size_t heads, const float* q, size_t q_stride, float* out, size_t out_stride) {
    const size_t whole = k.channels / kFloats * kFloats;
    for (size_t t = 0; t < k.tokens; t += 4) {
        const size_t count = std::min<size_t>(4, k.tokens - t);
        const V* rows[4];
        for (size_t i = 0; i < 4; ++i) rows[i] = k.values + (t + std::min(i, count - 1)) * k.channels;
        for (size_t h = 0; h < heads; ++h) {
            const float* query = q + h * q_stride;
            Floats sums[4] = {};
            for (size_t c = 0; c < whole; c += kFloats)
                for (size_t i = 0; i < 4; ++i) sums[i] += load(query + c) * widen(rows[i] + c);
            float dots[4];
            sum_lanes<float>(sums, dots);
            for (size_t c = whole; c < k.channels; ++c)
                for (size_t i = 0; i < 4; ++i) dots[i] += query[c] * to_float(rows[i][c]);
            std::copy_n(dots, count, out + h * out_stride + t);
        }
    }
}

// Adds the vectors of N * kFloats channels of all tokens, times their weights.
template <class V, int G, int N>
inline void dense_mix_columns(const V* values, size_t tokens, size_t apart, const float* weights, size_t stride,
                              float* out, size_t out_stride) {
    Floats sums[G][N];
    for (int g = 0; g < G; ++g)
        for (int n = 0; n < N; ++n) sums[g][n] = load(out + g * out_stride + n * kFloats);
    for (size_t t = 0; t < tokens; ++t) {
        Floats row[N];
        for (int n = 0; n < N; ++n) row[n] = widen(values + t * apart + n * kFloats);
        for (int g = 0; g < G; ++g)
            for (int n = 0; n < N; ++n) sums[g][n] += weights[g * stride + t] * row[n];
    }
    for (int g = 0; g < G; ++g)
        for (int n = 0; n < N; ++n) store(out + g * out_stride + n * kFloats, sums[g][n]);
}

template <class V>
void dense_mix(const DenseHead<V>& v, size_t heads, const float* weights, size_t stride, float* out,
               size_t out_stride) {
    by_group(heads, [&](size_t h, auto group) {
        constexpr int G = group.value, N = kVectors<G>;
        const float* w = weights + h * stride;
        float* to = out + h * out_stride;
        size_t c = 0;
        for (; c + N * kFloats <= v.channels; c += N * kFloats)
            dense_mix_columns<V, G, N>(v.values + c, v.tokens, v.channels, w, stride, to + c, out_stride);
        for (; c + kFloats <= v.channels; c += kFloats)
            dense_mix_columns<V, G, 1>(v.values + c, v.tokens, v.channels, w, stride, to + c, out_stride);
        for (; c < v.channels; ++c)
            for (int g = 0; g < G; ++g)
                for (size_t t = 0; t < v.tokens; ++t)
                    to[g * out_stride + c] += w[g * stride + t] * to_float(v.values[t * v.channels + c]);
    });
}

}  // namespace
