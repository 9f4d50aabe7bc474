// Work shared out in fixed pieces: which thread takes a piece is chance; what the piece is, and where its result goes,
// is not.
#pragma once
#include <atomic>
#include <cstddef>
#include <functional>
#include <vector>

#include "kernels.hpp"

namespace sparsepriors {

// Calls run(0) here and run(1), run(2), ... on those threads of the pool that are free in time, at most `threads` in
// all, so run(0) must be able to do the work alone. Ends when all have ended, and then throws again what one threw.
void together(size_t threads, const std::function<void(size_t)>& run);

// Calls work(piece, thread) for every piece in [0, pieces) on up to `threads` threads, the caller's among them. Every
// thread begins with a run of pieces of its own, the same in every call, so that what it reads and writes stays in its
// cache; one that is done helps the others. What work throws (memory that is not to be had) is thrown again here, when
// all threads have ended.
template <class Work>
void share(size_t pieces, size_t threads, const Work& work) {
    if (threads > pieces) threads = pieces;
    if (threads <= 1) {
        for (size_t piece = 0; piece < pieces; ++piece) work(piece, 0);
        return;
    }
    struct alignas(kAlignment) Run {
        std::atomic<size_t> next;
        size_t end;
    };
    std::vector<Run> runs(threads);
    for (size_t t = 0; t < threads; ++t) {
        runs[t].next = pieces * t / threads;
        runs[t].end = pieces * (t + 1) / threads;
    }
    const auto run = [&](size_t thread) {
        for (size_t i = 0; i < threads; ++i) {
            Run& from = runs[(thread + i) % threads];
            for (size_t piece = from.next++; piece < from.end; piece = from.next++) work(piece, thread);
        }
    };
    together(threads, std::ref(run));
}

}  // namespace sparsepriors
