#include "thread_pool.h"

#include <pthread.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <thread>
#include <vector>

namespace octavo {
namespace {

// About as long as the gap between two kernels of one step; longer would take CPU from torch's threads.
constexpr auto kSpinTime = std::chrono::microseconds(20);

void pause_briefly() {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    asm volatile("yield");
#endif
}

template <typename Condition>
bool spin_until(Condition condition) {
    const auto deadline = std::chrono::steady_clock::now() + kSpinTime;
    do {
        for (int i = 0; i < 32; ++i) {
            if (condition()) return true;
            pause_briefly();
        }
    } while (std::chrono::steady_clock::now() < deadline);
    return condition();
}

// A thread's share of a job's items: the first one left in the upper half, the end in the lower.
struct alignas(64) Share {
    std::atomic<uint64_t> items;

    void set(int64_t first, int64_t end) { items.store(static_cast<uint64_t>(first) << 32 | static_cast<uint64_t>(end)); }

    // The owner takes from the front and all others from the back, so that each reads memory in one stream.
    // -1 if there is none left.
    int64_t take(bool is_own) {
        uint64_t left = items.load(std::memory_order_relaxed);
        for (;;) {
            const uint64_t first = left >> 32, end = left & 0xffffffff;
            if (first >= end) return -1;
            const uint64_t rest = is_own ? left + (uint64_t{1} << 32) : left - 1;
            if (items.compare_exchange_weak(left, rest, std::memory_order_relaxed))
                return static_cast<int64_t>(is_own ? first : end - 1);
        }
    }
};

struct Job {
    int num_threads;
    ItemFunction function;
    void* context;
    Share* shares;  // [num_threads]

    void work(int worker) {
        for (int i = 0; i < num_threads; ++i) {
            Share& share = shares[(worker + i) % num_threads];
            for (int64_t item; (item = share.take(i == 0)) >= 0;) function(context, item, worker);
        }
    }
};

void work_alone(int64_t num_items, ItemFunction function, void* context) {
    for (int64_t item = 0; item < num_items; ++item) function(context, item, 0);
}

// Jobs are handed over through atomics alone; the mutex is only for sleeping. Each of the two handshakes
// (is there a job / is anyone inside; is there a job / is anyone asleep) writes its own side before it reads the
// other's, in one total order, so that at least one of the two sees the other.
class ThreadPool {
  public:
    void run(int64_t num_items, int num_threads, ItemFunction function, void* context) {
        std::unique_lock<std::mutex> turn(turn_, std::try_to_lock);
        if (!turn.owns_lock()) return work_alone(num_items, function, context);
        while (num_workers_ < num_threads - 1) start_worker();
        if (shares_.size() < static_cast<size_t>(num_threads)) shares_ = std::vector<Share>(num_threads);
        for (int i = 0; i < num_threads; ++i)
            shares_[i].set(num_items * i / num_threads, num_items * (i + 1) / num_threads);
        Job job{num_threads, function, context, shares_.data()};
        job_.store(&job);
        generation_.fetch_add(1);
        if (num_asleep_.load() > 0) {
            { std::lock_guard<std::mutex> lock(mutex_); }
            job_came_.notify_all();
        }
        job.work(0);
        // No more workers may join; those inside must leave before the job's memory goes away. A worker
        // that is still asleep is not waited for.
        job_.store(nullptr);
        const auto all_left = [this] { return num_inside_.load() == 0; };
        if (all_left() || spin_until(all_left)) return;
        std::unique_lock<std::mutex> lock(mutex_);
        is_waiting_.store(true);
        workers_left_.wait(lock, all_left);
        is_waiting_.store(false);
    }

  private:
    void start_worker() {
        const int worker = ++num_workers_;
        // Detached: a worker sleeps until the process ends.
        std::thread([this, worker] { serve(worker); }).detach();
    }

    void serve(int worker) {
        uint64_t seen = 0;
        const auto has_come = [&] { return generation_.load() != seen; };
        for (;;) {
            if (!spin_until(has_come)) {
                std::unique_lock<std::mutex> lock(mutex_);
                num_asleep_.fetch_add(1);
                job_came_.wait(lock, has_come);
                num_asleep_.fetch_sub(1);
            }
            seen = generation_.load();
            num_inside_.fetch_add(1);
            Job* job = job_.load();
            if (job != nullptr && worker < job->num_threads) job->work(worker);
            if (num_inside_.fetch_sub(1) == 1 && is_waiting_.load()) {
                { std::lock_guard<std::mutex> lock(mutex_); }
                workers_left_.notify_one();
            }
        }
    }

    std::vector<Share> shares_;  // of the caller whose turn it is
    std::mutex turn_;   // held by the caller whose job it is
    std::mutex mutex_;  // held to fall asleep and to wake
    std::condition_variable job_came_, workers_left_;
    std::atomic<Job*> job_{nullptr};
    std::atomic<uint64_t> generation_{0};
    std::atomic<int> num_inside_{0}, num_asleep_{0};
    std::atomic<bool> is_waiting_{false};
    int num_workers_ = 0;  // of the caller whose turn it is
};

ThreadPool* g_pool = nullptr;
std::once_flag g_pool_once;

// Never destroyed: workers may still sleep in it when the process ends. A forked child has no workers,
// so it gets a new pool.
ThreadPool& pool() {
    std::call_once(g_pool_once, [] {
        g_pool = new ThreadPool;
        pthread_atfork(nullptr, nullptr, [] { g_pool = new ThreadPool; });
    });
    return *g_pool;
}

}  // namespace

void run_parallel(int64_t num_items, int num_threads, ItemFunction function, void* context) {
    if (num_threads <= 1 || num_items <= 1) return work_alone(num_items, function, context);
    pool().run(num_items, num_threads, function, context);
}

}  // namespace octavo
