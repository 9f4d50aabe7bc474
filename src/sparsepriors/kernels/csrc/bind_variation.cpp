// The prox of total variation.
#include <algorithm>

#include "binding.hpp"
#include "threads.hpp"
#include "total_variation.hpp"

namespace sparsepriors {
namespace {

// Proximal points u, dual points p (overwritten, and begun with zeros unless warm) and relative gaps of a batch.
template <class T>
void tv(const Array<const T>& x, const Array<const T>& bounds, const Array<T>& p, const Array<T>& u,
        const Array<double>& gaps, int axes, bool warm, double tol, size_t max_iter, size_t threads,
        const VariationKernels<T>& kernels) {
    require(x.ndim() == 5 && u.size() == x.size() && p.size() == x.size() * axes, "x must be (n, parts, z, y, x)");
    require(bounds.size() == x.shape(0) && gaps.size() == x.shape(0), "every unknown needs a bound and a gap");
    const size_t items = x.shape(0), each = x.size() / std::max<size_t>(items, 1);
    const bool direct = axes == 1 && x.shape(1) == 1;
    const T *from = x.data(), *bound = bounds.data();
    T *dual = p.data(), *to = u.data();
    double* gap = gaps.data();
    const Variation<T> shape{nullptr, 0, x.shape(2), x.shape(3), x.shape(4), axes};
    const Unlocked unlocked;
    const size_t inside = items >= threads ? 1 : threads;  // threads within one unknown: only where there are too few
    share(items, inside == 1 ? threads : 1, [&](size_t i, size_t) {
        Variation<T> v = shape;
        v.x = from + i * each, v.bound = bound[i];
        T *start = dual + i * each * axes, *result = to + i * each;
        if (!warm) std::fill_n(start, each * axes, T(0));
        gap[i] = direct ? tv_line(v.x, each, v.bound, start, result)
                        : tv_solve(v, kernels, x.shape(1), tol, max_iter, inside, start, result);
    });
}

template <class T>
void bind(nb::module_& m, VariationKernels<T> (*InstructionSet::*kernels)(int, int, bool)) {
    const auto a = nb::arg().noconvert();  // results are written to p, u and gaps, not to copies of another type
    m.def("tv_prox", [kernels](Array<const T> x, Array<const T> bounds, Array<T> p, Array<T> u, Array<double> gaps,
                               int axes, bool isotropic, bool warm, double tol, size_t max_iter, size_t threads,
                               const std::string& isa) {
        require(axes >= 1 && axes <= 3 && x.ndim() == 5, "x must be (n, parts, z, y, x), with 1 to 3 axes");
        tv<T>(x, bounds, p, u, gaps, axes, warm, tol, max_iter, threads,
              (chosen(isa).*kernels)(axes, static_cast<int>(x.shape(1)), isotropic));
    }, a, a, a, a, a, nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg());
}

}  // namespace

void bind_variation(nb::module_& m) {
    bind<float>(m, &InstructionSet::variation32);
    bind<double>(m, &InstructionSet::variation64);
}

}  // namespace sparsepriors
