// Columns of a sparse matrix, compressed: products with a vector, products of one another, and sums. The same code for
// every processor, since what takes the time is to follow indices.
#include <nanobind/stl/optional.h>

#include <algorithm>
#include <limits>
#include <optional>
#include <type_traits>
#include <vector>

#include "binding.hpp"
#include "threads.hpp"

namespace sparsepriors {
namespace {

constexpr size_t kPiece = 32;              // columns that one piece of work takes
constexpr const char* kOutside = "rows must be from 0 to n - 1";
constexpr size_t kShort = 16;              // entries of a column that is summed as it comes
constexpr size_t kPass = 40;               // to lay an entry out takes as long as so many products
constexpr size_t kShared = size_t(1) << 17;  // products below which a thread is woken for longer than it helps

// Every index is looked at before it is followed: a matrix from elsewhere may hold any.
template <class I>
struct Columns {
    const double* values;
    const I* rows;
    const I* starts;
    size_t entries, count, height;

    size_t begin(size_t j) const { return static_cast<size_t>(starts[j]); }
    size_t end(size_t j) const {
        const size_t last = static_cast<size_t>(starts[j + 1]);
        require(starts[j] >= 0 && starts[j + 1] >= starts[j] && last <= entries, "starts must rise within the entries");
        return last;
    }
    size_t row(size_t e) const {
        const size_t i = static_cast<size_t>(rows[e]);
        require(i < height, kOutside);
        return i;
    }
};

template <class I>
Columns<I> columns(const Array<const double>& values, const Array<const I>& rows, const Array<const I>& starts,
                   size_t height) {
    require(values.size() == rows.size() && starts.size() > 0, "values and rows must be equally long, starts not empty");
    return {values.data(), rows.data(), starts.data(), values.size(), starts.size() - 1, height};
}

// The columns of a list, or all.
struct Picked {
    const int64_t* list;
    size_t count;
    size_t operator[](size_t i) const { return list ? static_cast<size_t>(list[i]) : i; }
};

Picked picked(const std::optional<Array<const int64_t>>& index, size_t columns) {
    if (!index) return {nullptr, columns};
    const int64_t* list = index->data();
    for (size_t i = 0; i < index->size(); ++i)
        require(list[i] >= 0 && static_cast<size_t>(list[i]) < columns, "a column must be from 0 to p - 1");
    return {list, index->size()};
}

template <class I>
size_t entries_of(const Columns<I>& x, const Picked& index) {
    if (!index.list) return x.count ? x.end(x.count - 1) : 0;
    size_t sum = 0;
    for (size_t i = 0; i < index.count; ++i) sum += x.end(index[i]) - x.begin(index[i]);
    return sum;
}

template <bool squared>
double entry(double v) {
    return squared ? v * v : v;
}

// One sum, or four of a longer column: their order does not depend on anything else.
template <bool squared, class I>
double product(const Columns<I>& x, size_t j, const double* r) {
    size_t e = x.begin(j);
    const size_t end = x.end(j);
    double sums[4] = {};
    if (end - e < kShort) {
        for (; e < end; ++e) sums[0] += entry<squared>(x.values[e]) * r[x.row(e)];
        return sums[0];
    }
    typedef std::make_unsigned_t<I> U;
    const U last = static_cast<U>(std::min(x.height, static_cast<size_t>(std::numeric_limits<I>::max()) + 1)) - 1;
    U signs = 0;  // the first bit of a row below zero, or of what it lacks to the last one, if it is beyond
    for (size_t i = e; i < end; ++i) signs |= static_cast<U>(x.rows[i]) | (last - static_cast<U>(x.rows[i]));
    require(static_cast<I>(signs) >= 0, kOutside);
    for (; e + 4 <= end; e += 4)
        for (size_t l = 0; l < 4; ++l) sums[l] += entry<squared>(x.values[e + l]) * r[x.rows[e + l]];
    for (; e < end; ++e) sums[0] += entry<squared>(x.values[e]) * r[x.rows[e]];
    return (sums[0] + sums[1]) + (sums[2] + sums[3]);
}

template <bool squared, class I>
void products(const Columns<I>& x, const Picked& index, const double* r, size_t tasks, double* out, size_t threads) {
    share((index.count + kPiece - 1) / kPiece, entries_of(x, index) * tasks < kShared ? 1 : threads,
          [&](size_t piece, size_t) {
              for (size_t i = piece * kPiece; i < std::min(index.count, (piece + 1) * kPiece); ++i) {
                  const size_t j = index[i];
                  double* sums = out + i * tasks;
                  if (tasks == 1) {
                      *sums = product<squared>(x, j, r);
                      continue;
                  }
                  std::fill(sums, sums + tasks, 0.0);
                  for (size_t e = x.begin(j), end = x.end(j); e < end; ++e) {
                      const double* row = r + x.row(e) * tasks;
                      for (size_t t = 0; t < tasks; ++t) sums[t] += entry<squared>(x.values[e]) * row[t];
                  }
              }
          });
}

template <class I>
void combination(const Columns<I>& x, const Picked& index, const double* coefficients, size_t tasks, double* out) {
    std::fill(out, out + x.height * tasks, 0.0);
    for (size_t i = 0; i < index.count; ++i) {
        const size_t j = index[i];
        for (size_t e = x.begin(j), end = x.end(j); e < end; ++e) {
            double* row = out + x.row(e) * tasks;
            for (size_t t = 0; t < tasks; ++t) row[t] += x.values[e] * coefficients[i * tasks + t];
        }
    }
}

// Long columns: each of those that are laid out is made dense in turn, and met by all of the others.
template <class I, class Put>
void gram_of_long(const Columns<I>& x, const Picked& laid, const Picked& met, const double* weights, const Put& put,
                  size_t threads) {
    std::vector<std::vector<double>> dense(std::max(std::min(threads, laid.count), size_t(1)));
    share(laid.count, threads, [&](size_t i, size_t thread) {
        std::vector<double>& column = dense[thread];
        column.resize(x.height, 0.0);
        const size_t begin = x.begin(laid[i]), end = x.end(laid[i]);
        for (size_t e = begin; e < end; ++e) {
            const size_t row = x.row(e);
            column[row] += weights[row] * x.values[e];
        }
        for (size_t j = 0; j < met.count; ++j) put(i, j, product<false>(x, met[j], column.data()));
        for (size_t e = begin; e < end; ++e) column[x.row(e)] = 0.0;
    });
}

// Short ones: the left columns are laid out by rows; each right one then meets only the entries in rows of its own.
template <class I>
void gram(const Columns<I>& x, const Picked& left, const Picked& right, const double* weights, double* out,
          size_t threads) {
    const size_t entries = entries_of(x, left), others = entries_of(x, right);
    if (entries + others < kShared) threads = 1;
    // In products that follow one another: a dense column is written and cleared, a layout is counted and filled.
    const size_t by_left = 2 * entries + left.count * others, by_right = 2 * others + right.count * entries;
    const size_t by_rows = 8 * entries + 2 * x.height + 2 * others * (1 + entries / (x.height + 1));
    if (std::min(by_left, by_right) < by_rows) {
        if (by_left < by_right)
            gram_of_long(x, left, right, weights, [&](size_t a, size_t b, double v) { out[b * left.count + a] = v; },
                         threads);
        else
            gram_of_long(x, right, left, weights, [&](size_t b, size_t a, double v) { out[b * left.count + a] = v; },
                         threads);
        return;
    }
    struct Entry {
        double value;
        size_t column;
    };
    std::vector<size_t> ends(x.height + 1, 0);
    std::vector<Entry> laid(entries);
    for (size_t a = 0; a < left.count; ++a)
        for (size_t e = x.begin(left[a]), end = x.end(left[a]); e < end; ++e) ++ends[x.row(e) + 1];
    for (size_t i = 0; i < x.height; ++i) ends[i + 1] += ends[i];
    for (size_t a = 0; a < left.count; ++a)
        for (size_t e = x.begin(left[a]), end = x.end(left[a]); e < end; ++e) {
            const size_t i = x.row(e);
            laid[ends[i]++] = {x.values[e] * weights[i], a};  // afterwards ends[i] is where row i ends
        }
    share((right.count + kPiece - 1) / kPiece, threads,
          [&](size_t piece, size_t) {
              for (size_t b = piece * kPiece; b < std::min(right.count, (piece + 1) * kPiece); ++b) {
                  double* sums = out + b * left.count;
                  std::fill(sums, sums + left.count, 0.0);
                  for (size_t e = x.begin(right[b]), end = x.end(right[b]); e < end; ++e) {
                      const size_t i = x.row(e);
                      const double v = x.values[e];
                      for (size_t at = i ? ends[i - 1] : 0; at < ends[i]; ++at)
                          sums[laid[at].column] += v * laid[at].value;
                  }
              }
          });
}

template <class I>
void bind(nb::module_& m) {
    typedef Array<const double> Values;
    typedef Array<const I> Indices;
    typedef std::optional<Array<const int64_t>> List;
    m.def("csc_products", [](Values values, Indices rows, Indices starts, Values r, List index, bool squared,
                             Array<double> out, size_t threads) {
        require(r.ndim() == 2, "r must be (n, tasks)");
        const Columns<I> x = columns<I>(values, rows, starts, r.shape(0));
        const Picked list = picked(index, x.count);
        const size_t tasks = r.shape(1);
        require(out.size() == list.count * tasks, "out must be (columns, tasks)");
        const double* vector = r.data();
        double* to = out.data();
        const Unlocked unlocked;
        (squared ? products<true, I> : products<false, I>)(x, list, vector, tasks, to, threads);
    });
    m.def("csc_combination", [](Values values, Indices rows, Indices starts, Values coefficients, List index,
                                Array<double> out) {
        require(coefficients.ndim() == 2 && out.ndim() == 2 && out.shape(1) == coefficients.shape(1),
                "coefficients must be (columns, tasks), out (n, tasks)");
        const Columns<I> x = columns<I>(values, rows, starts, out.shape(0));
        const Picked list = picked(index, x.count);
        require(coefficients.shape(0) == list.count, "coefficients must have a row for every column");
        const size_t tasks = out.shape(1);
        const double* from = coefficients.data();
        double* to = out.data();
        const Unlocked unlocked;
        combination(x, list, from, tasks, to);
    });
    m.def("csc_gram", [](Values values, Indices rows, Indices starts, List left, List right, Values weights,
                         Array<double> out, size_t threads) {
        const Columns<I> x = columns<I>(values, rows, starts, weights.size());
        const Picked a = picked(left, x.count), b = picked(right, x.count);
        require(out.size() == a.count * b.count, "out must be (right, left)");
        const double* scale = weights.data();
        double* to = out.data();
        const Unlocked unlocked;
        gram(x, a, b, scale, to, threads);
    });
}

}  // namespace

void bind_csc(nb::module_& m) {
    bind<int32_t>(m);
    bind<int64_t>(m);
}

}  // namespace sparsepriors
