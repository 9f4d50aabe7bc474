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

// Products of rows of x, of entries X, by kernels that read tables of them; y is float. Calls finish(row, rows, first
// output, last output) for every part of y that is done.
template <class X, class Choose, class Finish>
void products(const NMLinear& w, const X* x, size_t rows, float* y, size_t threads, const Choose& kernel_for,
              const Finish& finish) {
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
            const size_t first = p * units / pieces * kPanelsPerPiece;
            const size_t last = std::min(panels, (p + 1) * units / pieces * kPanelsPerPiece);
            kernel.product(w, first, last, tables.data(), count, y + row * w.out);
            finish(row, count, first * kNMRows, std::min(w.out, last * kNMRows));
        });
    }
}

// A packed weight whose arrays are kept alive. Python makes it once for many calls: taking an array over costs several
// microseconds.
class Layer {
   public:
    template <class V>
    Layer(Kept<const V> values, Kept<const uint8_t> places, std::optional<Kept<const float>> bias, size_t out,
          size_t in, size_t n, size_t m, int bits)
        : places_(places), bias_(bias), narrow_(!std::is_same_v<V, float>) {
        require(bits >= 1 && bits <= 5 && n >= 1 && n <= m && m <= size_t(1) << bits, "n, m and bits must fit together");
        require(in % m == 0, "rows must hold whole groups");
        w = {values.data(), places.data(), bias ? bias->data() : nullptr, out, in / m, (in / m * n + 1) / 2, n, m, bits};
        require(values.size() == w.panels() * w.pairs * 2 * kNMRows, "values must fill the pairs of every panel");
        require(places.size() >= w.panels() * w.pairs * 4 * static_cast<size_t>(bits) + 16, "places must fill every pair");
        require(!bias || bias->size() == out, "bias must be (out,)");
        if constexpr (std::is_same_v<V, float>) wide_values_ = values;
        else narrow_values_ = values;
    }

    void product(const Array<const float>& x, const Array<float>& y, size_t threads, const std::string& isa) const {
        const InstructionSet& set = fitting(x, y, isa);
        const float* from = x.data();
        float* to = y.data();
        const Unlocked unlocked;
        products(w, from, x.shape(0), to, threads, [&](size_t left) { return kernel(set, left); },
                 [](size_t, size_t, size_t, size_t) {});
    }

    void narrow_product(const Array<const Bfloat16>& x, const Array<Bfloat16>& y, size_t threads,
                        const std::string& isa) const {
        const InstructionSet& set = fitting(x, y, isa);
        const size_t rows = x.shape(0);
        const Bfloat16* from = x.data();
        Bfloat16* to = y.data();
        const Unlocked unlocked;
        const Scratch<float> sums(rows * w.out);
        const auto narrow = [&](size_t row, size_t count, size_t first, size_t last) {
            for (size_t at = row * w.out; at < (row + count) * w.out; at += w.out)
                std::transform(sums.data() + at + first, sums.data() + at + last, to + at + first, narrowed);
        };
        if (narrow_ && set.nm_dot(w, rows).product) {
            products(w, reinterpret_cast<const uint16_t*>(from), rows, sums.data(), threads,
                     [&](size_t left) { return set.nm_dot(w, left); }, narrow);
        } else {
            std::vector<float> wide(x.size());
            std::transform(from, from + wide.size(), wide.begin(), widened);
            products(w, wide.data(), rows, sums.data(), threads,
                     [&](size_t left) { return kernel(set, left); }, narrow);
        }
    }

   private:
    NMLinear w;
    Kept<const uint8_t> places_;
    std::optional<Kept<const float>> bias_;
    Kept<const float> wide_values_;
    Kept<const Bfloat16> narrow_values_;
    bool narrow_;

    NMLinearKernel kernel(const InstructionSet& set, size_t rows) const {
        return (narrow_ ? set.nm_linear16 : set.nm_linear32)(w, rows);
    }

    template <class X>
    const InstructionSet& fitting(const Array<const X>& x, const Array<X>& y, const std::string& isa) const {
        require(x.ndim() == 2 && x.shape(1) == w.groups * w.m, "x must be (rows, in)");
        require(y.ndim() == 2 && y.shape(0) == x.shape(0) && y.shape(1) == w.out, "y must be (rows, out)");
        return chosen(isa);
    }
};

template <class V>
using Init = nb::init<Kept<const V>, Kept<const uint8_t>, std::optional<Kept<const float>>, size_t, size_t, size_t,
                      size_t, int>;

}  // namespace

void bind_nm_linear(nb::module_& m) {
    nb::class_<Layer>(m, "NMLayer")
        .def(Init<float>(), nb::arg(), nb::arg(), nb::arg().none(), nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg())
        .def(Init<Bfloat16>(), nb::arg(), nb::arg(), nb::arg().none(), nb::arg(), nb::arg(), nb::arg(), nb::arg(),
             nb::arg())
        .def("product", &Layer::product)
        .def("product_bfloat16", &Layer::narrow_product);
}

}  // namespace sparsepriors
