// The Born kernels: partial sums in a fixed order.
#include <algorithm>
#include <vector>

#include "binding.hpp"
#include "scratch.hpp"
#include "threads.hpp"

namespace sparsepriors {
namespace {

constexpr size_t kForwardPieces = 16;  // partial sums of the forward product: fixed, so that their order is

template <class T>
Born<T> born(const Array<const T>& base, const Array<const T>& ratio, size_t voxels, size_t transmitters,
             size_t frequencies, size_t segment) {
    require(base.ndim() == 5 && ratio.ndim() == 4, "tables must have 5 and 4 axes");
    const size_t segments = base.shape(0), tiles = base.shape(1), antennas = base.shape(2), tile = base.shape(4);
    require(base.shape(3) == 2 && tile % 32 == 0, "tables must hold planes of a multiple of 32 voxels");
    for (size_t i = 0; i < 4; ++i) require(ratio.shape(i) == base.shape(i + 1), "base and ratio must agree in shape");
    require(transmitters > 0 && transmitters < antennas, "tables must hold transmitters and receivers");
    require(voxels <= tiles * tile, "tables must hold every voxel");
    require(segment > 0 && segments * segment >= frequencies, "tables must hold every frequency");
    return {base.data(), ratio.data(), tiles, tile, voxels, transmitters, antennas - transmitters, frequencies, segment};
}

template <class T>
void forward(const Array<const T>& x, const Array<const T>& base, const Array<const T>& ratio, size_t transmitters,
             size_t segment, const Array<T>& y, size_t threads, const BornKernels<T>& kernels) {
    require(x.ndim() == 3 && x.shape(2) == 2, "x must be (batch, voxels, 2)");
    require(y.ndim() == 5 && y.shape(4) == 2 && y.shape(0) == x.shape(0), "y must be (batch, K, T, R, 2)");
    const auto b = born<T>(base, ratio, x.shape(1), transmitters, y.shape(1), segment);
    require(y.shape(2) == b.transmitters && y.shape(3) == b.receivers, "y must be (batch, K, T, R, 2)");
    const size_t batch = x.shape(0), each = b.frequencies * b.pairs(), pieces = std::min(b.tiles, kForwardPieces);
    const T* from = x.data();
    T* to = y.data();
    const Unlocked unlocked;
    threads = std::max<size_t>(1, std::min(threads, batch * pieces));
    const size_t room = born_scratch(b);
    const Scratch<T> scratch(threads * room);
    std::vector<T> part(pieces * each * 2);
    for (size_t n = 0; n < batch; ++n) {
        std::fill(part.begin(), part.end(), T(0));
        share(pieces, threads, [&](size_t p, size_t t) {
            kernels.forward(b, from + n * b.voxels * 2, p * b.tiles / pieces, (p + 1) * b.tiles / pieces,
                            scratch.data() + t * room, part.data() + p * each * 2);
        });
        for (size_t p = 1; p < pieces; ++p)
            for (size_t i = 0; i < 2 * each; ++i) part[i] += part[p * each * 2 + i];
        for (size_t k = 0; k < b.frequencies; ++k)
            for (size_t t = 0; t < b.transmitters; ++t)
                for (size_t r = 0; r < b.receivers; ++r)
                    for (size_t c = 0; c < 2; ++c)
                        to[(((n * b.frequencies + k) * b.transmitters + t) * b.receivers + r) * 2 + c] =
                            part[(k * 2 + c) * b.pairs() + r * b.transmitters + t];
    }
}

template <class T>
void adjoint(const Array<const T>& y, const Array<const T>& base, const Array<const T>& ratio, size_t segment,
             const Array<T>& x, size_t threads, const BornKernels<T>& kernels) {
    require(y.ndim() == 5 && y.shape(4) == 2, "y must be (batch, K, T, R, 2)");
    require(x.ndim() == 3 && x.shape(2) == 2 && x.shape(0) == y.shape(0), "x must be (batch, voxels, 2)");
    const auto b = born<T>(base, ratio, x.shape(1), y.shape(2), y.shape(1), segment);
    require(y.shape(3) == b.receivers, "y must have the receivers of the tables");
    const size_t batch = y.shape(0), each = b.frequencies * b.pairs();
    const T* from = y.data();
    T* to = x.data();
    const Unlocked unlocked;
    threads = std::max<size_t>(1, std::min(threads, batch * b.tiles));
    const size_t room = born_scratch(b);
    const Scratch<T> scratch(threads * room);
    std::vector<T> planes(batch * each * 3);
    for (size_t n = 0; n < batch * b.frequencies; ++n)
        for (size_t i = 0; i < b.pairs(); ++i) {
            const T re = from[(n * b.pairs() + i) * 2], im = -from[(n * b.pairs() + i) * 2 + 1];
            T* plane = planes.data() + n * 3 * b.pairs() + i;
            plane[0] = re, plane[b.pairs()] = im, plane[2 * b.pairs()] = re + im;
        }
    share(batch * b.tiles, threads, [&](size_t piece, size_t t) {
        const size_t n = piece / b.tiles, tile = piece % b.tiles;
        kernels.adjoint(b, planes.data() + n * each * 3, tile, tile + 1, scratch.data() + t * room,
                        to + n * b.voxels * 2);
    });
}

template <class T>
void bind(nb::module_& m, BornKernels<T> InstructionSet::*kernels) {
    m.def("born_forward", [kernels](Array<const T> x, Array<const T> base, Array<const T> ratio, size_t transmitters,
                                    size_t segment, Array<T> y, size_t threads, const std::string& isa) {
        forward<T>(x, base, ratio, transmitters, segment, y, threads, chosen(isa).*kernels);
    });
    m.def("born_adjoint", [kernels](Array<const T> y, Array<const T> base, Array<const T> ratio, size_t segment,
                                    Array<T> x, size_t threads, const std::string& isa) {
        adjoint<T>(y, base, ratio, segment, x, threads, chosen(isa).*kernels);
    });
}

}  // namespace

void bind_born(nb::module_& m) {
    bind<float>(m, &InstructionSet::born32);
    bind<double>(m, &InstructionSet::born64);
}

}  // namespace sparsepriors
