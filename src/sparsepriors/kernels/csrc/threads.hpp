// Work shared out in fixed pieces: which thread takes a piece is chance; what the piece is, and where its result goes,
// is not.
#pragma once
#include <atomic>
#include <cstddef>
#include <functional>

#include "kernels.hpp"

namespace sparsepriors {

// Calls run(0) here and run(1), run(2), ... on those threads of the pool that are free in time, at most `threads` in
// all, so run(0) must be able to do the work alone. Ends when all have ended, and then throws again what one threw.
void together(size_t threads, const std::function<void(size_t)>& run);

// Calls work(piece, thread) for every piece in [0, pieces) on up to `threads` threads, the caller's among them. What
// work throws (memory that is not to be had) is thrown again here, when all threads have ended.
template <class Work>
void share(size_t pieces, size_t threads, const Work& work) {
    alignas(kAlignment) std::atomic<size_t> next{0};
    const auto run = [&](size_t thread) {
        for (size_t piece = next++; piece < pieces; piece = next++) work(piece, thread);
    };
    together(threads < pieces ? threads : pieces, std::ref(run));
}

}  // namespace sparsepriors
