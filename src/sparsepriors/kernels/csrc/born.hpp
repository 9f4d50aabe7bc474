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

// The real and imaginary planes of every antenna's propagator on one tile, at the current frequency.
template <class T>
struct Planes {
    T* data;
    size_t antennas, tile;
    T* row(int plane, size_t antenna) const { return data + (plane * antennas + antenna) * tile; }
    size_t plane() const { return antennas * tile; }
};

template <class T>
void set_planes(const Planes<T>& g, size_t a, const T* base) {
    for (size_t v = 0; v < g.tile; v += Simd<T>::width) {
        store(g.row(0, a) + v, load(base + v));
        store(g.row(1, a) + v, load(base + g.tile + v));
    }
}

// g *= factor, where factor has a real and an imaginary plane one tile apart.
template <class T>
void multiply_planes(const Planes<T>& g, size_t a, const T* factor) {
    T *gr = g.row(0, a), *gi = g.row(1, a);
    for (size_t v = 0; v < g.tile; v += Simd<T>::width) {
        auto re = load(gr + v), im = load(gi + v), fr = load(factor + v), fi = load(factor + g.tile + v);
        store(gr + v, re * fr - im * fi);
        store(gi + v, re * fi + im * fr);
    }
}

// What the three real products multiply: real parts, imaginary parts, and the sums of both.
enum Part { kReal, kImaginary, kBoth };

template <class T, Part P>
inline typename Simd<T>::type part(const T* row, size_t plane) {
    if constexpr (P == kReal) return load(row);
    if constexpr (P == kImaginary) return load(row + plane);
    if constexpr (P == kBoth) return load(row) + load(row + plane);
}

// sums[r * transmitters + t] = sum_v a[t][v] b[r][v] for a block of up to 4 x kReceivers rows.
template <class T, Part P, int Nt, int Nr>
void dot_block(const T* a, const T* b, size_t plane, size_t tile, size_t transmitters, T* sums) {
    typename Simd<T>::type acc[Nr][4] = {};
    size_t v = 0;
    do {  // a tile is never empty; the compiler then keeps every sum in a register
        typename Simd<T>::type rows[Nr];
        for (int r = 0; r < Nr; ++r) rows[r] = part<T, P>(b + r * tile + v, plane);
        for (int t = 0; t < Nt; ++t) {
            auto left = part<T, P>(a + t * tile + v, plane);
            for (int r = 0; r < Nr; ++r) acc[r][t] += left * rows[r];
        }
        v += Simd<T>::width;
    } while (v < tile);
    for (int r = 0; r < Nr; ++r) {
        T four[4];
        sum_lanes<T>(acc[r], four);
        for (int t = 0; t < Nt; ++t) sums[r * transmitters + t] = four[t];
    }
}

// Rows that the next block takes of `left`, so that blocks of at most `most` rows differ by one row at the most: thin
// blocks wait for memory.
inline size_t share_of(size_t left, size_t most) {
    const size_t blocks = (left + most - 1) / most;
    return (left + blocks - 1) / blocks;
}

template <class T, Part P, int Nt, int Nr>
void dot_rows(const T* a, const T* b, size_t plane, size_t rows, size_t tile, size_t transmitters, T* sums) {
    if constexpr (Nr > 0) {
        for (; rows > 0 && share_of(rows, kReceivers) == Nr; rows -= Nr, b += Nr * tile, sums += Nr * transmitters)
            dot_block<T, P, Nt, Nr>(a, b, plane, tile, transmitters, sums);
        dot_rows<T, P, Nt, Nr - 1>(a, b, plane, rows, tile, transmitters, sums);
    }
}

