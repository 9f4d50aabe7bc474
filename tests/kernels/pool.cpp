// Compiled and run by test_threads.py: what the pool promises, without Python. Prints what failed first.
#include <pthread.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <stdexcept>
#include <thread>
#include <vector>

#include "threads.hpp"

using sparsepriors::share;

namespace {

void expect(bool holds, const char* what) {
    if (holds) return;
    std::fprintf(stderr, "%s\n", what);
    std::_Exit(1);
}

// Every piece once, by a thread below the count, and no two pieces at once by one thread.
void check_pieces(size_t pieces, size_t threads) {
    std::vector<std::atomic<int>> done(pieces), busy(threads ? threads : 1);
    share(pieces, threads, [&](size_t piece, size_t thread) {
        expect(thread < busy.size(), "a thread's number lies beyond the count");
        expect(busy[thread]++ == 0, "two threads have one number");
        ++done[piece];
        --busy[thread];
    });
    for (const auto& d : done) expect(d == 1, "a piece is not done once");
}

void check_thrown(size_t pieces, size_t threads, size_t from) {
    std::atomic<size_t> running{0};
    try {
        share(pieces, threads, [&](size_t piece, size_t) {
            ++running;
            const bool bad = piece >= from;
            if (!bad) std::this_thread::sleep_for(std::chrono::microseconds(20));
            --running;
            if (bad) throw std::runtime_error("asked for");
        });
    } catch (const std::runtime_error&) {
        expect(running == 0, "an exception arrives while work is running");
        return;
    }
    expect(false, "an exception does not arrive");
}

// Where all pieces must be at work at once, as many threads as that take part, now and after a sleep.
void check_all_take_part(size_t threads) {
    std::atomic<size_t> there{0};
    share(threads, threads, [&](size_t, size_t) {
        ++there;
        while (there < threads) std::this_thread::yield();
    });
}

// Where all threads take part, each begins with its own run of pieces.
void check_runs_of_their_own(size_t threads) {
    std::atomic<size_t> there{0};
    std::vector<size_t> first(threads, SIZE_MAX);
    share(10 * threads, threads, [&](size_t piece, size_t thread) {
        if (first[thread] == SIZE_MAX) first[thread] = piece, ++there;
        while (there < threads) std::this_thread::yield();
    });
    for (size_t t = 0; t < threads; ++t) expect(first[t] == 10 * t, "a thread does not begin with its own pieces");
}

void check_signals_stay_with_the_program() {
    std::atomic<size_t> there{0};
    share(2, 2, [&](size_t, size_t thread) {
        ++there;
        while (there < 2) std::this_thread::yield();
        sigset_t now;
        pthread_sigmask(SIG_BLOCK, nullptr, &now);
        expect(sigismember(&now, SIGINT) == (thread > 0), "the pool takes the program's signals, or blocks them");
        expect(!sigismember(&now, SIGSEGV), "faults are blocked");
    });
}

void check_fork() {
    const pid_t child = fork();
    if (child == 0) {
        alarm(20);
        check_all_take_part(3);
        std::_Exit(0);
    }
    int status = 1;
    waitpid(child, &status, 0);
    expect(status == 0, "a forked process does not get through");
}

}  // namespace

int main() {
    alarm(60);
    for (size_t threads : {0, 1, 2, 3, 5, 2})
        for (size_t pieces : {0, 1, 2, 7, 100}) check_pieces(pieces, threads);
    for (size_t threads : {2, 4, 3}) {
        check_all_take_part(threads);
        std::this_thread::sleep_for(std::chrono::milliseconds(2));  // the pool is asleep
        check_all_take_part(threads);
        check_runs_of_their_own(threads);
    }
    for (size_t from : {0, 1, 9, 19}) check_thrown(20, 3, from);
    check_signals_stay_with_the_program();
    check_fork();
    std::vector<std::thread> callers;
    for (size_t caller = 0; caller < 4; ++caller)
        callers.emplace_back([caller] {
            for (size_t i = 0; i < 500; ++i) {
                check_pieces((7 * i + caller) % 40, (i + caller) % 5);
                if (i % 50 == 0) check_thrown(10, 3, 5);
            }
        });
    for (int i = 0; i < 5; ++i) check_fork();
    for (auto& caller : callers) caller.join();
    share(2, 2, [](size_t outer, size_t) { check_pieces(5 + outer, 3); });
    return 0;
}
