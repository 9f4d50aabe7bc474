// Coordinate descent on a Gram matrix.
#include <nanobind/stl/pair.h>

#include <utility>

#include "binding.hpp"
#include "scratch.hpp"

namespace sparsepriors {

void bind_descent(nb::module_& m) {
    m.def("gram_descent", [](Array<const double> gram, Array<const double> linear, Array<double> x, Array<double> q,
                             int kind, Array<const double> weight, Array<const double> second, double factor,
                             double tol, size_t max_epochs, bool accelerate, const std::string& isa) {
        const size_t k = linear.size();
        require(gram.ndim() == 2 && gram.shape(0) >= k && gram.shape(1) >= k, "gram must hold a row per coordinate");
        require(x.size() == k && q.size() == k && weight.size() == k && second.size() == k,
                "linear, x, q, weight and second must be equally long");
        require(kind >= 0 && kind < Penalty::kinds, "kind must be one of the penalties");
        const Descent d{gram.data(), k, gram.shape(1), linear.data(), {kind, factor, weight.data(), second.data()},
                        accelerate};
        double *point = x.data(), *gradient = q.data();
        const auto& run = chosen(isa).descent.run;
        nb::gil_scoped_release release;
        const Scratch<double> scratch(d.scratch());
        double change = 0;
        const size_t done = run(d, point, gradient, tol, max_epochs, scratch.data(), &change);
        return std::pair<size_t, double>(done, change);
    });
}

}  // namespace sparsepriors
