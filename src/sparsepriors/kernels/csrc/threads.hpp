// Work shared out in fixed pieces: which thread takes a piece is chance, what the piece is and where its result goes is not.
#pragma once
#include <atomic>
#include <cstddef>
#include <exception>
#include <system_error>
#include <thread>
#include <vector>

namespace sparsepriors {

// Calls work(piece, thread) for every piece in [0, pieces) on up to `threads` threads, the caller's among them. What
// work throws (memory that is not to be had) is thrown again here, when all threads have ended.
template <class Work>
void share(size_t pieces, size_t threads, const Work& work) {
    if (threads > pieces) threads = pieces;
    if (threads < 1) threads = 1;
    std::atomic<size_t> next{0};
    std::vector<std::exception_ptr> thrown(threads);
    auto run = [&](size_t thread) {
        try {
            for (size_t piece = next++; piece < pieces; piece = next++) work(piece, thread);
        } catch (...) {
            thrown[thread] = std::current_exception();
        }
    };
    std::vector<std::thread> helpers;
    for (size_t t = 1; t < threads; ++t) {
        try {
            helpers.emplace_back(run, t);
        } catch (const std::system_error&) {
            break;  // the system gives no more threads; those there are do the work
        }
    }
    run(0);
    for (auto& h : helpers) h.join();
    for (const auto& e : thrown)
        if (e) std::rethrow_exception(e);
}

}  // namespace sparsepriors
