// A small thread pool: the caller and up to N - 1 workers have a share of the items each, and then take from the
// others' what these have not begun.
// Owns its threads; never torch's. Workers spin briefly after a job, then sleep: an idle process uses no CPU.
#pragma once
#include <cstdint>

namespace octavo {

// Called once per item; `worker` is below num_threads and is the same thread throughout the job.
using ItemFunction = void (*)(void* context, int64_t item, int worker);

// Run all items and return when they are done. A second caller at the same time runs its job alone.
void run_parallel(int64_t num_items, int num_threads, ItemFunction function, void* context);

template <typename Function>
void for_each_item(int64_t num_items, int num_threads, Function&& function) {
    run_parallel(
        num_items, num_threads,
        [](void* context, int64_t item, int worker) { (*static_cast<Function*>(context))(item, worker); }, &function);
}

}  // namespace octavo
