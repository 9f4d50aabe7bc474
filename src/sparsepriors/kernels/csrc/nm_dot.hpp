// Linear layers with N:M sparse weights where weights and x are bfloat16 and the processor multiplies pairs of them:
// one permutation and one product take two values of sixteen outputs.
#pragma once
#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "kernels.hpp"

#if defined(__AVX512VBMI2__)

#include <immintrin.h>

#define SPARSEPRIORS_DOT __attribute__((target("avx512bf16")))

namespace {
namespace nm {

using sparsepriors::kNMRows;
using sparsepriors::NMDotKernel;
using sparsepriors::NMLinear;

constexpr size_t kDotTable = 32;  // entries of x that one permutation chooses from

// Groups that share a table. Tables hold an even number of values of a row, so that no pair belongs to two.
inline size_t dot_slots(const NMLinear& w) { return kDotTable >> w.bits; }

// How to read the places of a pair as 32 words; `slot` holds the first entries of both groups for each pair of a table.
struct DotCode {
    alignas(64) uint8_t bytes[64];
    alignas(64) uint16_t shift[32];
    alignas(64) uint16_t slot[kDotTable / 2][32];

    explicit DotCode(const NMLinear& w) {
        for (size_t i = 0; i < 32; ++i) {
            const size_t bit = static_cast<size_t>(w.bits) * i, first = bit / 8 - (w.bits > 4 && i >= 24 ? 4 : 0);
            bytes[2 * i] = static_cast<uint8_t>(first);
            bytes[2 * i + 1] = static_cast<uint8_t>(first + 1 < 16 ? first + 1 : 0x80);
            shift[i] = static_cast<uint16_t>(bit % 8);
            for (size_t pair = 0; pair < w.n * dot_slots(w) / 2; ++pair)
                slot[pair][i] = static_cast<uint16_t>((2 * pair + i % 2) / w.n << w.bits);
        }
    }
};

void fill_dot_tables(const NMLinear& w, const uint16_t* x, size_t rows, size_t batch, uint16_t* out) {
    const size_t slots = dot_slots(w), in = w.groups * w.m, tables = (w.reach() + slots - 1) / slots;
    const size_t whole = w.m == size_t(1) << w.bits ? in / kDotTable : 0;
    for (size_t b = 0; b < batch; ++b) {
        uint16_t* to = out + b * kDotTable;
        const uint16_t* from = x + b * in;
        for (size_t t = 0; t < tables; ++t, to += batch * kDotTable) {
            if (b < rows && t < whole) {
                std::copy_n(from + t * kDotTable, kDotTable, to);
                continue;
            }
            for (size_t i = 0; i < kDotTable; ++i) {
                const size_t g = t * slots + (i >> w.bits), at = i & ((size_t(1) << w.bits) - 1);
                to[i] = b < rows && g < w.groups && at < w.m ? from[g * w.m + at] : uint16_t(0);
            }
        }
    }
}

// As panel_product of nm_linear.hpp; Wide: the last quarter of a record's words lies behind its first 16 bytes.
template <bool Wide, int P, int B>
SPARSEPRIORS_DOT void dot_panels(const NMLinear& w, const DotCode& code, size_t panel, const uint16_t* table, size_t rows,
                                 float* y) {
    const size_t record = 4 * static_cast<size_t>(w.bits), values_apart = w.pairs * 2 * kNMRows;
    const size_t places_apart = w.pairs * record, per_table = w.n * dot_slots(w) / 2;
    const uint16_t* values = static_cast<const uint16_t*>(w.values) + panel * values_apart;
    const uint8_t* places = w.places + panel * places_apart;
    const __m512i bytes = _mm512_load_si512(code.bytes), shift = _mm512_load_si512(code.shift);
    const __m512i mask = _mm512_set1_epi16(static_cast<short>((1 << w.bits) - 1));
    __m512 acc[P][B];
#pragma GCC unroll 4
    for (int p = 0; p < P; ++p)
#pragma GCC unroll 16
        for (int b = 0; b < B; ++b) acc[p][b] = _mm512_setzero_ps();
    for (size_t first = 0; first < w.pairs; first += per_table, table += B * kDotTable) {
        const size_t count = std::min(per_table, w.pairs - first);
        for (size_t pair = 0; pair < count; ++pair, values += 2 * kNMRows, places += record) {
#pragma GCC unroll 4
            for (int p = 0; p < P; ++p) {
                const uint8_t* at = places + p * places_apart;
                __m512i place = _mm512_broadcast_i32x4(_mm_loadu_si128(reinterpret_cast<const __m128i*>(at)));
                if constexpr (Wide)
                    place = _mm512_mask_broadcast_i32x4(place, 0xf000,
                                                        _mm_loadu_si128(reinterpret_cast<const __m128i*>(at + 4)));
                place = _mm512_srlv_epi16(_mm512_shuffle_epi8(place, bytes), shift);
                place = _mm512_ternarylogic_epi32(place, mask, _mm512_load_si512(code.slot[pair]), 0xea);
                const __m512bh value = (__m512bh)_mm512_loadu_si512(values + p * values_apart);
#pragma GCC unroll 16
                for (int b = 0; b < B; ++b)
                    acc[p][b] = _mm512_dpbf16_ps(
                        acc[p][b],
                        (__m512bh)_mm512_permutexvar_epi16(place, _mm512_loadu_si512(table + b * kDotTable)), value);
            }
        }
    }
#pragma GCC unroll 4
    for (int p = 0; p < P; ++p) {
        const size_t from = (panel + p) * kNMRows;
        const __mmask16 there = static_cast<__mmask16>((1u << std::min(kNMRows, w.out - from)) - 1);
        const __m512 bias = w.bias ? _mm512_maskz_loadu_ps(there, w.bias + from) : _mm512_setzero_ps();
#pragma GCC unroll 16
        for (int b = 0; b < B; ++b) {
            if (static_cast<size_t>(b) >= rows) break;
            _mm512_mask_storeu_ps(y + static_cast<size_t>(b) * w.out + from, there, _mm512_add_ps(acc[p][b], bias));
        }
    }
}

template <bool Wide, int P, int B>
void dot_product(const NMLinear& w, size_t first, size_t last, const uint16_t* tables, size_t rows, float* y) {
    const DotCode code(w);
    const size_t size = (w.reach() + dot_slots(w) - 1) / dot_slots(w) * B * kDotTable;
    const auto tiles = [&](auto product, size_t panel) {
        for (size_t b = 0; b < rows; b += B) product(w, code, panel, tables + b / B * size, rows - b, y + b * w.out);
    };
    size_t panel = first;
    for (; panel + P <= last; panel += P) tiles(dot_panels<Wide, P, B>, panel);
    for (; panel < last; ++panel) tiles(dot_panels<Wide, 1, B>, panel);
}

// Two panels beside eight rows load every table once for both; more rows take the weights, which are then at hand, again.
template <bool Wide>
NMDotKernel nm_dot_for(size_t rows) {
    if (rows <= 1) return {dot_product<Wide, 4, 1>, fill_dot_tables, kDotTable, 1};
    if (rows <= 4) return {dot_product<Wide, 4, 4>, fill_dot_tables, kDotTable, 4};
    return {dot_product<Wide, 2, 8>, fill_dot_tables, kDotTable, 8};
}

// No kernel where the processor lacks the product, or a pair might belong to two tables.
NMDotKernel nm_dot(const NMLinear& w, size_t rows) {
    static const bool there = __builtin_cpu_supports("avx512bf16");
    if (!there || w.n * dot_slots(w) % 2) return {};
    return w.bits > 4 ? nm_dot_for<true>(rows) : nm_dot_for<false>(rows);
}

}  // namespace nm
}  // namespace

#undef SPARSEPRIORS_DOT

#else

namespace {
namespace nm {

sparsepriors::NMDotKernel nm_dot(const sparsepriors::NMLinear&, size_t) { return {}; }

}  // namespace nm
}  // namespace

#endif
