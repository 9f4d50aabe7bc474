// Many thresholds at once: how many of several counts keep a score among their largest.
#pragma once
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "threads.hpp"
#include "topk.hpp"

namespace sparsepriors {

// Where a number lies among a few sorted ones. Most numbers share their leading 16 bits with none of them, and are done
// after one look into a table.
template <class U>
class Among {
   public:
    static constexpr int kLeading = 16;

    explicit Among(std::vector<U> sorted) : sorted_(std::move(sorted)), start_((size_t(1) << kLeading) + 1) {
        size_t i = 0;
        for (size_t d = 0; d < start_.size(); ++d) {
            while (i < sorted_.size() && (sorted_[i] >> kRest) < d) ++i;
            start_[d] = uint32_t(i);
        }
    }
    size_t size() const { return sorted_.size(); }
    // Whether one of them has the leading bits of u.
    bool near(U u) const { return start_[u >> kRest] != start_[(u >> kRest) + 1]; }
    // The first that is not below u.
    size_t first(U u) const {
        size_t i = start_[u >> kRest];
        const size_t end = start_[(u >> kRest) + 1];
        if (end - i > 8) return std::lower_bound(sorted_.begin() + i, sorted_.begin() + end, u) - sorted_.begin();
        while (i < end && sorted_[i] < u) ++i;
        return i;
    }
    bool is(size_t i, U u) const { return i < sorted_.size() && sorted_[i] == u; }

   private:
    static constexpr int kRest = 8 * sizeof(U) - kLeading;
    std::vector<U> sorted_;
    std::vector<uint32_t> start_;
};

// levels[i] = how many of the counts (at most 255, in descending order) keep scores[i] among that many largest, ties to
// the lower index. A few passes over the scores, however many the counts. True if any score is NaN.
template <class T>
bool topk_levels(const T* scores, size_t count, const size_t* counts, size_t ranks, uint8_t* levels, size_t threads) {
    using U = typename Bits<T>::type;
    while (ranks > 0 && counts[ranks - 1] == 0) --ranks;  // what keeps nothing adds to no level
    const size_t piece = size_t(1) << 16, pieces = (count + piece - 1) / piece;
    threads = std::max<size_t>(1, std::min(threads, pieces));
    const auto end_of = [&](size_t p) { return std::min((p + 1) * piece, count); };

    // The thresholds, digit by digit. Smaller counts have larger ones, so that equal leading digits are neighbours.
    std::vector<size_t> wanted(counts, counts + ranks);  // rank of the threshold among the scores that share its digits
    std::vector<U> threshold(ranks, 0);                  // its digits so far
    Among<U> heads(std::vector<U>{0});                   // the different ones, increasing
    std::vector<size_t> begin{0, ranks};                 // and which counts each belongs to
    std::vector<size_t> histogram;
    std::vector<uint8_t> nan(threads, 0);
    U known = 0;
    for (int shift = 8 * sizeof(U); shift > 0;) {
        const int bits = known == 0 ? Among<U>::kLeading : 8;
        shift -= bits;
        const size_t buckets = size_t(1) << bits, size = heads.size() * buckets;
        histogram.assign(threads * size, 0);
        share(pieces, threads, [&](size_t p, size_t t) {
            size_t* h = histogram.data() + t * size;
            if (known == 0) {
                int bad = 0;
                for (size_t i = p * piece; i < end_of(p); ++i) {
                    bad |= scores[i] != scores[i];
                    ++h[ordered(scores[i]) >> shift];
                }
                if (bad) nan[t] = 1;
                return;
            }
            for (size_t i = p * piece; i < end_of(p); ++i) {
                const U u = ordered(scores[i]);
                if (!heads.near(u)) continue;
                const size_t g = heads.first(u & known);
                if (heads.is(g, u & known)) ++h[g * buckets + ((u >> shift) & (buckets - 1))];
            }
        });
        for (size_t t = 0; t < threads; ++t)
            if (nan[t]) return true;
        for (size_t t = 1; t < threads; ++t)
            for (size_t b = 0; b < size; ++b) histogram[b] += histogram[t * size + b];
        for (size_t g = 0; g + 1 < begin.size(); ++g) {
            size_t above = 0, r = begin[g + 1];
            for (size_t b = buckets; b-- > 0 && r > begin[g]; above += histogram[g * buckets + b])
                while (r > begin[g] && wanted[r - 1] <= above + histogram[g * buckets + b]) {
                    --r;
                    wanted[r] -= above;
                    threshold[r] |= U(b) << shift;
                }
        }
        known |= U(buckets - 1) << shift;
        std::vector<U> different;
        begin.clear();
        for (size_t r = 0; r < ranks; ++r)
            if (r == 0 || threshold[r] != threshold[r - 1]) {
                different.push_back(threshold[r]);
                begin.push_back(r);
            }
        begin.push_back(ranks);
        heads = Among<U>(std::move(different));
    }

    // Levels without ties, and how many ties each piece has with each threshold.
    const size_t groups = heads.size();
    const std::vector<uint8_t> below(begin.begin(), begin.end());
    std::vector<size_t> ties((pieces + 1) * groups, 0);
    share(pieces, threads, [&](size_t p, size_t) {
        size_t* tied = ties.data() + (p + 1) * groups;
        for (size_t i = p * piece; i < end_of(p); ++i) {
            const U u = ordered(scores[i]);
            const size_t g = heads.first(u);
            levels[i] = below[g];
            if (heads.near(u) && heads.is(g, u)) ++tied[g];
        }
    });
    for (size_t p = 0; p < pieces; ++p)
        for (size_t g = 0; g < groups; ++g) ties[(p + 1) * groups + g] += ties[p * groups + g];
    share(pieces, threads, [&](size_t p, size_t) {
        std::vector<size_t> before(ties.begin() + p * groups, ties.begin() + (p + 1) * groups);
        const size_t* after = ties.data() + (p + 1) * groups;
        bool needed = false;
        for (size_t g = 0; g < groups; ++g) needed |= before[g] < after[g] && before[g] < wanted[begin[g]];
        for (size_t i = p * piece; needed && i < end_of(p); ++i) {
            const U u = ordered(scores[i]);
            if (!heads.near(u)) continue;
            const size_t g = heads.first(u);
            if (!heads.is(g, u)) continue;
            const size_t place = before[g]++;
            for (size_t r = begin[g]; r < begin[g + 1] && wanted[r] > place; ++r) ++levels[i];
        }
    });
    return false;
}

}  // namespace sparsepriors
