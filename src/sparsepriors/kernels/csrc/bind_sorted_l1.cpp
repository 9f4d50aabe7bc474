// The proximal operator of the sorted l1 norm.
#include <algorithm>

#include "binding.hpp"
#include "sorted_l1.hpp"
#include "threads.hpp"

namespace sparsepriors {
namespace {

template <class T>
void rows(const Array<const T>& r, const Array<const T>& weights, const Array<const double>& steps, const Array<T>& out,
          size_t threads) {
    const size_t n = weights.size(), count = steps.size(), work = std::max<size_t>(1, (size_t(1) << 12) / (n + 1));
    require(r.size() == n * count && out.size() == r.size() && n < size_t(1) << 32, "r must be (len(steps), len(weights))");
    const T *from = r.data(), *w = weights.data();
    T* const to = out.data();
    const double* const step = steps.data();
    const Unlocked unlocked;
    share((count + work - 1) / work, threads, [&](size_t p, size_t) {
        const Scratch<uint64_t> scratch(2 * n);
        for (size_t i = p * work, end = std::min(count, i + work); i < end; ++i)
            sorted_l1_prox(from + i * n, n, w, step[i], to + i * n, scratch.data());
    });
}

}  // namespace

void bind_sorted_l1(nb::module_& m) {
    m.def("sorted_l1_prox", rows<float>);
    m.def("sorted_l1_prox", rows<double>);
}

}  // namespace sparsepriors
