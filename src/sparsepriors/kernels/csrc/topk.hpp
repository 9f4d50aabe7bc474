// The k-th largest score by radix selection on the bits of floating point numbers, and the mask that goes with it.
#pragma once
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <vector>

#include "threads.hpp"

namespace sparsepriors {

template <class T>
struct Bits;
template <>
struct Bits<float> {
    using type = uint32_t;
};
template <>
struct Bits<double> {
    using type = uint64_t;
};

// An unsigned integer in the order of the numbers, -0 and +0 made equal.
template <class T>
inline typename Bits<T>::type ordered(T score) {
    using U = typename Bits<T>::type;
    constexpr U sign = U(1) << (8 * sizeof(U) - 1);
    U u;
    score += T(0);
    std::memcpy(&u, &score, sizeof u);
    return u & sign ? ~u : u | sign;
}

// keep[i] = 1 for exactly k entries: the largest scores, ties to the lower index. True if any score is NaN.
template <class T>
bool topk_mask(const T* scores, size_t count, size_t k, uint8_t* keep, size_t threads) {
    using U = typename Bits<T>::type;
    constexpr int digit = 11, total = 8 * sizeof(U);
    constexpr size_t buckets = size_t(1) << digit;
    if (count == 0) return false;
    const size_t piece = size_t(1) << 16, pieces = (count + piece - 1) / piece;
    if (threads > pieces) threads = pieces;

    U threshold = 0, known = 0;  // the leading bits found so far, and which they are
    size_t wanted = k;           // rank of the threshold among the scores that share these bits
    std::vector<size_t> histogram(threads * buckets);
    std::vector<uint8_t> nan(threads, 0);
    int shift = total;
    while (shift > 0) {
        const int bits = shift < digit ? shift : digit;
        shift -= bits;
        std::fill(histogram.begin(), histogram.end(), 0);
        const bool first = known == 0;
        share(pieces, threads, [&](size_t p, size_t t) {
            size_t* h = histogram.data() + t * buckets;
            const size_t end = (p + 1) * piece < count ? (p + 1) * piece : count;
            int bad = 0;
            for (size_t i = p * piece; i < end; ++i) {
                const U u = ordered(scores[i]);
                bad |= scores[i] != scores[i];
                if (first || (u & known) == threshold) ++h[(u >> shift) & ((U(1) << bits) - 1)];
            }
            if (bad) nan[t] = 1;
        });
        for (size_t t = 0; t < threads; ++t)
            if (nan[t]) return true;
        for (size_t b = size_t(1) << bits; b-- > 0;) {
            size_t here = 0;
            for (size_t t = 0; t < threads; ++t) here += histogram[t * buckets + b];
            if (wanted <= here || b == 0) {
                threshold |= U(b) << shift;
                known |= ((U(1) << bits) - 1) << shift;
                break;
            }
            wanted -= here;
        }
    }
    // `wanted` of the entries equal to the threshold are kept, the first ones.
    std::vector<size_t> ties(pieces + 1, 0);
    share(pieces, threads, [&](size_t p, size_t) {
        const size_t end = (p + 1) * piece < count ? (p + 1) * piece : count;
        size_t equal = 0;
        for (size_t i = p * piece; i < end; ++i) {
            const U u = ordered(scores[i]);
            keep[i] = k > 0 && u > threshold;
            equal += u == threshold;
        }
        ties[p + 1] = equal;
    });
    for (size_t p = 0; p < pieces; ++p) ties[p + 1] += ties[p];
    for (size_t p = 0; p < pieces && k > 0 && ties[p] < wanted; ++p) {
        const size_t end = (p + 1) * piece < count ? (p + 1) * piece : count;
        size_t left = wanted - ties[p];
        for (size_t i = p * piece; i < end && left > 0; ++i)
            if (ordered(scores[i]) == threshold) {
                keep[i] = 1;
                --left;
            }
    }
    return false;
}

}  // namespace sparsepriors
