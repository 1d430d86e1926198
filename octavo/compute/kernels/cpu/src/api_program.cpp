// The part of the C interface that records and runs whole forward passes.
#include "program.h"

#define OCTAVO_API extern "C" __attribute__((visibility("default")))

namespace octavo {

thread_local Program* g_recording = nullptr;

}  // namespace octavo

using namespace octavo;

// From now on this thread's calls are also noted down, until the recording is stopped.
OCTAVO_API void* octavo_start_recording() { return g_recording = new Program; }

OCTAVO_API void octavo_stop_recording() { g_recording = nullptr; }

OCTAVO_API void octavo_free_program(void* program) { delete static_cast<Program*>(program); }

// Returns 0, or the number of the call that found a wrong index in the step's inputs, plus 1.
OCTAVO_API int64_t octavo_run_program(const void* program, int32_t num_threads, int64_t num_tokens,
                                      const int64_t* token_ids, const int64_t* positions, const int64_t* slots,
                                      const int32_t* query_starts, const int32_t* context_lengths,
                                      const int32_t* block_tables, int64_t block_table_stride, int32_t num_sequences) {
    const StepInputs step = {num_tokens,   num_threads,     token_ids,    positions,          slots,
                             query_starts, context_lengths, block_tables, block_table_stride, num_sequences};
    const auto& calls = static_cast<const Program*>(program)->calls;
    for (size_t i = 0; i < calls.size(); ++i)
        if (calls[i](step) != 0) return static_cast<int64_t>(i) + 1;
    return 0;
}
