// Codes of few nonzeros: the largest scores, and products with the rows that they name.
#include <algorithm>
#include <atomic>
#include <cmath>
#include <functional>
#include <limits>
#include <vector>

#include "binding.hpp"
#include "scratch.hpp"
#include "threads.hpp"

namespace sparsepriors {
namespace {

constexpr size_t kRows = 64;          // of scores, or of entries, in a piece of work
constexpr size_t kSample = 1 << 14;   // scores from which a threshold is guessed
constexpr size_t kSpread = 97;        // a stride that shares no factor with usual widths
constexpr double kLower = 0.7;        // a row's guess, of the threshold that the last row had

// Entries found in a piece of rows.
template <class T>
struct Found {
    std::vector<int64_t> counts;
    std::vector<int32_t> indices;
    std::vector<T> values;
};

// The value of rank `room` (from 1) among values, the largest first; reorders them.
template <class T>
T ranked(std::vector<T>& values, size_t room) {
    std::nth_element(values.begin(), values.begin() + (room - 1), values.end(), std::greater<T>());
    return values[room - 1];
}

template <class T>
constexpr T kLeast = std::numeric_limits<T>::denorm_min();

// The `room` largest positive scores of every row.
template <class T>
bool of_rows(const T* scores, size_t rows, size_t n, size_t room, std::vector<Found<T>>& found, size_t threads,
             const CodeKernels<T>& kernels) {
    std::atomic<bool> nan{false};
    share(found.size(), threads, [&](size_t piece, size_t) {
        Found<T>& f = found[piece];
        const Scratch<int32_t> list(n + 1);
        std::vector<T> values;
        T guess = kLeast<T>;
        for (size_t r = piece * kRows; r < std::min(rows, (piece + 1) * kRows); ++r) {
            const T* s = scores + r * n;
            bool bad = false;
            size_t count = kernels.reaching(s, n, guess, list.data(), &bad);
            if (count < room && guess > kLeast<T>) count = kernels.reaching(s, n, guess = kLeast<T>, list.data(), &bad);
            if (bad) {
                nan = true;
                return;
            }
            T least = kLeast<T>;
            size_t level = count;  // of the entries equal to `least`, how many are kept
            if (count > room) {
                values.clear();
                for (size_t c = 0; c < count; ++c) values.push_back(s[list.data()[c]]);
                least = ranked(values, room);
                level = room;
                for (size_t c = 0; c < count; ++c) level -= s[list.data()[c]] > least;
                guess = std::max(kLeast<T>, static_cast<T>(kLower * least));
            }
            int64_t kept = 0;
            for (size_t c = 0; c < count; ++c) {
                const int32_t i = list.data()[c];
                if (s[i] < least || (s[i] == least && level == 0)) continue;
                level -= s[i] == least;
                f.indices.push_back(i);
                f.values.push_back(s[i]);
                ++kept;
            }
            f.counts.push_back(kept);
        }
    });
    return nan;
}

// A threshold that about `room` of the scores reach, rather more than fewer.
template <class T>
T guessed(const T* scores, size_t count, size_t room) {
    if (count < 4 * kSample) return kLeast<T>;
    std::vector<T> sample(kSample);
    const size_t stride = count / kSample;
    for (size_t i = 0; i < kSample; ++i) sample[i] = scores[i * stride + (i * kSpread) % stride];
    for (T& s : sample)
        if (s != s) s = 0;
    const double share = static_cast<double>(room) / static_cast<double>(count) * kSample;
    const size_t rank = static_cast<size_t>(1.1 * share + 3 * std::sqrt(share)) + 1;
    return rank >= kSample ? kLeast<T> : std::max(kLeast<T>, ranked(sample, rank));
}

// The `room` largest positive scores of all rows together.
template <class T>
bool of_all(const T* scores, size_t rows, size_t n, size_t room, std::vector<Found<T>>& found, size_t threads,
            const CodeKernels<T>& kernels) {
    std::atomic<bool> nan{false};
    T guess = guessed(scores, rows * n, room);
    size_t total = 0;
    while (true) {
        share(found.size(), threads, [&](size_t piece, size_t) {
            Found<T>& f = found[piece];
            f = {};
            const Scratch<int32_t> list(n + 1);
            for (size_t r = piece * kRows; r < std::min(rows, (piece + 1) * kRows); ++r) {
                bool bad = false;
                const size_t count = kernels.reaching(scores + r * n, n, guess, list.data(), &bad);
                if (bad) nan = true;
                f.counts.push_back(static_cast<int64_t>(count));
                f.indices.insert(f.indices.end(), list.data(), list.data() + count);
                for (size_t c = 0; c < count; ++c) f.values.push_back(scores[r * n + list.data()[c]]);
            }
        });
        if (nan) return true;
        total = 0;
        for (const Found<T>& f : found) total += f.values.size();
        if (total >= room || !(guess > kLeast<T>)) break;
        guess = kLeast<T>;
    }
    if (total <= room) return false;
    std::vector<T> values;
    values.reserve(total);
    for (const Found<T>& f : found) values.insert(values.end(), f.values.begin(), f.values.end());
    const T least = ranked(values, room);
    size_t level = room;
    for (const Found<T>& f : found)
        for (const T v : f.values) level -= v > least;
    for (Found<T>& f : found) {
        size_t from = 0, to = 0;
        for (int64_t& count : f.counts) {
            int64_t kept = 0;
            for (int64_t c = 0; c < count; ++c, ++from) {
                const T v = f.values[from];
                if (v < least || (v == least && level == 0)) continue;
                level -= v == least;
                f.indices[to] = f.indices[from];
                f.values[to++] = v;
                ++kept;
            }
            count = kept;
        }
        f.indices.resize(to);
        f.values.resize(to);
    }
    return false;
}

// Fills starts, indices and values; -1 for a NaN among the scores, else how many entries there are.
template <class T>
int64_t largest(const Array<const T>& scores, size_t room, bool per_row, const Array<int64_t>& starts,
                const Array<int32_t>& indices, const Array<T>& values, size_t threads, const CodeKernels<T>& kernels) {
    require(scores.ndim() == 2, "scores must be (rows, n)");
    const size_t rows = scores.shape(0), n = scores.shape(1);
    require(n < size_t(1) << 31, "rows must have fewer than 2^31 scores");
    require(starts.size() == rows + 1, "starts must have an entry more than there are rows");
    const size_t most = per_row ? rows * std::min(room, n) : std::min(room, rows * n);
    require(indices.size() >= most && values.size() >= most, "indices and values must have room for all entries");
    const T* from = scores.data();
    int64_t* begin = starts.data();
    int32_t* index = indices.data();
    T* value = values.data();
    const Unlocked unlocked;
    std::fill(begin, begin + rows + 1, 0);
    require(room > 0, "room must be positive");
    std::vector<Found<T>> found((rows + kRows - 1) / kRows);
    if ((per_row ? of_rows<T> : of_all<T>)(from, rows, n, room, found, threads, kernels)) return -1;
    int64_t total = 0;
    size_t row = 0;
    for (const Found<T>& f : found) {
        std::copy(f.indices.begin(), f.indices.end(), index + total);
        std::copy(f.values.begin(), f.values.end(), value + total);
        for (const int64_t count : f.counts) begin[++row] = total += count;
    }
    return total;
}

// Starts that grow from 0 to the number of entries, and indices below `bound`.
void check_entries(const Array<const int64_t>& starts, const Array<const int32_t>& indices, size_t bound) {
    require(starts.size() >= 1 && starts.data()[0] == 0, "starts must begin with 0");
    for (size_t i = 1; i < starts.size(); ++i)
        require(starts.data()[i] >= starts.data()[i - 1], "starts must not decrease");
    require(static_cast<size_t>(starts.data()[starts.size() - 1]) == indices.size(),
            "starts must end with the number of entries");
    int bad = 0;
    for (size_t e = 0; e < indices.size(); ++e) bad |= static_cast<uint32_t>(indices.data()[e]) >= bound;
    require(!bad, "indices must name rows that there are");
}

template <class T>
void sums(const int64_t* starts, const int32_t* indices, const T* values, const T* rows, size_t width, size_t count,
          T* out, size_t threads, const CodeKernels<T>& kernels) {
    share((count + kRows - 1) / kRows, threads, [&](size_t piece, size_t) {
        kernels.sum_rows(starts, indices, values, rows, width, piece * kRows, std::min(count, (piece + 1) * kRows), out);
    });
}

template <class T>
void sum_rows(const Array<const int64_t>& starts, const Array<const int32_t>& indices, const Array<const T>& values,
              const Array<const T>& rows, const Array<T>& out, size_t threads, const CodeKernels<T>& kernels) {
    require(rows.ndim() == 2 && out.ndim() == 2 && out.shape(1) == rows.shape(1), "rows and out must be as wide");
    require(values.size() == indices.size() && out.shape(0) + 1 == starts.size(), "entries must fit starts and out");
    check_entries(starts, indices, rows.shape(0));
    const int64_t* begin = starts.data();
    const int32_t* index = indices.data();
    const T *value = values.data(), *from = rows.data();
    const size_t width = rows.shape(1), count = out.shape(0);
    T* to = out.data();
    const Unlocked unlocked;
    sums(begin, index, value, from, width, count, to, threads, kernels);
}

// The entries sorted by index, rows in their order, so that every row of the result is a sum of its own.
template <class T>
void scatter_rows(const Array<const int64_t>& starts, const Array<const int32_t>& indices, const Array<const T>& values,
                  const Array<const T>& rows, const Array<T>& out, size_t threads, const CodeKernels<T>& kernels) {
    require(rows.ndim() == 2 && out.ndim() == 2 && out.shape(1) == rows.shape(1), "rows and out must be as wide");
    require(values.size() == indices.size() && rows.shape(0) + 1 == starts.size(), "entries must fit starts and rows");
    require(rows.shape(0) < size_t(1) << 31, "there must be fewer than 2^31 rows");
    check_entries(starts, indices, out.shape(0));
    const int64_t* begin = starts.data();
    const int32_t* index = indices.data();
    const T *value = values.data(), *from = rows.data();
    const size_t width = rows.shape(1), count = out.shape(0), entries = indices.size(), lines = rows.shape(0);
    T* to = out.data();
    const Unlocked unlocked;
    std::vector<int64_t> first(count + 1, 0);
    for (size_t e = 0; e < entries; ++e) ++first[index[e] + 1];
    for (size_t i = 0; i < count; ++i) first[i + 1] += first[i];
    std::vector<int64_t> next(first.begin(), first.end() - 1);
    std::vector<int32_t> row(entries);
    std::vector<T> sorted(entries);
    for (size_t i = 0; i < lines; ++i)
        for (int64_t e = begin[i]; e < begin[i + 1]; ++e) {
            const int64_t place = next[index[e]]++;
            row[place] = static_cast<int32_t>(i);
            sorted[place] = value[e];
        }
    sums(first.data(), row.data(), sorted.data(), from, width, count, to, threads, kernels);
}

template <class T>
void dot_rows(const Array<const int64_t>& starts, const Array<const int32_t>& indices, const Array<const T>& left,
              const Array<const T>& right, const Array<T>& out, size_t threads, const CodeKernels<T>& kernels) {
    require(left.ndim() == 2 && right.ndim() == 2 && left.shape(1) == right.shape(1), "left and right must be as wide");
    require(out.size() == indices.size() && left.shape(0) + 1 == starts.size(), "entries must fit starts and out");
    check_entries(starts, indices, right.shape(0));
    const int64_t* begin = starts.data();
    const int32_t* index = indices.data();
    const T *l = left.data(), *r = right.data();
    const size_t width = left.shape(1), count = left.shape(0);
    T* to = out.data();
    const Unlocked unlocked;
    share((count + kRows - 1) / kRows, threads, [&](size_t piece, size_t) {
        kernels.dot_rows(begin, index, l, r, width, piece * kRows, std::min(count, (piece + 1) * kRows), to);
    });
}

template <class T>
void bind(nb::module_& m, CodeKernels<T> InstructionSet::*kernels) {
    using Starts = Array<const int64_t>;
    using Indices = Array<const int32_t>;
    using In = Array<const T>;
    m.def("largest_positive", [kernels](In scores, size_t room, bool per_row, Array<int64_t> starts,
                                        Array<int32_t> indices, Array<T> values, size_t threads, const std::string& isa) {
        return largest<T>(scores, room, per_row, starts, indices, values, threads, chosen(isa).*kernels);
    });
    m.def("sum_rows", [kernels](Starts starts, Indices indices, In values, In rows, Array<T> out, size_t threads,
                                const std::string& isa) {
        sum_rows<T>(starts, indices, values, rows, out, threads, chosen(isa).*kernels);
    });
    m.def("scatter_rows", [kernels](Starts starts, Indices indices, In values, In rows, Array<T> out, size_t threads,
                                    const std::string& isa) {
        scatter_rows<T>(starts, indices, values, rows, out, threads, chosen(isa).*kernels);
    });
    m.def("dot_rows", [kernels](Starts starts, Indices indices, In left, In right, Array<T> out, size_t threads,
                                const std::string& isa) {
        dot_rows<T>(starts, indices, left, right, out, threads, chosen(isa).*kernels);
    });
}

}  // namespace

void bind_codes(nb::module_& m) {
    bind<float>(m, &InstructionSet::code32);
    bind<double>(m, &InstructionSet::code64);
}

}  // namespace sparsepriors
