// Sparse times dense with channel-planar activations: every kept weight scales a contiguous run of pixels.
// A strip of pixels is held in registers while the weights of one block of output channels pass by.
#pragma once
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "kernels.hpp"
#include "vector.hpp"

namespace {

using Pixels = Simd<float>::type;
constexpr size_t kWidth = Simd<float>::width;

using sparsepriors::kSpmmShort;
typedef float ShortPixels __attribute__((vector_size(kSpmmShort * sizeof(float)), aligned(sizeof(float)), may_alias));

inline void copy_first(float* to, const float* from, size_t count) {
    switch (count) {  // copies of constant size are single instructions
        case 1: std::memcpy(to, from, sizeof(float)); break;
        case 2: std::memcpy(to, from, 2 * sizeof(float)); break;
        case 3: std::memcpy(to, from, 3 * sizeof(float)); break;
        default: std::memcpy(to, from, kSpmmShort * sizeof(float));
    }
}

void spmm_panel(const float* x, size_t channels, size_t stride, size_t vectors, size_t last, size_t tail_pixels,
                float* panel) {
    float* tails = panel + channels * vectors * kWidth;
    for (size_t c = 0; c < channels; ++c, x += stride, panel += kWidth, tails += tail_pixels) {
        for (size_t v = 0; v + 1 < vectors; ++v, panel += kWidth) store(panel, load(x + v * kWidth));
        store(panel, load(x + last));
        if (tail_pixels) copy_first(tails, x + vectors * kWidth, tail_pixels);
    }
}

template <class V>
inline V all_lanes(float value) { return value - V{}; }

// NaN passes both bounds, as in torch.clamp.
template <class V>
inline V clamped(V x, V lo, V hi) {
    x = x < lo ? lo : x;
    return x > hi ? hi : x;
}

// Blocks of NR output channels on a strip of MV vectors, the last of them short or not.
template <int NR, int MV, bool Short>
inline void spmm_blocks(const sparsepriors::Spmm& s, size_t first, size_t last, const float* values,
                        const sparsepriors::SpmmPixels& p) {
    constexpr int whole = MV - Short;
    const float* const x = p.x;
    const size_t stride = p.stride, in_last = p.last, out_stride = p.out_stride, out_last = p.out_last;
    const float* const tail = p.tail;
    const size_t tail_stride = p.tail_stride, tail_pixels = p.tail_pixels;
    const Pixels lo = all_lanes<Pixels>(s.lo), hi = all_lanes<Pixels>(s.hi);
    const ShortPixels short_lo = all_lanes<ShortPixels>(s.lo), short_hi = all_lanes<ShortPixels>(s.hi);
    const int32_t* column = s.columns + s.starts[first];
    const float* weight = values + static_cast<size_t>(s.starts[first]) * NR;
    for (size_t b = first; b < last; ++b) {
        const size_t row = static_cast<size_t>(s.rows[b]);
        Pixels sum[NR][whole];
        ShortPixels tail_sum[NR];
        for (int r = 0; r < NR; ++r) {
            for (int v = 0; v < whole; ++v) sum[r][v] = all_lanes<Pixels>(s.bias[row + r]);
            if constexpr (Short) tail_sum[r] = all_lanes<ShortPixels>(s.bias[row + r]);
        }
        for (const int32_t* const end = s.columns + s.starts[b + 1]; column != end; ++column, weight += NR) {
            const float* from = x + static_cast<size_t>(*column) * stride;
            asm("" : "+r"(from));  // kept in one register: the compiler would build the address of every load anew
            Pixels in[whole];
            for (int v = 0; v < whole; ++v) in[v] = load(from + (Short || v + 1 < MV ? v * kWidth : in_last));
            for (int r = 0; r < NR; ++r)
                for (int v = 0; v < whole; ++v) sum[r][v] += in[v] * weight[r];
            if constexpr (Short) {
                const float* const at = tail + static_cast<size_t>(*column) * tail_stride;
                const ShortPixels in_tail = *reinterpret_cast<const ShortPixels*>(at);
                for (int r = 0; r < NR; ++r) tail_sum[r] += in_tail * weight[r];
            }
        }
        for (int r = 0; r < NR; ++r) {
            float* const to = p.y + (row + r) * out_stride;
            for (int v = 0; v < whole; ++v)
                store(to + (Short || v + 1 < MV ? v * kWidth : out_last), clamped(sum[r][v], lo, hi));
            if constexpr (Short) {
                const ShortPixels out = clamped(tail_sum[r], short_lo, short_hi);
                copy_first(to + out_last, reinterpret_cast<const float*>(&out), tail_pixels);
            }
        }
    }
}

template <int NR, int MV, bool Short>
void spmm_strip(const sparsepriors::Spmm& s, size_t first, size_t last, const sparsepriors::SpmmPixels& pixels) {
    const size_t middle = last < s.full ? last : s.full;
    if (first < middle) spmm_blocks<NR, MV, Short>(s, first, middle, s.values, pixels);
    if constexpr (NR > 1) {
        // Entries of single rows hold one value each; those before them NR.
        const float* values = s.values + static_cast<size_t>(s.starts[s.full]) * (NR - 1);
        if (first < s.full) first = s.full;
        if (first < last) spmm_blocks<1, MV, Short>(s, first, last, values, pixels);
    }
}

// A short vector follows whole ones, and is shorter than they are.
template <int NR, int MV>
constexpr sparsepriors::SpmmStrip spmm_strips(size_t vectors, bool shortened) {
    if constexpr (MV > 1 && kWidth > kSpmmShort)
        if (vectors == MV && shortened) return spmm_strip<NR, MV, true>;
    if (vectors == MV && !shortened) return spmm_strip<NR, MV, false>;
    if constexpr (MV > 1) return spmm_strips<NR, MV - 1>(vectors, shortened);
    return nullptr;
}

constexpr int kRegisters = SPARSEPRIORS_VECTOR_BYTES == 64 ? 32 : 16;
// Most vectors of a strip: sums, the pixels they are fed with and one weight share the registers.
constexpr int spmm_most(int nr) { return nr == 1 ? 8 : (kRegisters - 2) / (nr + 1); }

sparsepriors::SpmmStrip spmm(int nr, size_t vectors, bool shortened) {
    switch (nr) {
        case 1: return spmm_strips<1, spmm_most(1)>(vectors, shortened);
        case 2: return spmm_strips<2, spmm_most(2)>(vectors, shortened);
        case 4: return spmm_strips<4, spmm_most(4)>(vectors, shortened);
        default: return nullptr;
    }
}

size_t spmm_limit(int nr) { return spmm_most(nr); }

}  // namespace
