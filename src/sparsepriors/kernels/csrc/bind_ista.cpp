// Sparse codes on a Gram matrix: rows among threads.
#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "binding.hpp"
#include "scratch.hpp"
#include "threads.hpp"

namespace sparsepriors {
namespace {

constexpr size_t kRowsPerPiece = 16;

// The largest modulus up to which the prox is certainly zero, of step t and the numbers of a penalty; negative if there
// is none.
double edge(int kind, double t, double w, double s) {
    switch (kind) {
        case Penalty::elastic:
        case Penalty::positive: return t * w;
        case Penalty::l0: return std::sqrt(2 * w * t);
        case Penalty::mcp: return t >= s ? w * std::sqrt(t * s) : t * w;
        case Penalty::scad: return std::min(t * w, w * (t <= s + 1 ? (s + 1 + t) / 2 : std::sqrt(t * (s + 1))));
        case Penalty::log_sum: return t * w <= s * s ? t * w / s : std::max(2 * std::sqrt(t * w) - s, 0.0);
        case Penalty::power: return (2 - s) * std::pow(2 * t * w * (1 - s), 1 / (2 - s)) / (2 * (1 - s));
        default: return -1;
    }
}

template <class T>
void codes(const Array<const T>& linear, const Array<const T>& gram, const Array<T>& x, int kind,
           const Array<const double>& weight, const Array<const double>& second, double factor, double step, double tol,
           double floor, size_t max_steps, const Array<int64_t>& steps, size_t threads, const IstaKernels<T>& kernels) {
    require(linear.ndim() == 2 && x.ndim() == 2, "linear and x must be (rows, units)");
    const size_t rows = linear.shape(0), units = linear.shape(1);
    require(x.shape(0) == rows && x.shape(1) == units, "x must have the shape of linear");
    require(gram.ndim() == 2 && gram.shape(0) == units && gram.shape(1) == units, "gram must be (units, units)");
    require(weight.size() == units && second.size() == units, "weight and second must hold a number for each unit");
    require(steps.size() == rows, "steps must hold a number for each row");
    require(kind >= 0 && kind < Penalty::kinds, "kind must be one of the penalties");
    std::vector<double> edges(units);
    std::vector<T> dead(units);
    for (size_t j = 0; j < units; ++j) {
        edges[j] = edge(kind, step * factor, weight.data()[j], second.data()[j]);
        // Log-sum's edge is found by comparing values, and rounding may put any edge on either side.
        dead[j] = static_cast<T>(edges[j] - 4 * std::numeric_limits<T>::epsilon() * std::abs(edges[j]));
    }
    const Ista<T> problem{gram.data(), units, {kind, factor, weight.data(), second.data()}, edges.data(), dead.data(),
                          step, tol, floor, max_steps};
    const T* from = linear.data();
    T* to = x.data();
    int64_t* made = steps.data();
    const Unlocked unlocked;
    share((rows + kRowsPerPiece - 1) / kRowsPerPiece, threads, [&](size_t piece, size_t) {
        const Scratch<T> v(units);
        const Scratch<int32_t> lists(2 * units);
        for (size_t r = piece * kRowsPerPiece; r < std::min(rows, (piece + 1) * kRowsPerPiece); ++r)
            made[r] = static_cast<int64_t>(kernels.run(problem, from + r * units, to + r * units, v.data(), lists.data()));
    });
}

template <class T>
void bind(nb::module_& m, IstaKernels<T> InstructionSet::*kernels) {
    m.def("gram_ista", [kernels](Array<const T> linear, Array<const T> gram, Array<T> x, int kind,
                                 Array<const double> weight, Array<const double> second, double factor, double step,
                                 double tol, double floor, size_t max_steps, Array<int64_t> steps, size_t threads,
                                 const std::string& isa) {
        codes<T>(linear, gram, x, kind, weight, second, factor, step, tol, floor, max_steps, steps, threads,
                 chosen(isa).*kernels);
    });
}

}  // namespace

void bind_ista(nb::module_& m) {
    bind<float>(m, &InstructionSet::ista32);
    bind<double>(m, &InstructionSet::ista64);
}

}  // namespace sparsepriors
