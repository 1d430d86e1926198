// The part of the C interface that records and runs whole forward passes.
#include "program.h"

#include <chrono>

#define OCTAVO_API extern "C" __attribute__((visibility("default")))

namespace octavo {

thread_local Program* g_recording = nullptr;

}  // namespace octavo

using namespace octavo;

// From now on this thread's calls are also noted down, until the recording is stopped.
OCTAVO_API void* octavo_start_recording() { return g_recording = new Program; }

OCTAVO_API void octavo_stop_recording() { g_recording = nullptr; }

OCTAVO_API void octavo_free_program(void* program) { delete static_cast<Program*>(program); }

OCTAVO_API int64_t octavo_num_calls(const void* program) {
    return static_cast<int64_t>(static_cast<const Program*>(program)->calls.size());
}

// The operation's name, which lives as long as the library; and its sizes.
OCTAVO_API const char* octavo_call_label(const void* program, int64_t index, int64_t* in_size, int64_t* out_size) {
    const CallLabel& label = static_cast<const Program*>(program)->labels[index];
    *in_size = label.in_size, *out_size = label.out_size;
    return label.operation;
}

namespace octavo {
namespace {

int64_t now_ns() { return std::chrono::steady_clock::now().time_since_epoch() / std::chrono::nanoseconds(1); }

}  // namespace
}  // namespace octavo

// Returns 0, or the number of the call that found a wrong index in the step's inputs, plus 1.
// What each call took is added to nanoseconds [num_calls], unless that is null.
OCTAVO_API int64_t octavo_run_program(const void* program, int32_t num_threads, int64_t num_tokens,
                                      const int64_t* token_ids, const int64_t* positions, const int64_t* slots,
                                      const int32_t* query_starts, const int32_t* context_lengths,
                                      const int32_t* block_tables, int64_t block_table_stride, int32_t num_sequences,
                                      int64_t* nanoseconds) {
    const StepInputs step = {num_tokens,   num_threads,     token_ids,    positions,          slots,
                             query_starts, context_lengths, block_tables, block_table_stride, num_sequences};
    const auto& calls = static_cast<const Program*>(program)->calls;
    for (size_t i = 0; i < calls.size(); ++i) {
        const int64_t started_ns = nanoseconds == nullptr ? 0 : now_ns();
        if (calls[i](step) != 0) return static_cast<int64_t>(i) + 1;
        if (nanoseconds != nullptr) nanoseconds[i] += now_ns() - started_ns;
    }
    return 0;
}
