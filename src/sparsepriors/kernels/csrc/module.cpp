// The compiled kernels of sparsepriors, one nanobind module: argument checks, threads, and the choice of code path.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <stdexcept>
#include <string>
#include <vector>

#include "kernels.hpp"
#include "scratch.hpp"
#include "threads.hpp"
#include "topk.hpp"
#include "total_variation.hpp"

namespace nb = nanobind;
using namespace sparsepriors;

namespace {

template <class T>
using Array = nb::ndarray<T, nb::c_contig, nb::device::cpu>;

constexpr size_t kForwardPieces = 16;  // partial sums of the forward product: fixed, so that their order is

bool runs(const std::string& name) {
    if (name == "portable") return true;
#ifdef SPARSEPRIORS_X86
    __builtin_cpu_init();
    if (name == "avx2") return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    if (name == "avx512")
        return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
               __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
#endif
    return false;
}

const InstructionSet& chosen(const std::string& name) {
    if (!runs(name)) throw std::invalid_argument("this processor or build has no instruction set '" + name + "'");
#ifdef SPARSEPRIORS_X86
    if (name == "avx512") return avx512;
    if (name == "avx2") return avx2;
#endif
    return portable;
}

std::vector<std::string> instruction_sets() {
    std::vector<std::string> found;
    for (const char* name : {"avx512", "avx2", "portable"})
        if (runs(name)) found.emplace_back(name);
    return found;
}

void require(bool holds, const char* what) {
    if (!holds) throw std::invalid_argument(what);
}

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
    nb::gil_scoped_release release;
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
    nb::gil_scoped_release release;
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
bool nm(const Array<const T>& scores, int n, int m, const Array<uint8_t>& keep, size_t threads,
        const MaskKernels<T>& kernels) {
    require(keep.size() == scores.size() && m >= 1 && scores.size() % m == 0, "scores must fill whole groups");
    const size_t groups = scores.size() / m, piece = (size_t(1) << 16) / m + 1, pieces = (groups + piece - 1) / piece;
    const T* from = scores.data();
    uint8_t* to = keep.data();
    nb::gil_scoped_release release;
    std::atomic<bool> nan{false};
    share(pieces, threads, [&](size_t p, size_t) {
        const size_t first = p * piece, count = std::min(piece, groups - first);
        if (kernels.nm(from + first * m, count, n, m, to + first * m)) nan = true;
    });
    return nan;
}

template <class T>
bool topk(const Array<const T>& scores, size_t k, const Array<uint8_t>& keep, size_t threads) {
    require(keep.size() == scores.size() && k <= scores.size(), "k must not exceed the number of scores");
    const T* from = scores.data();
    uint8_t* to = keep.data();
    const size_t count = scores.size();
    nb::gil_scoped_release release;
    return topk_mask(from, count, k, to, std::max<size_t>(1, threads));
}

// Proximal points u, dual points p (overwritten) and relative gaps of a batch.
template <class T>
void tv(const Array<const T>& x, const Array<const T>& bounds, const Array<T>& p, const Array<T>& u,
        const Array<double>& gaps, int axes, bool isotropic, double tol, size_t max_iter, size_t threads,
        const VariationKernels<T>& kernels) {
    require(x.ndim() == 5 && u.size() == x.size() && p.size() == x.size() * axes, "x must be (n, parts, z, y, x)");
    require(bounds.size() == x.shape(0) && gaps.size() == x.shape(0), "every unknown needs a bound and a gap");
    const size_t items = x.shape(0), each = x.size() / std::max<size_t>(items, 1);
    const bool direct = axes == 1 && x.shape(1) == 1;
    const T *from = x.data(), *bound = bounds.data();
    T *dual = p.data(), *to = u.data();
    double* gap = gaps.data();
    const Variation<T> shape{nullptr, 0, x.shape(2), x.shape(3), x.shape(4), axes};
    nb::gil_scoped_release release;
    const size_t inside = items >= threads ? 1 : threads;  // threads within one unknown: only where there are too few
    share(items, inside == 1 ? threads : 1, [&](size_t i, size_t) {
        Variation<T> v = shape;
        v.x = from + i * each, v.bound = bound[i];
        gap[i] = direct ? tv_line(v.x, each, v.bound, dual + i * each, to + i * each)
                        : tv_solve(v, kernels, x.shape(1), tol, max_iter, inside, dual + i * each * axes, to + i * each);
    });
}

template <class T>
void bind(nb::module_& m, BornKernels<T> InstructionSet::*born, MaskKernels<T> InstructionSet::*mask,
          VariationKernels<T> (*InstructionSet::*variation)(int, int, bool)) {
    m.def("born_forward", [born](Array<const T> x, Array<const T> base, Array<const T> ratio, size_t transmitters,
                                 size_t segment, Array<T> y, size_t threads, const std::string& isa) {
        forward<T>(x, base, ratio, transmitters, segment, y, threads, chosen(isa).*born);
    });
    m.def("born_adjoint", [born](Array<const T> y, Array<const T> base, Array<const T> ratio, size_t segment,
                                 Array<T> x, size_t threads, const std::string& isa) {
        adjoint<T>(y, base, ratio, segment, x, threads, chosen(isa).*born);
    });
    m.def("nm_mask", [mask](Array<const T> scores, int n, int m, Array<uint8_t> keep, size_t threads,
                            const std::string& isa) { return nm<T>(scores, n, m, keep, threads, chosen(isa).*mask); });
    m.def("topk_mask", [](Array<const T> scores, size_t k, Array<uint8_t> keep, size_t threads) {
        return topk<T>(scores, k, keep, threads);
    });
    m.def("tv_prox", [variation](Array<const T> x, Array<const T> bounds, Array<T> p, Array<T> u, Array<double> gaps,
                                 int axes, bool isotropic, double tol, size_t max_iter, size_t threads,
                                 const std::string& isa) {
        require(axes >= 1 && axes <= 3 && x.ndim() == 5, "x must be (n, parts, z, y, x), with 1 to 3 axes");
        tv<T>(x, bounds, p, u, gaps, axes, isotropic, tol, max_iter, threads,
              (chosen(isa).*variation)(axes, static_cast<int>(x.shape(1)), isotropic));
    });
}

}  // namespace

NB_MODULE(_native, m) {
    m.doc() = "Compiled CPU kernels; the PyTorch references are in sparsepriors.kernels.reference.";
    m.def("instruction_sets", &instruction_sets, "Code paths that this processor runs, the fastest first.");
    bind<float>(m, &InstructionSet::born32, &InstructionSet::mask32, &InstructionSet::variation32);
    bind<double>(m, &InstructionSet::born64, &InstructionSet::mask64, &InstructionSet::variation64);
}
