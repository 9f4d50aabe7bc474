// Linear layers with N:M sparse weights: sixteen outputs at once stream their values and places; entries of x are chosen
// by permutations of vectors that hold whole groups.
#pragma once
#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "kernels.hpp"
#include "nm_lanes.hpp"

namespace {
namespace nm {

using sparsepriors::NMLinear;
using sparsepriors::NMLinearKernel;

// Writes tables of `batch` rows of x, those from `rows` on zero: out [tables][batch][width]. Entries between groups that
// do not fill their slots, and behind the last group, are zero.
void fill_tables(const NMLinear& w, const float* x, size_t rows, size_t batch, float* out) {
    const size_t width = table_width(w.bits), slots = width >> w.bits, in = w.groups * w.m;
    const size_t tables = (w.reach() + slots - 1) / slots, whole = w.m == size_t(1) << w.bits ? in / width : 0;
    for (size_t b = 0; b < batch; ++b) {
        float* to = out + b * width;
        const float* from = x + b * in;
        if (b >= rows) {
            for (size_t t = 0; t < tables; ++t) std::fill_n(to + t * batch * width, width, 0.0f);
            continue;
        }
        for (size_t t = 0; t < whole; ++t) std::copy_n(from + t * width, width, to + t * batch * width);
        for (size_t t = whole; t < tables; ++t)
            for (size_t i = 0; i < width; ++i) {
                const size_t g = t * slots + (i >> w.bits), at = i & ((size_t(1) << w.bits) - 1);
                to[t * batch * width + i] = g < w.groups && at < w.m ? from[g * w.m + at] : 0.0f;
            }
    }
}

// y[b][r] = bias[r] + sum over the values of the outputs of P panels, for B rows of x. Every sum has one order, whatever
// P and B are, so that a row's result does not depend on the rows beside it.
template <class V, int Bits, int P, int B>
void panel_product(const NMLinear& w, const Decoder<Bits>& decode, size_t panel, const float* tables, size_t rows,
                   float* y) {
    const size_t record = 4 * static_cast<size_t>(w.bits), values_apart = w.pairs * 2 * kNMRows;
    const size_t places_apart = w.pairs * record, width = table_width(Bits);
    const size_t shared = Bits == kShortBits ? w.shared(width) : 0, last_slot = (size_t(1) << shared) - 1;
    const V* values = static_cast<const V*>(w.values) + panel * values_apart;
    const uint8_t* places = w.places + panel * places_apart;
    Rows acc[P][B];
#pragma GCC unroll 4
    for (int p = 0; p < P; ++p)
#pragma GCC unroll 16
        for (int b = 0; b < B; ++b) acc[p][b] = zero_rows();
    size_t group = 0, in_group = 0;
    for (size_t pair = 0; pair < w.pairs; ++pair) {
        const float* table[2];
        size_t slot[2];
#pragma GCC unroll 2
        for (int h = 0; h < 2; ++h) {
            table[h] = tables + (group >> shared) * B * width;
            slot[h] = group & last_slot;
            if (++in_group == w.n) in_group = 0, ++group;
        }
#pragma GCC unroll 4
        for (int p = 0; p < P; ++p) {
            Rows value[2];
            Places place[2];
            load_pair(values + p * values_apart, value);
            decode(places + p * places_apart, slot, place);
#pragma GCC unroll 2
            for (int h = 0; h < 2; ++h)
#pragma GCC unroll 16
                for (int b = 0; b < B; ++b)
                    acc[p][b] = multiply_add(chosen_entries<Bits>(table[h] + b * width, place[h]), value[h], acc[p][b]);
        }
        values += 2 * kNMRows;
        places += record;
    }
#pragma GCC unroll 4
    for (int p = 0; p < P; ++p) {
        const size_t from = (panel + p) * kNMRows, count = std::min(kNMRows, w.out - from);
#pragma GCC unroll 16
        for (int b = 0; b < B; ++b) {
            if (static_cast<size_t>(b) >= rows) break;
            float* to = y + static_cast<size_t>(b) * w.out + from;
            if (count == kNMRows) {
                store_rows(to, w.bias ? acc[p][b] + load_rows(w.bias + from) : acc[p][b]);
            } else {
                float last[kNMRows];
                store_rows(last, acc[p][b]);
                for (size_t r = 0; r < count; ++r) to[r] = last[r] + (w.bias ? w.bias[from + r] : 0.0f);
            }
        }
    }
}

template <class V, int Bits, int P, int B>
void panels_product(const NMLinear& w, size_t first, size_t last, const float* tables, size_t rows, float* y) {
    const PlaceCode code(w.bits);
    const Decoder<Bits> decode(code);
    const size_t width = table_width(Bits), slots = width >> w.bits;
    const size_t size = (w.reach() + slots - 1) / slots * B * width;
    const auto tiles = [&](auto product, size_t panel) {
        for (size_t b = 0; b < rows; b += B) product(w, decode, panel, tables + b / B * size, rows - b, y + b * w.out);
    };
    size_t panel = first;
    for (; panel + P <= last; panel += P) tiles(panel_product<V, Bits, P, B>, panel);
    for (; panel < last; ++panel) tiles(panel_product<V, Bits, 1, B>, panel);
}

// One row of x waits for each of its sums, so that several panels go side by side.
template <class V, int Bits>
NMLinearKernel nm_linear_for(size_t rows) {
    if (rows <= 1) return {panels_product<V, Bits, 4, 1>, fill_tables, table_width(Bits), 1};
#if defined(__AVX512F__)
    if (rows > 8) return {panels_product<V, Bits, 1, 16>, fill_tables, table_width(Bits), 16};
    if (rows > 4) return {panels_product<V, Bits, 2, 8>, fill_tables, table_width(Bits), 8};
#endif
    return {panels_product<V, Bits, 1, 4>, fill_tables, table_width(Bits), 4};
}

template <class V>
NMLinearKernel nm_linear(const NMLinear& w, size_t rows) {
    if (w.bits <= kShortBits) return nm_linear_for<V, kShortBits>(rows);
    return w.bits == 4 ? nm_linear_for<V, 4>(rows) : nm_linear_for<V, 5>(rows);
}

}  // namespace nm
}  // namespace
