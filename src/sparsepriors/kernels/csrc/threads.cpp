// The pool behind `share`: threads that start at first need and then wait for work, at first awake, later asleep.
#include "threads.hpp"

#include <pthread.h>
#include <signal.h>

#include <chrono>
#include <condition_variable>
#include <exception>
#include <memory>
#include <mutex>
#include <system_error>
#include <thread>

namespace sparsepriors {
namespace {

// How long a thread looks for what it waits for before it sleeps. Kernels that follow one another within it find the
// pool awake; a longer one would take the processor from others.
constexpr std::chrono::microseconds kAwake{50};

inline void rest() {
#ifdef SPARSEPRIORS_X86
    __builtin_ia32_pause();
#endif
}

// Looks for kAwake whether `holds` is true, and ends when it is.
template <class Condition>
void look_for(const Condition& holds) {
    const auto end = std::chrono::steady_clock::now() + kAwake;
    do {
        for (int i = 0; i < 16; ++i) {
            if (holds()) return;
            rest();
        }
    } while (std::chrono::steady_clock::now() < end);
}

// The pool's mutex is held for moments, often by a thread that has just made another one look at it: to sleep until it
// is free takes longer than many kernels.
void take(std::unique_lock<std::mutex>& lock) {
    for (int i = 0; i < 100; ++i) {
        if (lock.try_lock()) return;
        rest();
    }
    lock.lock();
}

// One call of `together`, which lives on the caller's stack. The pool's mutex guards all that changes; `running` is
// looked at without it, too.
struct alignas(kAlignment) Job {
    const std::function<void(size_t)> run;
    const size_t threads;            // that may take part
    size_t joined = 1;               // that took part until now
    std::atomic<size_t> running{0};  // of the pool, that have not ended
    Job* next = nullptr;             // in the pool's list
    std::exception_ptr thrown = nullptr;

    std::exception_ptr attempt(size_t thread) const {
        try {
            run(thread);
        } catch (...) {
            return std::current_exception();
        }
        return nullptr;
    }
};

// Threads started meanwhile get no signals but those of their own faults: the rest is for the program's threads.
class SignalsBlocked {
   public:
    SignalsBlocked() {
        sigset_t blocked;
        sigfillset(&blocked);
        for (int fault : {SIGSEGV, SIGBUS, SIGFPE, SIGILL}) sigdelset(&blocked, fault);
        pthread_sigmask(SIG_SETMASK, &blocked, &before_);
    }
    ~SignalsBlocked() { pthread_sigmask(SIG_SETMASK, &before_, nullptr); }
    SignalsBlocked(const SignalsBlocked&) = delete;
    SignalsBlocked& operator=(const SignalsBlocked&) = delete;

   private:
    sigset_t before_;
};

class Pool {
   public:
    // The caller waits for threads that joined, never for one to join: a pool that is busy or asleep costs little.
    void run(Job& job) {
        std::unique_lock<std::mutex> lock(mutex_, std::defer_lock);
        take(lock);
        grow(job.threads - 1);
        job.next = jobs_;
        jobs_ = &job;
        const size_t awake = looking_;
        lock.unlock();
        posted_.fetch_add(1, std::memory_order_release);
        for (size_t t = awake + 1; t < job.threads; ++t) work_.notify_one();
        const std::exception_ptr thrown = job.attempt(0);
        take(lock);
        Job** link = &jobs_;
        while (*link != &job) link = &(*link)->next;
        *link = job.next;
        lock.unlock();
        const auto ended = [&] { return job.running.load(std::memory_order_acquire) == 0; };
        look_for(ended);
        take(lock);
        end_.wait(lock, ended);
        if (thrown) std::rethrow_exception(thrown);
        if (job.thrown) std::rethrow_exception(job.thrown);
    }

   private:
    // Every cache line that passes from core to core holds up the start: what the mutex guards lies beside it, and what
    // waiting threads look at apart, since they would call the line back from who writes beside it.
    alignas(kAlignment) std::atomic<size_t> posted_{0};  // jobs until now
    alignas(kAlignment) std::mutex mutex_;
    Job* jobs_ = nullptr;              // the last one first
    size_t size_ = 0, looking_ = 0;    // threads, and those of them that are awake without work
    std::condition_variable work_, end_;

    void grow(size_t size) {
        if (size_ >= size) return;
        const SignalsBlocked inherited;
        try {
            for (; size_ < size; ++size_) std::thread(&Pool::serve, this).detach();
        } catch (const std::system_error&) {
            // The system gives no more threads; those there are do the work.
        }
    }

    Job* open() const {
        Job* job = jobs_;
        while (job && job->joined == job->threads) job = job->next;
        return job;
    }

    [[noreturn]] void serve() {
        std::unique_lock<std::mutex> lock(mutex_);
        for (;;) {
            if (!open()) {
                ++looking_;
                const size_t seen = posted_;
                lock.unlock();
                look_for([&] { return posted_.load(std::memory_order_acquire) != seen; });
                take(lock);
                --looking_;
            }
            work_.wait(lock, [&] { return open(); });
            Job& job = *open();
            const size_t thread = job.joined++;
            ++job.running;
            lock.unlock();
            const std::exception_ptr thrown = job.attempt(thread);
            take(lock);
            if (thrown) job.thrown = thrown;
            if (--job.running == 0) end_.notify_all();  // from here on the job may be gone
        }
    }
};

// Never destroyed: threads may sleep in it until the process ends.
std::atomic<Pool*> current{nullptr};

Pool& pool() {
    Pool* found = current.load(std::memory_order_acquire);
    if (found) return *found;
    auto fresh = std::make_unique<Pool>();
    if (current.compare_exchange_strong(found, fresh.get(), std::memory_order_acq_rel)) return *fresh.release();
    return *found;
}

// A forked process has none of the threads, and a mutex that one of them may have held.
const int kForked = pthread_atfork(nullptr, nullptr, [] { current.store(nullptr, std::memory_order_relaxed); });

}  // namespace

void together(size_t threads, const std::function<void(size_t)>& run) {
    if (threads <= 1) return run(0);
    Job job{run, threads};
    pool().run(job);
}

}  // namespace sparsepriors
