// A forward pass as a list of calls: recorded while Python makes them one by one, then run in one go.
// What differs from step to step stands in StepInputs; all else was captured when the call was recorded.
#pragma once
#include <cstdint>
#include <functional>
#include <vector>

namespace octavo {

struct StepInputs {
    int64_t num_tokens;
    int32_t num_threads;
    const int64_t* token_ids = nullptr;
    const int64_t* positions = nullptr;
    const int64_t* slots = nullptr;
    const int32_t* query_starts = nullptr;
    const int32_t* context_lengths = nullptr;
    const int32_t* block_tables = nullptr;
    int64_t block_table_stride = 0;
    int32_t num_sequences = 0;
};

// Returns 0, or something's place plus 1 where an index in the step's inputs was wrong.
using Call = std::function<int64_t(const StepInputs&)>;

// What a call is, for whoever asks where a step's time went.
struct CallLabel {
    const char* operation;
    int64_t in_size, out_size;  // of a product; of other kernels the numbers in and out per token
};

struct Program {
    std::vector<Call> calls;
    std::vector<CallLabel> labels;  // of each call
};

// The program that this thread's calls are being recorded into, or null.
extern thread_local Program* g_recording;

// Make a call now, and note it down where a program is being recorded.
template <typename Function>
int64_t perform(const CallLabel& label, const StepInputs& step, Function&& call) {
    if (g_recording != nullptr) {
        g_recording->calls.push_back(call);
        g_recording->labels.push_back(label);
    }
    return call(step);
}

}  // namespace octavo
