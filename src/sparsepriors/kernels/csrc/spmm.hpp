// Sparse times dense with channel-planar activations: every kept weight scales a contiguous run of pixels.
// A strip of pixels is held in registers while the weights of one block of output channels pass by.
#pragma once
#include <cstddef>
#include <cstdint>

#include "kernels.hpp"
#include "vector.hpp"

namespace {

using Pixels = Simd<float>::type;
constexpr size_t kWidth = Simd<float>::width;

// Copies a strip of MV vectors of every channel to lie without gaps; the last vector begins `last` pixels in.
void spmm_panel(const float* x, size_t channels, size_t stride, size_t vectors, size_t last, float* panel) {
    for (size_t c = 0; c < channels; ++c, x += stride, panel += kWidth) {
        for (size_t v = 0; v + 1 < vectors; ++v, panel += kWidth) store(panel, load(x + v * kWidth));
        store(panel, load(x + last));
    }
}

inline Pixels all_lanes(float value) { return value - Pixels{}; }

// Blocks of NR output channels on a strip of MV vectors. NaN passes both bounds, as in torch.clamp.
template <int NR, int MV>
inline void spmm_blocks(const sparsepriors::Spmm& s, size_t first, size_t last, const float* values,
                        const sparsepriors::SpmmPixels& p) {
    const Pixels lo = all_lanes(s.lo), hi = all_lanes(s.hi);
    const float* const x = p.x;
    const size_t stride = p.stride, in_last = p.last, out_stride = p.out_stride, out_last = p.out_last;
    const int32_t* column = s.columns + s.starts[first];
    const float* weight = values + static_cast<size_t>(s.starts[first]) * NR;
    for (size_t b = first; b < last; ++b) {
        const size_t row = static_cast<size_t>(s.rows[b]);
        Pixels sum[NR][MV];
        for (int r = 0; r < NR; ++r)
            for (int v = 0; v < MV; ++v) sum[r][v] = all_lanes(s.bias[row + r]);
        for (const int32_t* const end = s.columns + s.starts[b + 1]; column != end; ++column, weight += NR) {
            const float* const from = x + static_cast<size_t>(*column) * stride;
            Pixels in[MV];
            for (int v = 0; v + 1 < MV; ++v) in[v] = load(from + v * kWidth);
            in[MV - 1] = load(from + in_last);
            for (int r = 0; r < NR; ++r)
                for (int v = 0; v < MV; ++v) sum[r][v] += in[v] * weight[r];
        }
        for (int r = 0; r < NR; ++r) {
            float* const to = p.y + (row + r) * out_stride;
            for (int v = 0; v < MV; ++v) {
                Pixels out = sum[r][v];
                out = out < lo ? lo : out;
                out = out > hi ? hi : out;
                store(to + (v + 1 < MV ? v * kWidth : out_last), out);
            }
        }
    }
}

template <int NR, int MV>
void spmm_strip(const sparsepriors::Spmm& s, size_t first, size_t last, const sparsepriors::SpmmPixels& pixels) {
    const size_t middle = last < s.full ? last : s.full;
    if (first < middle) spmm_blocks<NR, MV>(s, first, middle, s.values, pixels);
    if constexpr (NR > 1) {
        // Entries of single rows hold one value each; those before them NR.
        const float* values = s.values + static_cast<size_t>(s.starts[s.full]) * (NR - 1);
        if (first < s.full) first = s.full;
        if (first < last) spmm_blocks<1, MV>(s, first, last, values, pixels);
    }
}

template <int NR, int MV>
constexpr sparsepriors::SpmmStrip spmm_strips(size_t vectors) {
    if (vectors == MV) return spmm_strip<NR, MV>;
    if constexpr (MV > 1) return spmm_strips<NR, MV - 1>(vectors);
    return nullptr;
}

constexpr int kRegisters = SPARSEPRIORS_VECTOR_BYTES == 64 ? 32 : 16;
// Most vectors of a strip: sums, the pixels they are fed with and one weight share the registers.
constexpr int spmm_most(int nr) { return nr == 1 ? 8 : (kRegisters - 2) / (nr + 1); }

sparsepriors::SpmmStrip spmm(int nr, size_t vectors) {
    switch (nr) {
        case 1: return spmm_strips<1, spmm_most(1)>(vectors);
        case 2: return spmm_strips<2, spmm_most(2)>(vectors);
        case 4: return spmm_strips<4, spmm_most(4)>(vectors);
        default: return nullptr;
    }
}

size_t spmm_limit(int nr) { return spmm_most(nr); }

}  // namespace
