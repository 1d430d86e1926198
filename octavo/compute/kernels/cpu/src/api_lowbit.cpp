// The part of the C interface that deals with weights: packing, rows, products; low-bit and float32.
// The Python side has checked shapes, formats and devices; row ids are checked here.
#include <algorithm>
#include <atomic>
#include <cstdlib>

#include "isa.h"
#include "lowbit_pack.h"
#include "program.h"
#include "thread_pool.h"

#define OCTAVO_API extern "C" __attribute__((visibility("default")))

namespace octavo {
namespace {

constexpr int64_t kMinParallelWork = 1 << 18;    // multiply-adds of a product
constexpr int64_t kMinParallelFloats = 1 << 14;  // of a quantisation
// Items more than threads, so that a thread that was interrupted does not hold up the others.
constexpr int64_t kItemsPerThread = 12;

// Memory for quantised activations, kept from call to call.
class Scratch {
  public:
    ~Scratch() { std::free(bytes_); }

    uint8_t* take(int64_t num_bytes) {
        if (num_bytes > size_) {
            std::free(bytes_);
            size_ = (num_bytes + 4095) / 4096 * 4096;
            bytes_ = static_cast<uint8_t*>(std::aligned_alloc(64, size_));
        }
        return bytes_;
    }

  private:
    uint8_t* bytes_ = nullptr;
    int64_t size_ = 0;
};

thread_local Scratch g_activations;

}  // namespace
}  // namespace octavo

using namespace octavo;

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
                                      const int64_t* row_ids, int64_t num_rows, float* out) {
    StepInputs now = {num_rows, 1};
    now.token_ids = row_ids;
    return perform({"rows", 1, in_size}, now, [=](const StepInputs& step) {
        PanelLayout layout;
        const bool is_lowbit = find_layout(ggml_type, &layout);
        for (int64_t i = 0; i < step.num_tokens; ++i)
            if (step.token_ids[i] < 0 || step.token_ids[i] >= out_size) return i + 1;
        for (int64_t i = 0; i < step.num_tokens; ++i) {
            const int64_t row = step.token_ids[i];
            float* to = out + i * in_size;
            if (is_lowbit)
                read_row(layout, panels, in_size / kBlockSize, row, to);
            else
                read_plain_row(ggml_type, panels, in_size, row, to);
        }
        return int64_t{0};
    });
}

namespace octavo {
namespace {

void multiply_lowbit(const IsaKernels& kernels, const float* x, int64_t x_stride, LowbitCall call, int num_threads) {
    const int64_t in_size = call.num_blocks * kBlockSize, num_tiles = (call.num_tokens + kTileWidth - 1) / kTileWidth;
    uint8_t* activations =
        g_activations.take(call.num_tokens * call.num_blocks * activation_bytes(call.layout.format));
    call.activations = activations;
    const QuantizeCall quantize = {x, x_stride, call.num_tokens, call.num_blocks, call.layout.format, activations};
    const int64_t num_parts =
        call.num_tokens * in_size < kMinParallelFloats ? 1 : std::min<int64_t>(num_tiles, 4 * num_threads);
    for_each_item(num_parts, num_threads, [&](int64_t part, int) {
        kernels.quantize_tiles(quantize, num_tiles * part / num_parts, num_tiles * (part + 1) / num_parts);
    });
    const int64_t num_panels = (call.out_size + kPanelRows - 1) / kPanelRows;
    // A product with one token reads each weight once: then the bytes are the work.
    const int64_t work = std::max(call.num_tokens, int64_t{4}) * in_size * call.out_size;
    const int64_t num_items = work < kMinParallelWork ? 1 : std::min(num_panels, kItemsPerThread * num_threads);
    for_each_item(num_items, num_threads, [&](int64_t item, int) {
        kernels.multiply_lowbit(call, num_panels * item / num_items, num_panels * (item + 1) / num_items);
    });
}

void multiply_floats(const IsaKernels& kernels, const LinearCall& call, int num_threads) {
    const int64_t num_panels = (call.out_size + kPanelRows - 1) / kPanelRows;
    const int64_t work = std::max(call.num_tokens, int64_t{4}) * call.in_size * call.out_size;
    const int64_t num_items = work < kMinParallelWork ? 1 : std::min<int64_t>(num_panels, 8 * num_threads);
    for_each_item(num_items, num_threads, [&](int64_t item, int) {
        kernels.multiply_panels(call, num_panels * item / num_items, num_panels * (item + 1) / num_items);
    });
}

}  // namespace
}  // namespace octavo

OCTAVO_API void octavo_lowbit_linear(const void* isa, int32_t ggml_type, const float* x, int64_t x_stride,
                                     const uint8_t* panels, const float* bias, float* out, int64_t out_stride,
                                     int32_t adds, int64_t num_tokens, int64_t in_size, int64_t out_size,
                                     int32_t num_threads) {
    PanelLayout layout;
    find_layout(ggml_type, &layout);
    const LowbitCall fixed = {layout,     panels,    nullptr,    bias,                 out,
                              out_stride, adds != 0, num_tokens, in_size / kBlockSize, out_size};
    perform({"linear", in_size, out_size}, {num_tokens, num_threads}, [=](const StepInputs& step) {
        LowbitCall call = fixed;
        call.num_tokens = step.num_tokens;
        multiply_lowbit(*static_cast<const IsaKernels*>(isa), x, x_stride, call, step.num_threads);
        return int64_t{0};
    });
}

OCTAVO_API void octavo_linear(const void* isa, const float* x, int64_t x_stride, const float* panels, const float* bias,
                              float* out, int64_t out_stride, int32_t adds, int64_t num_tokens, int64_t in_size,
                              int64_t out_size, int32_t num_threads) {
    const LinearCall fixed = {x, x_stride, panels, bias, out, out_stride, adds != 0, num_tokens, in_size, out_size};
    perform({"linear", in_size, out_size}, {num_tokens, num_threads}, [=](const StepInputs& step) {
        LinearCall call = fixed;
        call.num_tokens = step.num_tokens;
        multiply_floats(*static_cast<const IsaKernels*>(isa), call, step.num_threads);
        return int64_t{0};
    });
}
