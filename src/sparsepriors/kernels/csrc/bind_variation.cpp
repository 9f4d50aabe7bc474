// The prox of total variation.
#include <algorithm>
#include <vector>

#include "binding.hpp"
#include "threads.hpp"
#include "total_variation.hpp"

namespace sparsepriors {
namespace {

// Writes the proximal points u and the dual points p (which begin with zeros unless warm) of a batch x (*batch, parts,
// *spatial), or without parts where there is one, and returns the largest relative gap.
template <class T>
double tv(const Array<const T>& x, const T* bounds, size_t count, const Array<T>& p, const Array<T>& u, int axes,
          int parts, bool warm, double tol, size_t max_iter, size_t threads, const VariationKernels<T>& kernels) {
    const size_t spatial = static_cast<size_t>(axes), inner = spatial + (parts > 1);
    require(x.ndim() >= inner && u.size() == x.size() && p.size() == x.size() * spatial, "x, u and p must fit each other");
    require(parts == 1 || x.shape(x.ndim() - inner) == static_cast<size_t>(parts), "x must be (*batch, parts, *spatial)");
    size_t sizes[3] = {1, 1, 1};  // planes, rows, columns
    for (size_t i = 0; i < spatial; ++i) sizes[2 - i] = x.shape(x.ndim() - 1 - i);
    const size_t each = parts * sizes[0] * sizes[1] * sizes[2], items = each ? x.size() / each : 0;
    require(count == items, "every unknown needs a bound");
    const bool direct = axes == 1 && parts == 1;
    const T* from = x.data();
    T *dual = p.data(), *to = u.data();
    const Variation<T> shape{nullptr, 0, sizes[0], sizes[1], sizes[2], axes};
    std::vector<double> gaps(items);
    const Unlocked unlocked;
    const size_t inside = items >= threads ? 1 : threads;  // threads within one unknown: only where there are too few
    share(items, inside == 1 ? threads : 1, [&](size_t i, size_t) {
        Variation<T> v = shape;
        v.x = from + i * each, v.bound = bounds[i];
        T *start = dual + i * each * axes, *result = to + i * each;
        if (!warm) std::fill_n(start, each * axes, T(0));
        gaps[i] = direct ? tv_line(v.x, each, v.bound, start, result)
                         : tv_solve(v, kernels, parts, tol, max_iter, inside, start, result);
    });
    return items ? *std::max_element(gaps.begin(), gaps.end()) : 0;
}

template <class T>
void bind(nb::module_& m, VariationKernels<T> (*InstructionSet::*kernels)(int, int, bool)) {
    const auto run = [kernels](const Array<const T>& x, const T* bounds, size_t count, const Array<T>& p,
                               const Array<T>& u, int axes, int parts, bool isotropic, bool warm, double tol,
                               size_t max_iter, size_t threads, const std::string& isa) {
        require(axes >= 1 && axes <= 3 && (parts == 1 || parts == 2), "there must be 1 to 3 axes and 1 or 2 parts");
        return tv<T>(x, bounds, count, p, u, axes, parts, warm, tol, max_iter, threads,
                     (chosen(isa).*kernels)(axes, parts, isotropic));
    };
    m.def("tv_prox", [run](Array<const T> x, Array<const T> bounds, Array<T> p, Array<T> u, int axes, int parts,
                           bool isotropic, bool warm, double tol, size_t max_iter, size_t threads,
                           const std::string& isa) {
        return run(x, bounds.data(), bounds.size(), p, u, axes, parts, isotropic, warm, tol, max_iter, threads, isa);
    });
    m.def("tv_prox", [run](Array<const T> x, double bound, Array<T> p, Array<T> u, int axes, int parts,
                           bool isotropic, bool warm, double tol, size_t max_iter, size_t threads,
                           const std::string& isa) {
        const T one = static_cast<T>(bound);
        return run(x, &one, 1, p, u, axes, parts, isotropic, warm, tol, max_iter, threads, isa);
    });
}

}  // namespace

void bind_variation(nb::module_& m) {
    bind<float>(m, &InstructionSet::variation32);
    bind<double>(m, &InstructionSet::variation64);
}

}  // namespace sparsepriors
