// Coordinate descent on a Gram matrix, and what it asks of all columns.
#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/tuple.h>

#include <algorithm>
#include <optional>
#include <tuple>
#include <utility>

#include "binding.hpp"
#include "scratch.hpp"
#include "threads.hpp"

namespace sparsepriors {
namespace {

// The length of the longest of groups that must lie one after the other within k coordinates.
size_t largest_group(const int64_t* starts, size_t groups, size_t k) {
    int64_t largest = 0;
    for (size_t g = 0; g < groups; ++g) {
        require(starts[g] >= 0 && starts[g] <= starts[g + 1], "starts must not fall");
        largest = std::max(largest, starts[g + 1] - starts[g]);
    }
    require(starts[groups] <= static_cast<int64_t>(k), "starts must end within the coordinates");
    return static_cast<size_t>(largest);
}

constexpr size_t kPiece = 1 << 17;  // entries of the columns that one piece of work multiplies

template <class T>
void bind_products(nb::module_& m, void (*DescentKernels::*kernel)(const T*, size_t, size_t, size_t, const double*,
                                                                   const bool*, double*)) {
    m.def("column_products", [kernel](Array<const T> columns, Array<const double> r,
                                      std::optional<Array<const bool>> keep, Array<double> out, size_t threads,
                                      const std::string& isa) {
        const size_t p = out.size(), n = r.size();
        require(columns.size() == p * n && (!keep || keep->size() == p), "columns must be (p, n), keep (p,)");
        const T* rows = columns.data();
        const double* vector = r.data();
        const bool* kept = keep ? keep->data() : nullptr;
        double* to = out.data();
        const auto run = chosen(isa).descent.*kernel;
        const size_t each = std::max<size_t>(kPiece / std::max<size_t>(n, 1), 1);
        const Unlocked unlocked;
        share((p + each - 1) / each, threads,
              [&](size_t i, size_t) { run(rows, n, i * each, std::min(p, (i + 1) * each), vector, kept, to); });
    });
}

}  // namespace

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
        const Unlocked unlocked;
        const Scratch<double> scratch(descent_scratch(d));
        double change = 0;
        const size_t done = run(d, point, gradient, tol, max_epochs, scratch.data(), &change);
        return std::pair<size_t, double>(done, change);
    });
    m.def("gram_group_descent", [](Array<const double> gram, Array<const double> linear, Array<double> x,
                                   Array<double> q, Array<const int64_t> starts, Array<const double> curvature,
                                   int kind, Array<const double> weight, Array<const double> second, double factor,
                                   double tol, size_t max_epochs, bool accelerate, const std::string& isa) {
        require(linear.ndim() == 2 && starts.size() > 0, "linear must be (k, tasks), starts hold a number at least");
        const size_t k = linear.shape(0), groups = starts.size() - 1;
        require(gram.ndim() == 2 && gram.shape(0) >= k && gram.shape(1) >= k, "gram must hold a row per coordinate");
        require(x.size() == linear.size() && q.size() == linear.size(), "linear, x and q must be equally long");
        require(curvature.size() == groups && weight.size() == groups && second.size() == groups,
                "curvature, weight and second must hold a number for every group");
        require(kind >= 0 && kind < Penalty::kinds, "kind must be one of the penalties");
        GroupDescent d{gram.data(), k, gram.shape(1), linear.shape(1), linear.data(), groups, starts.data(),
                       curvature.data(), {kind, factor, weight.data(), second.data()}, accelerate, nullptr};
        const size_t largest = largest_group(d.starts, groups, k);
        double *point = x.data(), *gradient = q.data();
        const auto& run = chosen(isa).descent.run_groups;
        const Unlocked unlocked;
        const Scratch<double> scratch(descent_scratch(d)), moves(largest * d.tasks);
        d.moves = moves.data();
        double change = 0;
        const size_t done = run(d, point, gradient, tol, max_epochs, scratch.data(), &change);
        return std::pair<size_t, double>(done, change);
    });
    m.def("block_descent", [](Array<const double> columns, Array<const double> squares, Array<double> x, Array<double> r,
                              Array<const int64_t> starts, int kind, Array<const double> weight,
                              Array<const double> second, double factor, double tol, size_t max_epochs, bool accelerate,
                              const std::string& isa) {
        require(columns.ndim() == 2 && x.ndim() == 2 && r.ndim() == 2 && starts.size() > 0,
                "columns must be (k, n), x (k, tasks), r (n, tasks), starts hold a number at least");
        const size_t k = columns.shape(0), n = columns.shape(1), tasks = x.shape(1), groups = starts.size() - 1;
        require(x.shape(0) == k && squares.size() == k && r.shape(0) == n && r.shape(1) == tasks,
                "columns, squares, x and r must belong together");
        require(weight.size() == groups && second.size() == groups, "weight and second must have a number for a group");
        require(kind >= 0 && kind < Penalty::kinds, "kind must be one of the penalties");
        BlockDescent d{columns.data(), k, n, tasks, squares.data(), groups, starts.data(),
                       {kind, factor, weight.data(), second.data()}, accelerate, nullptr};
        const size_t largest = largest_group(d.starts, groups, k);
        double *point = x.data(), *rest = r.data();
        const auto& run = chosen(isa).descent.run_blocks;
        const Unlocked unlocked;
        const Scratch<double> scratch(descent_scratch(d)), moves(largest * tasks);
        d.moves = moves.data();
        double change = 0;
        const size_t done = run(d, point, rest, tol, max_epochs, scratch.data(), &change);
        return std::pair<size_t, double>(done, change);
    });
    m.def("gram_newton", [](Array<const double> gram, Array<const double> linear, Array<double> x, Array<double> q,
                            int kind, Array<const double> weight, Array<const double> second, double factor,
                            size_t max_steps, const std::string& isa) {
        const size_t k = linear.size();
        require(gram.ndim() == 2 && gram.shape(0) >= k && gram.shape(1) >= k, "gram must hold a row per coordinate");
        require(x.size() == k && q.size() == k && weight.size() == k && second.size() == k,
                "linear, x, q, weight and second must be equally long");
        require(kind == Penalty::elastic || kind == Penalty::positive, "kind must be elastic or positive");
        const Descent d{gram.data(), k, gram.shape(1), linear.data(), {kind, factor, weight.data(), second.data()},
                        false};
        double *point = x.data(), *gradient = q.data();
        const auto& run = chosen(isa).descent.newton;
        const Unlocked unlocked;
        const size_t support = k - static_cast<size_t>(std::count(point, point + k, 0.0));
        const size_t room = (support + 3) / 4 * 4, stride = (room + 7) / 8 * 8 + 8;  // rows apart by no power of two
        const Scratch<double> numbers(2 * room * stride + 3 * room);
        const Scratch<size_t> indices(room);
        const Scratch<std::pair<double, size_t>> kinks(room);
        double* hessian = numbers.data();
        run(d, max_steps, point, gradient, {room, stride, hessian, hessian + room * stride, hessian + 2 * room * stride,
                                            indices.data(), kinks.data()});
    });
    m.def("optimality", [](Array<const double> x, Array<const double> q, Array<const double> curvature, int kind,
                           Array<const double> weight, Array<const double> second, double factor, double residual,
                           double projection, Array<double> violation, Array<bool> active, const std::string& isa) {
        const size_t p = x.size();
        require(q.size() == p && curvature.size() == p && weight.size() == p && second.size() == p &&
                    violation.size() == p && active.size() == p,
                "x, q, curvature, weight and second must be equally long");
        require(kind >= 0 && kind < Penalty::kinds, "kind must be one of the penalties");
        const Optimality found =
            chosen(isa).descent.optimality({kind, factor, weight.data(), second.data()}, p, x.data(), q.data(),
                                           curvature.data(), residual, projection, violation.data(), active.data());
        return std::tuple<double, double, double>(found.violation, found.value, found.gap);
    });
    bind_products<float>(m, &DescentKernels::products32);
    bind_products<double>(m, &DescentKernels::products64);
}

}  // namespace sparsepriors
