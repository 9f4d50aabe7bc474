// The largest modulus of an array.
#include <algorithm>
#include <complex>
#include <vector>

#include "binding.hpp"
#include "threads.hpp"

namespace sparsepriors {
namespace {

template <class T>
void bind(nb::module_& m, T (*InstructionSet::*kernel)(const T*, size_t)) {
    const auto largest = [kernel](const T* x, size_t count, size_t threads, const std::string& isa) -> double {
        T (*const modulus)(const T*, size_t) = chosen(isa).*kernel;
        const size_t piece = size_t(1) << 16, pieces = (count + piece - 1) / piece;
        if (pieces <= 1) return modulus(x, count);
        const Unlocked unlocked;
        std::vector<T> found(pieces);
        share(pieces, threads, [&](size_t p, size_t) {
            found[p] = modulus(x + p * piece, std::min(piece, count - p * piece));
        });
        return modulus(found.data(), pieces);
    };
    m.def("largest_modulus", [largest](Array<const T> x, size_t threads, const std::string& isa) {
        return largest(x.data(), x.size(), threads, isa);
    });
    m.def("largest_modulus", [largest](Array<const std::complex<T>> x, size_t threads, const std::string& isa) {
        return largest(reinterpret_cast<const T*>(x.data()), 2 * x.size(), threads, isa);
    });
}

}  // namespace

void bind_modulus(nb::module_& m) {
    bind<float>(m, &InstructionSet::modulus32);
    bind<double>(m, &InstructionSet::modulus64);
}

}  // namespace sparsepriors
