// The Born model on one tile of voxels: complex products by three real ones (Gauss), registers blocked for fused
// multiply-adds, propagators advanced from one frequency to the next by a complex multiplication.
#pragma once
#include "kernels.hpp"
#include "vector.hpp"

namespace {

using sparsepriors::Born;

#if SPARSEPRIORS_VECTOR_BYTES >= 64  // 32 vector registers instead of 16
constexpr int kReceivers = 6, kTransmitters = 12;
#else
constexpr int kReceivers = 3, kTransmitters = 6;
#endif

// The three planes (real, imaginary, sum) of every antenna's propagator on one tile, at the current frequency.
template <class T>
struct Planes {
    T* data;
    size_t antennas, tile;
    T* row(int plane, size_t antenna) const { return data + (plane * antennas + antenna) * tile; }
};

template <class T>
void set_planes(const Planes<T>& g, size_t a, const T* base) {
    for (size_t v = 0; v < g.tile; v += Simd<T>::width) {
        auto re = load(base + v), im = load(base + g.tile + v);
        store(g.row(0, a) + v, re);
        store(g.row(1, a) + v, im);
        store(g.row(2, a) + v, re + im);
    }
}

// g *= factor, where factor has a real and an imaginary plane one tile apart.
template <class T>
void multiply_planes(const Planes<T>& g, size_t a, const T* factor) {
    T *gr = g.row(0, a), *gi = g.row(1, a), *gs = g.row(2, a);
    for (size_t v = 0; v < g.tile; v += Simd<T>::width) {
        auto re = load(gr + v), im = load(gi + v), fr = load(factor + v), fi = load(factor + g.tile + v);
        auto r = re * fr - im * fi, i = re * fi + im * fr;
        store(gr + v, r);
        store(gi + v, i);
        store(gs + v, r + i);
    }
}

// sums[r * transmitters + t] = sum_v a[t][v] b[r][v] for a block of up to 4 x kReceivers rows.
template <class T, int Nt, int Nr>
void dot_block(const T* a, const T* b, size_t tile, size_t transmitters, T* sums) {
    typename Simd<T>::type acc[Nr][4] = {};
    for (size_t v = 0; v < tile; v += Simd<T>::width) {
        typename Simd<T>::type rows[Nr];
        for (int r = 0; r < Nr; ++r) rows[r] = load(b + r * tile + v);
        for (int t = 0; t < Nt; ++t) {
            auto left = load(a + t * tile + v);
            for (int r = 0; r < Nr; ++r) acc[r][t] += left * rows[r];
        }
    }
    for (int r = 0; r < Nr; ++r) {
        T four[4];
        sum_lanes<T>(acc[r], four);
        for (int t = 0; t < Nt; ++t) sums[r * transmitters + t] = four[t];
    }
}

template <class T, int Nt, int Nr>
void dot_rows(const T* a, const T* b, size_t rows, size_t tile, size_t transmitters, T* sums) {
    if constexpr (Nr > 0) {
        size_t r = 0;
        for (; r + Nr <= rows; r += Nr) dot_block<T, Nt, Nr>(a, b + r * tile, tile, transmitters, sums + r * transmitters);
        if (r < rows) dot_rows<T, Nt, Nr - 1>(a, b + r * tile, rows - r, tile, transmitters, sums + r * transmitters);
    }
}

template <class T>
void dot_all(const T* a, const T* b, size_t nt, size_t nr, size_t tile, T* sums) {
    size_t t = 0;
    for (; t + 4 <= nt; t += 4) dot_rows<T, 4, kReceivers>(a + t * tile, b, nr, tile, nt, sums + t);
    switch (nt - t) {
        case 3: dot_rows<T, 3, kReceivers>(a + t * tile, b, nr, tile, nt, sums + t); break;
        case 2: dot_rows<T, 2, kReceivers>(a + t * tile, b, nr, tile, nt, sums + t); break;
        case 1: dot_rows<T, 1, kReceivers>(a + t * tile, b, nr, tile, nt, sums + t); break;
        default: break;
    }
}

template <class T>
void born_forward(const Born<T>& b, const T* x, size_t first, size_t last, T* scratch, T* y) {
    const size_t nt = b.transmitters, na = b.antennas(), tile = b.tile, pairs = b.pairs();
    Planes<T> g{scratch, na, tile};
    T* scene = scratch + 3 * na * tile;
    T* sums = scene + 2 * tile;
    for (size_t n = first; n < last; ++n) {
        for (size_t v = 0; v < tile; ++v) {
            const size_t at = n * tile + v;
            scene[v] = at < b.voxels ? x[2 * at] : T(0);
            scene[tile + v] = at < b.voxels ? x[2 * at + 1] : T(0);
        }
        for (size_t k = 0; k < b.frequencies; ++k) {
            if (k % b.segment == 0) {
                const T* base = b.base + ((k / b.segment) * b.tiles + n) * na * 2 * tile;
                for (size_t a = 0; a < na; ++a) {
                    set_planes(g, a, base + a * 2 * tile);
                    if (a >= nt) multiply_planes(g, a, scene);
                }
            } else {
                for (size_t a = 0; a < na; ++a) multiply_planes(g, a, b.ratio + (n * na + a) * 2 * tile);
            }
            for (int p = 0; p < 3; ++p) dot_all(g.row(p, 0), g.row(p, nt), nt, b.receivers, tile, sums + p * pairs);
            T *re = y + k * 2 * pairs, *im = re + pairs;
            for (size_t i = 0; i < pairs; ++i) {
                re[i] += sums[i] - sums[pairs + i];
                im[i] += sums[2 * pairs + i] - sums[i] - sums[pairs + i];
            }
        }
    }
}

// x += sum_t g[t] * (sum_r y[t][r] g[r]) on two vectors of voxels, for a block of Nt transmitters.
template <class T, int Nt>
void backproject_block(const Planes<T>& g, size_t t0, size_t nt, size_t nr, const T* y, size_t v,
                       typename Simd<T>::type (&x)[2][2]) {
    using V = typename Simd<T>::type;
    constexpr size_t w = Simd<T>::width;
    V product[3][Nt][2];
    for (int p = 0; p < 3; ++p) {
        V acc[Nt][2] = {};
        const T* weights = y + (p * nt + t0) * nr;
        const T* rows = g.row(p, nt) + v;
        for (size_t r = 0; r < nr; ++r) {
            V low = load(rows + r * g.tile), high = load(rows + r * g.tile + w);
            for (int t = 0; t < Nt; ++t) {
                const T weight = weights[t * nr + r];
                acc[t][0] += weight * low;
                acc[t][1] += weight * high;
            }
        }
        for (int t = 0; t < Nt; ++t)
            for (int h = 0; h < 2; ++h) product[p][t][h] = acc[t][h];
    }
    for (int t = 0; t < Nt; ++t)
        for (int h = 0; h < 2; ++h) {
            V re = product[0][t][h] - product[1][t][h];
            V im = product[2][t][h] - product[0][t][h] - product[1][t][h];
            V gr = load(g.row(0, t0 + t) + v + h * w), gi = load(g.row(1, t0 + t) + v + h * w);
            x[0][h] += gr * re - gi * im;
            x[1][h] += gr * im + gi * re;
        }
}

template <class T, int Nt>
void backproject(const Planes<T>& g, size_t t, size_t nt, size_t nr, const T* y, size_t v,
                 typename Simd<T>::type (&x)[2][2]) {
    if constexpr (Nt > 0) {
        for (; t + Nt <= nt; t += Nt) backproject_block<T, Nt>(g, t, nt, nr, y, v, x);
        if (t < nt) backproject<T, Nt - 1>(g, t, nt, nr, y, v, x);
    }
}

template <class T>
void born_adjoint(const Born<T>& b, const T* y, size_t first, size_t last, T* scratch, T* x) {
    using V = typename Simd<T>::type;
    constexpr size_t w = Simd<T>::width;
    const size_t nt = b.transmitters, na = b.antennas(), tile = b.tile, pairs = b.pairs();
    Planes<T> g{scratch, na, tile};
    T* scene = scratch + 3 * na * tile;
    for (size_t n = first; n < last; ++n) {
        for (size_t v = 0; v < 2 * tile; ++v) scene[v] = T(0);
        for (size_t k = 0; k < b.frequencies; ++k) {
            const T* base = b.base + ((k / b.segment) * b.tiles + n) * na * 2 * tile;
            for (size_t a = 0; a < na; ++a) {
                if (k % b.segment == 0) set_planes(g, a, base + a * 2 * tile);
                else multiply_planes(g, a, b.ratio + (n * na + a) * 2 * tile);
            }
            for (size_t v = 0; v < tile; v += 2 * w) {
                V sum[2][2] = {{load(scene + v), load(scene + v + w)},
                               {load(scene + tile + v), load(scene + tile + v + w)}};
                backproject<T, kTransmitters>(g, 0, nt, b.receivers, y + k * 3 * pairs, v, sum);
                for (int h = 0; h < 2; ++h) {
                    store(scene + v + h * w, sum[0][h]);
                    store(scene + tile + v + h * w, sum[1][h]);
                }
            }
        }
        for (size_t v = 0; v < tile && n * tile + v < b.voxels; ++v) {
            x[2 * (n * tile + v)] = scene[v];
            x[2 * (n * tile + v) + 1] = -scene[tile + v];
        }
    }
}

}  // namespace
