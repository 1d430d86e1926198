#include "product.h"

#include <algorithm>
#include <cstdlib>

#include "lowbit_pack.h"
#include "thread_pool.h"

namespace octavo {
namespace {

constexpr int64_t kMinParallelWork = 1 << 18;    // multiply-adds of a product
constexpr int64_t kMinParallelFloats = 1 << 13;  // of preparing
// Work items are small enough that no thread waits long for the other's last one, and at least so many that one
// which was interrupted does not hold up the rest.
constexpr int64_t kItemWork = 1 << 22;
constexpr int64_t kItemsPerThread = 12;

// Memory for prepared inputs, kept from call to call.
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

thread_local Scratch g_prepared;

// function(first, end) over `count` rows or tiles, cut where they are enough.
template <typename Function>
void for_ranges(int64_t count, int64_t num_floats, int num_threads, Function&& function) {
    const int64_t num_parts = num_floats < kMinParallelFloats ? 1 : std::min<int64_t>(count, 4 * num_threads);
    for_each_item(num_parts, num_threads,
                  [&](int64_t part, int) { function(count * part / num_parts, count * (part + 1) / num_parts); });
}

}  // namespace

Product::Product(const IsaKernels& isa, const Weight& weight, const Inputs& inputs, int num_threads)
    : isa_(isa), weight_(weight), inputs_(inputs), is_lowbit_(find_layout(weight.ggml_type, &layout_)) {
    if (is_lowbit_)
        quantize(layout_, num_threads);
    else if (inputs.before.kind != kAsItIs)
        prepare_floats(num_threads);
}

void Product::quantize(const PanelLayout& layout, int num_threads) {
    const int64_t num_tokens = inputs_.num_tokens, num_blocks = weight_.in_size / kBlockSize;
    uint8_t* activations = g_prepared.take(num_tokens * num_blocks * activation_bytes(layout.format));
    const QuantizeCall call = {inputs_.before, inputs_.x,     inputs_.x_stride, num_tokens,
                               num_blocks,     layout.format, activations};
    for_ranges((num_tokens + kTileWidth - 1) / kTileWidth, num_tokens * weight_.in_size, num_threads,
               [&](int64_t first, int64_t end) { isa_.quantize_tiles(call, first, end); });
    activations_ = activations;
}

void Product::prepare_floats(int num_threads) {
    const int64_t size = weight_.in_size, num_tokens = inputs_.num_tokens;
    auto* prepared = reinterpret_cast<float*>(g_prepared.take(num_tokens * size * static_cast<int64_t>(sizeof(float))));
    const StridedRows rows = {num_tokens, 1, size, inputs_.x_stride, 0};
    const Before& before = inputs_.before;
    for_ranges(num_tokens, num_tokens * size, num_threads, [&](int64_t first, int64_t end) {
        if (before.kind == kRmsNormed)
            isa_.rms_norm(rows, inputs_.x, before.weight, before.eps, first, end, prepared);
        else
            isa_.gated_silu(size, inputs_.x, inputs_.x_stride, inputs_.x + size, inputs_.x_stride, first, end, prepared);
    });
    inputs_.x = prepared;
    inputs_.x_stride = size;
}

void Product::multiply(int64_t first_panel, int64_t end_panel, float* out, int64_t out_stride, bool adds) const {
    const int64_t first = first_panel * kPanelRows, out_size = std::min(weight_.out_size, end_panel * kPanelRows) - first;
    const float* bias = weight_.bias == nullptr ? nullptr : weight_.bias + first;
    const int64_t num_tokens = inputs_.num_tokens, num_panels = end_panel - first_panel;
    if (is_lowbit_) {
        const int64_t num_blocks = weight_.in_size / kBlockSize;
        const auto* panels = static_cast<const uint8_t*>(weight_.panels) + first_panel * num_blocks * layout_.block_bytes();
        const LowbitCall call = {layout_,    panels, activations_, bias,       out,
                                 out_stride, adds,   num_tokens,   num_blocks, out_size};
        return isa_.multiply_lowbit(call, 0, num_panels);
    }
    LinearCall call = {inputs_.x,  inputs_.x_stride, nullptr,    nullptr,         out,
                       out_stride, adds,             num_tokens, weight_.in_size, out_size};
    call.bias = bias;
    const int64_t skipped = first * weight_.in_size;
    if (weight_.ggml_type == kF16 || weight_.ggml_type == kBF16) {
        const NarrowCall narrow = {call, static_cast<const uint16_t*>(weight_.panels) + skipped, weight_.ggml_type == kF16};
        return isa_.multiply_narrow(narrow, 0, num_panels);
    }
    call.panels = static_cast<const float*>(weight_.panels) + skipped;
    isa_.multiply_panels(call, 0, num_panels);
}

int64_t Product::num_items(int num_threads) const {
    // A product with one token reads each weight once: then the bytes are the work.
    const int64_t work = std::max(inputs_.num_tokens, int64_t{4}) * weight_.in_size * weight_.out_size;
    if (work < kMinParallelWork) return 1;
    return std::min(weight_.num_panels(), std::max(kItemsPerThread * num_threads, work / kItemWork));
}

}  // namespace octavo
