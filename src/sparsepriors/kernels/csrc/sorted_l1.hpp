// The proximal operator of the sorted l1 norm: a radix sort of moduli, and isotonic regression of what the weights leave.
#pragma once
#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <vector>

#include "scratch.hpp"

namespace sparsepriors {

// Places of the n < 2^32 moduli r, the largest first, of equal ones the first first. Each is a number of 64 bits: its
// upper half those of r that count most, inverted, its lower half the place; `spare` has room for as many.
template <class T>
const uint64_t* sort_moduli(const T* r, size_t n, uint64_t* places, uint64_t* spare) {
    constexpr size_t digits = 3, buckets = size_t(1) << 11;
    constexpr int shifts[digits] = {32, 43, 54};
    constexpr size_t few = 512;
    for (size_t i = 0; i < n; ++i) {
        uint32_t bits;  // those of a number that is not negative grow with it
        if constexpr (sizeof(T) == 4) {
            std::memcpy(&bits, r + i, sizeof bits);
        } else {
            uint64_t all;
            std::memcpy(&all, r + i, sizeof all);
            bits = static_cast<uint32_t>(all >> 32);
        }
        places[i] = uint64_t(~(bits & 0x7fffffffu)) << 32 | i;
    }
    if (n <= few) {
        std::sort(places, places + n);
    } else {
        std::vector<std::array<uint32_t, digits>> counts(buckets, {0, 0, 0});
        for (size_t i = 0; i < n; ++i)
            for (size_t d = 0; d < digits; ++d) ++counts[places[i] >> shifts[d] & (buckets - 1)][d];
        for (size_t d = 0; d < digits; ++d) {
            if (counts[places[0] >> shifts[d] & (buckets - 1)][d] == n) continue;  // all have this digit
            uint32_t before = 0;
            for (auto& count : counts) {
                const uint32_t here = count[d];
                count[d] = before;
                before += here;
            }
            for (size_t i = 0; i < n; ++i) spare[counts[places[i] >> shifts[d] & (buckets - 1)][d]++] = places[i];
            std::swap(places, spare);
        }
    }
    if constexpr (sizeof(T) == 4) return places;
    const auto value = [r](uint64_t place) { return r[static_cast<uint32_t>(place)]; };
    const auto larger = [&](uint64_t a, uint64_t b) { return value(a) > value(b); };
    for (size_t first = 0, last; first < n; first = last) {  // those that the upper half does not tell apart
        for (last = first + 1; last < n && places[last] >> 32 == places[first] >> 32; ++last) {}
        if (last > first + 1 && !std::is_sorted(places + first, places + last, larger))
            std::stable_sort(places + first, places + last, larger);
    }
    return places;
}

// Writes the minimiser u of step * sum_i weights_i |u|_(i) + |u - r|^2 / 2 for n moduli r and weights that do not
// increase. scratch: room for 2 n numbers.
template <class T>
void sorted_l1_prox(const T* r, size_t n, const T* weights, double step, T* out, uint64_t* scratch) {
    struct Block {
        double mean;
        size_t begin;
    };
    const uint64_t* places = sort_moduli(r, n, scratch, scratch + n);
    std::vector<Block> blocks;
    for (size_t i = 0; i < n; ++i) {
        Block next{static_cast<double>(r[static_cast<uint32_t>(places[i])]) - step * static_cast<double>(weights[i]), i};
        while (!blocks.empty() && blocks.back().mean <= next.mean) {
            const Block& last = blocks.back();
            const double share = static_cast<double>(i + 1 - next.begin) / static_cast<double>(i + 1 - last.begin);
            next = {last.mean + (next.mean - last.mean) * share, last.begin};
            blocks.pop_back();
        }
        blocks.push_back(next);
    }
    for (size_t b = 0; b < blocks.size(); ++b) {
        const size_t end = b + 1 < blocks.size() ? blocks[b + 1].begin : n;
        const T level = static_cast<T>(blocks[b].mean > 0 ? blocks[b].mean : 0.0);
        for (size_t i = blocks[b].begin; i < end; ++i) out[static_cast<uint32_t>(places[i])] = level;
    }
}

}  // namespace sparsepriors