template <class T, Part P>
void dot_all(const T* a, const T* b, size_t plane, size_t nt, size_t nr, size_t tile, T* sums) {
    for (size_t t = 0, n; t < nt; t += n) {
        n = share_of(nt - t, 4);
        switch (n) {
            case 4: dot_rows<T, P, 4, kReceivers>(a + t * tile, b, plane, nr, tile, nt, sums + t); break;
            case 3: dot_rows<T, P, 3, kReceivers>(a + t * tile, b, plane, nr, tile, nt, sums + t); break;
            case 2: dot_rows<T, P, 2, kReceivers>(a + t * tile, b, plane, nr, tile, nt, sums + t); break;
            default: dot_rows<T, P, 1, kReceivers>(a + t * tile, b, plane, nr, tile, nt, sums + t); break;
        }
    }
}

template <class T>
void born_forward(const Born<T>& b, const T* x, size_t first, size_t last, T* scratch, T* y) {
    const size_t nt = b.transmitters, nr = b.receivers, na = b.antennas(), tile = b.tile, pairs = b.pairs();
    Planes<T> g{scratch, na, tile};
    T* scene = scratch + 2 * na * tile;
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
            const T *left = g.row(0, 0), *right = g.row(0, nt);
            dot_all<T, kReal>(left, right, g.plane(), nt, nr, tile, sums);
            dot_all<T, kImaginary>(left, right, g.plane(), nt, nr, tile, sums + pairs);
            dot_all<T, kBoth>(left, right, g.plane(), nt, nr, tile, sums + 2 * pairs);
            T *re = y + k * 2 * pairs, *im = re + pairs;
            for (size_t i = 0; i < pairs; ++i) {
                re[i] += sums[i] - sums[pairs + i];
                im[i] += sums[2 * pairs + i] - sums[i] - sums[pairs + i];
            }
        }
    }
}

// acc[t] = sum_r y[t][r] g[r] on two vectors of voxels, for a block of Nt transmitters.
template <class T, Part P, int Nt>
inline void weigh(const T* y, const T* rows, size_t plane, size_t nr, size_t tile, typename Simd<T>::type (&out)[Nt][2]) {
    typename Simd<T>::type acc[Nt][2] = {};
    size_t r = 0;
    do {  // there is always a receiver
        auto low = part<T, P>(rows + r * tile, plane), high = part<T, P>(rows + r * tile + Simd<T>::width, plane);
        for (int t = 0; t < Nt; ++t) {
            const T weight = y[t * nr + r];
            acc[t][0] += weight * low;
            acc[t][1] += weight * high;
        }
    } while (++r < nr);
    for (int t = 0; t < Nt; ++t)
        for (int h = 0; h < 2; ++h) out[t][h] = acc[t][h];
}

// x += sum_t g[t] * (sum_r y[t][r] g[r]) on two vectors of voxels, for a block of Nt transmitters.
template <class T, int Nt>
void backproject_block(const Planes<T>& g, size_t t0, size_t nt, size_t nr, const T* y, size_t v,
                       typename Simd<T>::type (&x)[2][2]) {
    using V = typename Simd<T>::type;
    constexpr size_t w = Simd<T>::width;
    V product[3][Nt][2];
    const T* rows = g.row(0, nt) + v;
    weigh<T, kReal, Nt>(y + t0 * nr, rows, g.plane(), nr, g.tile, product[0]);
    weigh<T, kImaginary, Nt>(y + (nt + t0) * nr, rows, g.plane(), nr, g.tile, product[1]);
    weigh<T, kBoth, Nt>(y + (2 * nt + t0) * nr, rows, g.plane(), nr, g.tile, product[2]);
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
        for (; t < nt && share_of(nt - t, kTransmitters) == Nt; t += Nt)
            backproject_block<T, Nt>(g, t, nt, nr, y, v, x);
        backproject<T, Nt - 1>(g, t, nt, nr, y, v, x);
    }
}

template <class T>
void born_adjoint(const Born<T>& b, const T* y, size_t first, size_t last, T* scratch, T* x) {
    using V = typename Simd<T>::type;
    constexpr size_t w = Simd<T>::width;
    const size_t nt = b.transmitters, na = b.antennas(), tile = b.tile, pairs = b.pairs();
    Planes<T> g{scratch, na, tile};
    T* scene = scratch + 2 * na * tile;
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
