// Linear layers with N:M sparse weights: rows of x in segments that share their tables, panels of outputs among threads.
#include <nanobind/stl/optional.h>

#include <algorithm>
#include <cstring>
#include <optional>
#include <type_traits>
#include <vector>

#include "binding.hpp"
#include "scratch.hpp"
#include "threads.hpp"

namespace sparsepriors {
namespace {

constexpr size_t kSegment = 64;         // rows of x whose tables are held at once
constexpr size_t kPanelsPerPiece = 4;   // as many as a kernel takes side by side
constexpr size_t kPiecesPerThread = 8;  // so that a thread that is late leaves work to the others
constexpr size_t kPairsPerThread = 1 << 13;  // of one row of x, below which a thread costs more than it saves

using Bfloat16 = int16_t;  // as Python hands it over

float widened(Bfloat16 v) {
    const uint32_t bits = static_cast<uint32_t>(static_cast<uint16_t>(v)) << 16;
    float out;
    std::memcpy(&out, &bits, sizeof out);
    return out;
}

Bfloat16 narrowed(float v) {  // to nearest, ties to even
    uint32_t bits;
    std::memcpy(&bits, &v, sizeof bits);
    return static_cast<Bfloat16>(v != v ? 0x7fc0 : (bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

// Products of rows of x, of entries X, by kernels that read tables of them; y is float.
template <class X, class Choose>
void products(const NMLinear& w, const X* x, size_t rows, float* y, size_t threads, const Choose& kernel_for) {
    const size_t in = w.groups * w.m, panels = w.panels();
    for (size_t row = 0, count; row < rows; row += count) {
        const NMKernel<X> kernel = kernel_for(rows - row);
        count = rows - row < kernel.batch ? rows - row : std::min(kSegment, (rows - row) / kernel.batch * kernel.batch);
        const size_t batches = (count + kernel.batch - 1) / kernel.batch, size = kernel.size(w);
        const Scratch<X> tables(batches * size);
        for (size_t b = 0; b < batches; ++b)
            kernel.fill(w, x + (row + b * kernel.batch) * in, std::min(kernel.batch, count - b * kernel.batch),
                        kernel.batch, tables.data() + b * size);
        const size_t used = std::max<size_t>(1, std::min(threads, panels * w.pairs * (1 + count / 4) / kPairsPerThread));
        const size_t units = (panels + kPanelsPerPiece - 1) / kPanelsPerPiece;
        const size_t pieces = used == 1 ? 1 : std::min(units, used * kPiecesPerThread);
        share(pieces, used, [&](size_t p, size_t) {
            kernel.product(w, p * units / pieces * kPanelsPerPiece,
                           std::min(panels, (p + 1) * units / pieces * kPanelsPerPiece), tables.data(), count,
                           y + row * w.out);
        });
    }
}

template <class X, class V>
void nm_linear(const Array<const X>& x, const Array<const V>& values, const Array<const uint8_t>& places,
               const std::optional<Array<const float>>& bias, size_t n, size_t m, int bits, const Array<X>& y,
               size_t threads, const InstructionSet& isa) {
    constexpr bool narrow_x = !std::is_same_v<X, float>, narrow_values = !std::is_same_v<V, float>;
    require(x.ndim() == 2 && y.ndim() == 2 && y.shape(0) == x.shape(0), "x and y must be (rows, in) and (rows, out)");
    require(bits >= 1 && bits <= 5 && n >= 1 && n <= m && m <= size_t(1) << bits, "n, m and bits must fit together");
    require(x.shape(1) % m == 0, "x must hold whole groups");
    NMLinear w{values.data(), places.data(), bias ? bias->data() : nullptr, y.shape(1), x.shape(1) / m, 0, n, m, bits};
    w.pairs = (w.groups * n + 1) / 2;
    require(values.size() == w.panels() * w.pairs * 2 * kNMRows, "values must fill the pairs of every panel");
    require(places.size() >= w.panels() * w.pairs * 4 * static_cast<size_t>(bits) + 16, "places must fill every pair");
    require(!bias || bias->size() == w.out, "bias must be (out,)");
    const size_t rows = x.shape(0);
    const X* from = x.data();
    X* to = y.data();
    nb::gil_scoped_release release;
    const auto kernel_for = [&](size_t left) { return (narrow_values ? isa.nm_linear16 : isa.nm_linear32)(w, left); };
    if constexpr (narrow_x) {
        std::vector<float> sums(rows * w.out);
        const bool dot = narrow_values && isa.nm_dot(w, rows).product;
        if (dot) {
            products(w, reinterpret_cast<const uint16_t*>(from), rows, sums.data(), threads,
                     [&](size_t left) { return isa.nm_dot(w, left); });
        } else {
            std::vector<float> wide(rows * x.shape(1));
            std::transform(from, from + wide.size(), wide.begin(), widened);
            products(w, wide.data(), rows, sums.data(), threads, kernel_for);
        }
        std::transform(sums.begin(), sums.end(), to, narrowed);
    } else {
        products(w, from, rows, to, threads, kernel_for);
    }
}

template <class X, class V>
void bind(nb::module_& m) {
    m.def("nm_linear",
          [](Array<const X> x, Array<const V> values, Array<const uint8_t> places,
             std::optional<Array<const float>> bias, size_t n, size_t m, int bits, Array<X> y, size_t threads,
             const std::string& isa) {
              nm_linear<X, V>(x, values, places, bias, n, m, bits, y, threads, chosen(isa));
          },
          nb::arg("x"), nb::arg("values"), nb::arg("places"), nb::arg("bias").none(), nb::arg("n"), nb::arg("m"),
          nb::arg("bits"), nb::arg("y"), nb::arg("threads"), nb::arg("instruction_set"));
}

}  // namespace

void bind_nm_linear(nb::module_& m) {
    bind<float, float>(m);
    bind<float, Bfloat16>(m);
    bind<Bfloat16, float>(m);
    bind<Bfloat16, Bfloat16>(m);
}

}  // namespace sparsepriors
