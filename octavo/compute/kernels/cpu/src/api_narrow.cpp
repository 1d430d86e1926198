// The part of the C interface for matrices of two bytes a weight: their products, cut into work items.
// The Python side has checked shapes, formats and devices.
#include <algorithm>

#include "isa.h"
#include "lowbit_pack.h"
#include "program.h"
#include "thread_pool.h"

#define OCTAVO_API extern "C" __attribute__((visibility("default")))

using namespace octavo;

namespace {

constexpr int64_t kMinParallelWork = 1 << 18;  // multiply-adds
constexpr int64_t kItemsPerThread = 8;

}  // namespace

// ggml_type: F16 or BF16.
OCTAVO_API void octavo_narrow_linear(const void* isa, int32_t ggml_type, const float* x, int64_t x_stride,
                                     const void* panels, const float* bias, float* out, int64_t out_stride,
                                     int32_t adds, int64_t num_tokens, int64_t in_size, int64_t out_size,
                                     int32_t num_threads) {
    const NarrowCall fixed = {
        {x, x_stride, nullptr, bias, out, out_stride, adds != 0, num_tokens, in_size, out_size},
        panels,
        ggml_type == kF16};
    perform({"linear", in_size, out_size}, {num_tokens, num_threads}, [=](const StepInputs& step) {
        NarrowCall call = fixed;
        call.rest.num_tokens = step.num_tokens;
        const auto* kernels = static_cast<const IsaKernels*>(isa);
        const int64_t num_panels = (out_size + kPanelRows - 1) / kPanelRows;
        // A product with one token reads each weight once: then the bytes are the work.
        const int64_t work = std::max(step.num_tokens, int64_t{4}) * in_size * out_size;
        const int64_t num_items =
            work < kMinParallelWork ? 1 : std::min<int64_t>(num_panels, kItemsPerThread * step.num_threads);
        for_each_item(num_items, step.num_threads, [&](int64_t item, int) {
            kernels->multiply_narrow(call, num_panels * item / num_items, num_panels * (item + 1) / num_items);
        });
        return int64_t{0};
    });
}
