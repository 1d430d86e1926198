// The part of the C interface that deals with low-bit weights: packing, rows, products.
// The Python side has checked shapes, formats and devices; row ids are checked here.
#include <algorithm>
#include <atomic>
#include <cstdlib>

#include "isa.h"
#include "lowbit_pack.h"
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
OCTAVO_API int64_t octavo_lowbit_rows(int32_t ggml_type, const uint8_t* panels, int64_t out_size, int64_t in_size,
                                      const int64_t* row_ids, int64_t num_rows, float* out) {
    PanelLayout layout;
    find_layout(ggml_type, &layout);
    for (int64_t i = 0; i < num_rows; ++i)
        if (row_ids[i] < 0 || row_ids[i] >= out_size) return i + 1;
    for (int64_t i = 0; i < num_rows; ++i) read_row(layout, panels, in_size / kBlockSize, row_ids[i], out + i * in_size);
    return 0;
}

OCTAVO_API void octavo_lowbit_linear(const void* isa, int32_t ggml_type, const float* x, int64_t x_stride,
                                     const uint8_t* panels, const float* bias, float* out, int64_t out_stride,
                                     int32_t adds, int64_t num_tokens, int64_t in_size, int64_t out_size,
                                     int32_t num_threads) {
    PanelLayout layout;
    find_layout(ggml_type, &layout);
    const auto* kernels = static_cast<const IsaKernels*>(isa);
    const int64_t num_blocks = in_size / kBlockSize, num_tiles = (num_tokens + kTileWidth - 1) / kTileWidth;
    uint8_t* activations = g_activations.take(num_tokens * num_blocks * activation_bytes(layout.format));
    const QuantizeCall quantize = {x, x_stride, num_tokens, num_blocks, layout.format, activations};
    const int64_t num_parts =
        num_tokens * in_size < kMinParallelFloats ? 1 : std::min<int64_t>(num_tiles, 4 * num_threads);
    for_each_item(num_parts, num_threads, [&](int64_t part, int) {
        kernels->quantize_tiles(quantize, num_tiles * part / num_parts, num_tiles * (part + 1) / num_parts);
    });
    const LowbitCall call = {layout,    panels,     activations, bias,    out,
                             out_stride, adds != 0, num_tokens,  num_blocks, out_size};
    const int64_t num_panels = (out_size + kPanelRows - 1) / kPanelRows;
    const int64_t work = std::max(num_tokens, int64_t{4}) * in_size * out_size;
    const int64_t num_items = work < kMinParallelWork ? 1 : std::min(num_panels, kItemsPerThread * num_threads);
    for_each_item(num_items, num_threads, [&](int64_t item, int) {
        kernels->multiply_lowbit(call, num_panels * item / num_items, num_panels * (item + 1) / num_items);
    });
}
