// Matching pursuit on a Gram matrix: rows among threads.
#include <algorithm>

#include "binding.hpp"
#include "scratch.hpp"
#include "threads.hpp"

namespace sparsepriors {
namespace {

constexpr size_t kRowsPerPiece = 16;

template <class T>
void pursuits(const Array<const T>& correlation, const Array<const T>& gram, const Array<const double>& energy,
              size_t steps, double tol, bool nonneg, bool stop_on_repeat, const Array<int64_t>& atoms,
              const Array<T>& values, size_t threads, const PursuitKernels<T>& kernels) {
    require(correlation.ndim() == 2 && atoms.ndim() == 2 && values.ndim() == 2,
            "correlation, atoms and values must have two axes");
    const size_t rows = correlation.shape(0), units = correlation.shape(1);
    require(units > 0, "correlation must have at least one unit");
    require(gram.ndim() == 2 && gram.shape(0) == units && gram.shape(1) == units, "gram must be (units, units)");
    require(energy.size() == rows, "energy must hold a number for each row");
    require(atoms.shape(0) == rows && atoms.shape(1) == steps, "atoms must be (rows, steps)");
    require(values.shape(0) == rows && values.shape(1) == steps, "values must be (rows, steps)");
    const Pursuit<T> problem{gram.data(), units, steps, tol, nonneg, stop_on_repeat};
    const T* from = correlation.data();
    const double* squares = energy.data();
    int64_t* index = atoms.data();
    T* to = values.data();
    Unlocked unlocked;
    share((rows + kRowsPerPiece - 1) / kRowsPerPiece, threads, [&](size_t piece, size_t) {
        const Scratch<T> c(units);
        for (size_t r = piece * kRowsPerPiece; r < std::min(rows, (piece + 1) * kRowsPerPiece); ++r) {
            std::copy(from + r * units, from + (r + 1) * units, c.data());
            const size_t made = kernels.run(problem, c.data(), squares[r], index + r * steps, to + r * steps);
            std::fill(index + r * steps + made, index + (r + 1) * steps, int64_t{-1});
            std::fill(to + r * steps + made, to + (r + 1) * steps, T{0});
        }
    });
}

template <class T>
void bind(nb::module_& m, PursuitKernels<T> InstructionSet::*kernels) {
    m.def("gram_pursuit", [kernels](Array<const T> correlation, Array<const T> gram, Array<const double> energy,
                                    size_t steps, double tol, bool nonneg, bool stop_on_repeat, Array<int64_t> atoms,
                                    Array<T> values, size_t threads, const std::string& isa) {
        pursuits<T>(correlation, gram, energy, steps, tol, nonneg, stop_on_repeat, atoms, values, threads,
                    chosen(isa).*kernels);
    });
}

}  // namespace

void bind_pursuit(nb::module_& m) {
    bind<float>(m, &InstructionSet::pursuit32);
    bind<double>(m, &InstructionSet::pursuit64);
}

}  // namespace sparsepriors
