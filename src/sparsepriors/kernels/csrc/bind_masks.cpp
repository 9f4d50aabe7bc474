// Masks of the largest scores.
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <atomic>
#include <vector>

#include "binding.hpp"
#include "levels.hpp"
#include "threads.hpp"
#include "topk.hpp"

namespace sparsepriors {
namespace {

template <class T>
bool nm(const Array<const T>& scores, int n, int m, const Array<bool>& keep, size_t threads,
        const MaskKernels<T>& kernels) {
    require(keep.size() == scores.size() && m >= 1 && scores.size() % m == 0, "scores must fill whole groups");
    const size_t groups = scores.size() / m, piece = (size_t(1) << 16) / m + 1, pieces = (groups + piece - 1) / piece;
    const T* from = scores.data();
    uint8_t* to = reinterpret_cast<uint8_t*>(keep.data());  // 0 or 1 is all that is written
    const Unlocked unlocked;
    std::atomic<bool> nan{false};
    share(pieces, threads, [&](size_t p, size_t) {
        const size_t first = p * piece, count = std::min(piece, groups - first);
        if (kernels.nm(from + first * m, count, n, m, to + first * m)) nan = true;
    });
    return nan;
}

template <class T>
bool topk(const Array<const T>& scores, size_t k, const Array<bool>& keep, size_t threads) {
    require(keep.size() == scores.size() && k <= scores.size(), "k must not exceed the number of scores");
    const T* from = scores.data();
    uint8_t* to = reinterpret_cast<uint8_t*>(keep.data());  // 0 or 1 is all that is written
    const size_t count = scores.size();
    const Unlocked unlocked;
    return topk_mask(from, count, k, to, std::max<size_t>(1, threads));
}

template <class T>
bool levels(const Array<const T>& scores, const std::vector<size_t>& counts, const Array<uint8_t>& levels,
            size_t threads) {
    require(levels.size() == scores.size() && counts.size() <= 255, "levels must be one for each score, in one byte");
    require(std::is_sorted(counts.rbegin(), counts.rend()) && (counts.empty() || counts[0] <= scores.size()),
            "counts must not increase and not exceed the number of scores");
    const T* from = scores.data();
    uint8_t* to = levels.data();
    const size_t count = scores.size();
    const Unlocked unlocked;
    return topk_levels(from, count, counts.data(), counts.size(), to, threads);
}

template <class T>
void bind(nb::module_& m, MaskKernels<T> InstructionSet::*kernels) {
    m.def("nm_mask", [kernels](Array<const T> scores, int n, int m, Array<bool> keep, size_t threads,
                               const std::string& isa) {
        return nm<T>(scores, n, m, keep, threads, chosen(isa).*kernels);
    });
    m.def("topk_mask", [](Array<const T> scores, size_t k, Array<bool> keep, size_t threads) {
        return topk<T>(scores, k, keep, threads);
    });
    m.def("topk_levels", [](Array<const T> scores, const std::vector<size_t>& counts, Array<uint8_t> to,
                            size_t threads) { return levels<T>(scores, counts, to, threads); });
}

}  // namespace

void bind_masks(nb::module_& m) {
    bind<float>(m, &InstructionSet::mask32);
    bind<double>(m, &InstructionSet::mask64);
}

}  // namespace sparsepriors
