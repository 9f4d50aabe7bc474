// Proximal operators of total variation: an iteration with a duality gap, and the exact solution on a line.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstring>
#include <limits>
#include <utility>
#include <vector>

#include "kernels.hpp"
#include "scratch.hpp"
#include "threads.hpp"

namespace sparsepriors {

constexpr size_t kGapEvery = 10;                 // iterations between two looks at the gap
constexpr size_t kBandEntries = size_t(1) << 15;  // about so many make a band, the piece of work of a thread
constexpr double kMomentum = 4;                  // Chambolle and Dossal's a

// From the dual point p, which it improves, to a relative duality gap of tol, which it returns; u = x - D^T p.
template <class T>
double tv_solve(const Variation<T>& problem, const VariationKernels<T>& kernels, size_t parts, double tol,
                size_t max_iter, size_t threads, T* p, T* u) {
    Variation<T> v = problem;
    const size_t lines = v.lines(), ahead = v.ahead(), entries = v.entries(), duals = v.axes * parts * entries;
    // A bound whose square is no number is below or beyond what can matter: x is scaled to order one.
    const T least = std::sqrt(std::numeric_limits<T>::min()) * 2, most = std::sqrt(std::numeric_limits<T>::max()) / 2;
    if (v.bound < least) std::fill(p, p + duals, T(0));
    v.bound = std::min(std::max(v.bound, least), most);
    const size_t per = std::max({size_t(1), 4 * ahead, kBandEntries / v.columns});
    const size_t bands = std::max<size_t>(1, lines / per);
    threads = std::min(threads, bands);
    const size_t room = variation_scratch(v, parts);
    const Scratch<T> scratch(threads * room), memory(2 * duals);
    T *q = memory.data(), *next = memory.data() + duals;
    std::copy_n(p, duals, q);
    std::vector<double> sums(3 * bands);
    const auto each_band = [&](const auto& work) {
        share(bands, threads, [&](size_t b, size_t t) {
            work(b, b * lines / bands, (b + 1) * lines / bands, scratch.data() + t * room);
        });
    };
    double gap = 0, since = 0;  // since: iterations from the last restart
    for (size_t iteration = 0;; ++iteration) {
        if (iteration % kGapEvery == 0 || iteration == max_iter) {
            std::fill(sums.begin(), sums.end(), 0.0);
            each_band([&](size_t b, size_t first, size_t last, T* room) {
                kernels.gap(v, first, last, p, room, &sums[3 * b]);
            });
            double total[3] = {0, 0, 0};
            for (size_t i = 0; i < sums.size(); ++i) total[i % 3] += sums[i];
            // Differences smaller than the rounding of x itself carry no information.
            const double floor = std::pow(double(std::numeric_limits<T>::epsilon()), 2) * total[2];
            gap = total[0] <= floor ? 0 : total[0] / total[1];
            if (gap <= tol || iteration == max_iter || problem.bound < least) break;
        }
        const T beta = T(since / (since + 1 + kMomentum));
        each_band([&](size_t b, size_t first, size_t last, T* room) {
            sums[b] = kernels.step(v, first, last, beta, q, p, next, room);
        });
        double uphill = 0;
        for (size_t b = 0; b < bands; ++b) uphill += sums[b];
        std::swap(q, next);
        ++since;
        if (uphill > 0) {
            std::copy_n(p, duals, q);
            since = 0;
        }
    }
    each_band([&](size_t, size_t first, size_t last, T* room) { kernels.primal(v, first, last, p, room, u); });
    return gap;
}

// The exact minimiser u of ||u - x||^2 / 2 + bound sum |u[i+1] - u[i]| by dynamic programming (Johnson, 2013, A dynamic
// programming algorithm for the fused lasso and l0-segmentation), in double precision and linear time, with its dual
// point p. Returns the relative duality gap.
//
// After i entries the best cost as a function of u[i] has a piecewise linear, increasing derivative; what goes on to
// the next entry is that derivative cut off at -bound and bound. Kept are its kinks, in order, and its first and last
// pieces.
template <class T>
double tv_line(const T* x, size_t n, T bound, T* p, T* u) {
    struct Kink {
        double at, slope, offset;  // what the derivative's slope and offset grow by
    };
    const double cut = bound;
    std::vector<Kink> kinks(2 * n);
    std::vector<double> low(n), high(n);
    size_t first = n, last = n;  // kinks [first, last)
    double dual = 0, largest = 0, mean = 0;
    for (size_t i = 0; i < n; ++i) mean += x[i];
    mean /= static_cast<double>(n);
    for (size_t i = 0; i < n; ++i) largest = std::max(largest, std::abs(dual += mean - x[i]));
    double value = mean;
    if (cut < largest) {
        for (size_t i = 0; i < n; ++i) {
            // An entry adds u - x[i] to the derivative; before the first there is nothing to cut.
            Kink left{0, 1, (i > 0 ? -cut : 0) - x[i]}, right{0, 1, (i > 0 ? cut : 0) - x[i]};
            const double down = i + 1 < n ? -cut : 0;
            while (first < last && left.slope * kinks[first].at + left.offset < down) {
                left.slope += kinks[first].slope;
                left.offset += kinks[first++].offset;
            }
            low[i] = (down - left.offset) / left.slope;
            if (i + 1 == n) break;
            while (first < last && right.slope * kinks[last - 1].at + right.offset > cut) {
                right.slope -= kinks[--last].slope;
                right.offset -= kinks[last].offset;
            }
            high[i] = (cut - right.offset) / right.slope;
            kinks[--first] = {low[i], left.slope, left.offset + cut};
            kinks[last++] = {high[i], -right.slope, cut - right.offset};
        }
        value = low[n - 1];
    }
    for (size_t i = n; i-- > 0;) {
        if (cut < largest && i + 1 < n) value = std::min(std::max(value, low[i]), high[i]);
        low[i] = value;
    }
    // The gap of a pair u, p with w = x - D^T p is the sum of bound |D u| - p D u, plus ||u - w||^2 / 2.
    double gap = 0, primal = 0, before = 0, size = 0;
    dual = 0;
    for (size_t i = 0; i < n; ++i) {
        const double jump = i + 1 < n ? low[i + 1] - low[i] : 0, off = low[i] - x[i];
        dual = i + 1 < n ? std::min(std::max(dual + off, -cut), cut) : 0;
        const double miss = off - (dual - before);
        gap += cut * std::abs(jump) - dual * jump + miss * miss / 2;
        primal += cut * std::abs(jump) + off * off / 2;
        size += double(x[i]) * x[i];
        before = dual;
        u[i] = static_cast<T>(low[i]);
        p[i] = static_cast<T>(dual);
    }
    const double floor = std::pow(std::numeric_limits<double>::epsilon(), 2) * size;
    return gap <= floor ? 0 : gap / primal;
}

}  // namespace sparsepriors
