// A matrix product with a weight of any format, prepared once and then asked for in ranges of panels.
#pragma once
#include <cstdint>

#include "isa.h"

namespace octavo {

struct Weight {
    int32_t ggml_type;  // of low-bit panels; F16 or BF16; else float32
    const void* panels;
    const float* bias;  // [out_size] or null
    int64_t in_size, out_size;

    int64_t num_panels() const { return (out_size + kPanelRows - 1) / kPanelRows; }
};

// Rows x_stride floats apart, [num_tokens][in_size]; twice as long where `before` is kGatedSilu.
struct Inputs {
    Before before;
    const float* x;
    int64_t x_stride;
    int64_t num_tokens;
};

// Uses memory of the calling thread for the prepared inputs: one product at a time.
class Product {
  public:
    // Prepares the inputs: applies `before`, and rounds them where the weight is low-bit.
    Product(const IsaKernels& isa, const Weight& weight, const Inputs& inputs, int num_threads);

    // `out` is where the first row's value of the first panel goes; `adds` to what it holds.
    void multiply(int64_t first_panel, int64_t end_panel, float* out, int64_t out_stride, bool adds) const;

    // Work items for so many threads; one where handing over would cost more than it saves.
    int64_t num_items(int num_threads) const;

  private:
    void quantize(const PanelLayout& layout, int num_threads);
    void prepare_floats(int num_threads);

    const IsaKernels& isa_;
    Weight weight_;
    Inputs inputs_;
    PanelLayout layout_{};
    bool is_lowbit_;
    const uint8_t* activations_ = nullptr;
};

}  // namespace octavo
