// Epochs of a descent, extrapolated every few of them (Bertrand and Massias, 2021).
#pragma once
#include <cmath>
#include <cstddef>
#include <cstring>
#include <utility>

#include "blocks.hpp"
#include "descent.hpp"

namespace {

constexpr int kMemory = sparsepriors::kDescentMemory;

// Solves the kMemory equations u c = 1 by elimination with pivots; false if they are singular.
inline bool combination(double (&u)[kMemory][kMemory], double* c) {
    for (int i = 0; i < kMemory; ++i) c[i] = 1;
    for (int i = 0; i < kMemory; ++i) {
        int pivot = i;
        for (int r = i + 1; r < kMemory; ++r)
            if (std::abs(u[r][i]) > std::abs(u[pivot][i])) pivot = r;
        if (!(std::abs(u[pivot][i]) > 0)) return false;
        std::swap(u[i], u[pivot]);
        std::swap(c[i], c[pivot]);
        for (int r = i + 1; r < kMemory; ++r) {
            const double f = u[r][i] / u[i][i];
            for (int k = i; k < kMemory; ++k) u[r][k] -= f * u[i][k];
            c[r] -= f * c[i];
        }
    }
    double sum = 0;
    for (int i = kMemory - 1; i >= 0; --i) {
        for (int k = i + 1; k < kMemory; ++k) c[i] -= u[i][k] * c[k];
        c[i] /= u[i][i];
        sum += c[i];
    }
    if (!(std::abs(sum) > 0) || !std::isfinite(sum)) return false;
    for (int i = 0; i < kMemory; ++i) c[i] /= sum;
    return true;
}

// history: (kMemory + 1) pairs of x and what follows it, the oldest first, then one pair for the trial point. Problem is
// Descent, GroupDescent or BlockDescent.
template <class Problem>
size_t descend(const Problem& d, double* x, double* q, double tol, size_t max_epochs, double* history, double* change) {
    const size_t k = d.unknowns(), follow = d.followers();
    auto kept = [&](int i) { return history + static_cast<size_t>(i) * (k + follow); };
    auto keep = [&](int i) {
        std::memcpy(kept(i), x, k * sizeof(double));
        std::memcpy(kept(i) + k, q, follow * sizeof(double));
    };
    size_t done = 0;
    int filled = 0;
    *change = 0;
    if (d.accelerate) keep(filled++);
    while (done < max_epochs) {
        *change = epoch(d, x, q);
        ++done;
        if (*change <= tol) break;
        if (!d.accelerate) continue;
        keep(filled++);
        if (filled <= kMemory) continue;
        double u[kMemory][kMemory], c[kMemory];
        for (int a = 0; a < kMemory; ++a)
            for (int b = 0; b <= a; ++b) {
                double sum = 0;
                for (size_t i = 0; i < k; ++i)
                    sum += (static_cast<double>(kept(a + 1)[i]) - kept(a)[i]) *
                           (static_cast<double>(kept(b + 1)[i]) - kept(b)[i]);
                u[a][b] = u[b][a] = sum;
            }
        double trace = 0;
        for (int a = 0; a < kMemory; ++a) trace += u[a][a];
        for (int a = 0; a < kMemory; ++a) u[a][a] += 1e-12 * trace;
        filled = 0;
        if (combination(u, c)) {
            double* trial = kept(kMemory + 1);
            for (size_t i = 0; i < k + follow; ++i) {  // q is affine in x: the same combination serves both
                double sum = 0;
                for (int a = 0; a < kMemory; ++a) sum += c[a] * kept(a + 1)[i];
                trial[i] = sum;
            }
            if (objective(d, trial, trial + k) < objective(d, x, q)) {
                std::memcpy(x, trial, k * sizeof(double));
                std::memcpy(q, trial + k, follow * sizeof(double));
            }
        }
        keep(filled++);
    }
    return done;
}

}  // namespace
