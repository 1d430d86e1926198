// The part of the C interface that packs weights and reads single rows of them.
// The Python side has checked shapes, formats and devices; row ids are checked here.
#include <atomic>

#include "isa.h"
#include "lowbit_pack.h"
#include "program.h"
#include "thread_pool.h"

#define OCTAVO_API extern "C" __attribute__((visibility("default")))

using namespace octavo;

namespace {

constexpr int64_t kMinParallelRows = 8;  // of an embedding

}  // namespace

// Bytes of the panels of a weight [out_size][in_size] of this ggml type; 0: it is not kept in low-bit form.
OCTAVO_API int64_t octavo_lowbit_bytes(int32_t ggml_type, int64_t out_size, int64_t in_size) {
    PanelLayout layout;
    if (!find_layout(ggml_type, &layout) || in_size % kBlockSize != 0) return 0;
    return (out_size + kPanelRows - 1) / kPanelRows * (in_size / kBlockSize) * layout.block_bytes();
}

// Returns 0, or 1 where a scale does not fit; then the panels are of no use.
OCTAVO_API int64_t octavo_lowbit_pack(int32_t ggml_type, const uint8_t* rows, int64_t out_size, int64_t in_size,
                                      uint8_t* panels, int32_t num_threads) {
    PanelLayout layout;
    if (!find_layout(ggml_type, &layout)) return 1;
    const PackCall call = {static_cast<GgmlTypeId>(ggml_type), layout, rows, out_size, in_size / kBlockSize, panels};
    std::atomic<bool> fits{true};
    for_each_item((out_size + kPanelRows - 1) / kPanelRows, num_threads, [&](int64_t panel, int) {
        if (!pack_panel(call, panel)) fits.store(false);
    });
    return fits.load() ? 0 : 1;
}

// out [num_rows][in_size]. Returns 0, or the first index whose row does not exist, plus 1.
OCTAVO_API int64_t octavo_weight_rows(int32_t ggml_type, const uint8_t* panels, int64_t out_size, int64_t in_size,
                                      const int64_t* row_ids, int64_t num_rows, float* out, int32_t num_threads) {
    StepInputs now = {num_rows, num_threads};
    now.token_ids = row_ids;
    return perform({"rows", 1, in_size}, now, [=](const StepInputs& step) {
        PanelLayout layout;
        const bool is_lowbit = find_layout(ggml_type, &layout);
        for (int64_t i = 0; i < step.num_tokens; ++i)
            if (step.token_ids[i] < 0 || step.token_ids[i] >= out_size) return i + 1;
        const int num_threads = step.num_tokens < kMinParallelRows ? 1 : step.num_threads;
        for_each_item(step.num_tokens, num_threads, [&](int64_t i, int) {
            const int64_t row = step.token_ids[i];
            float* to = out + i * in_size;
            if (is_lowbit)
                read_row(layout, panels, in_size / kBlockSize, row, to);
            else
                read_plain_row(ggml_type, panels, in_size, row, to);
        });
        return int64_t{0};
    });
}
