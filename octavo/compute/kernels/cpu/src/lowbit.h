// Low-bit weights and quantised activations: their layouts in memory, shared by packing and kernels.
// A block is 32 inputs of a row, as in ggml's formats; a panel is 16 rows side by side.
#pragma once
#include <cstdint>

namespace octavo {

constexpr int kBlockSize = 32;
constexpr int kTileWidth = 4;  // tokens whose activations lie side by side; the last tile may be narrower

// How a block of a panel keeps its 16 x 32 weights. Every weight is scale * q + minimum.
//   kU4: q in 0..15. Four chunks of [2 groups][8 rows][4 inputs] bytes; the low halves of chunk j are
//        inputs 4j.., the high halves inputs 16 + 4j.. .
//   kS8: q in -128..127. Sixteen steps of [16 rows][2 inputs] bytes.
//   kS8Halves: as kS8, then a whole number s in -128..127 for each half (inputs 0..15 and 16..31), int8
//        [2 halves][16 rows]: the block's q is their product with s, which int16 holds.
// Then 16 scales and, where the format has them, 16 minimums: float16, or float32 where a format's products
// of scales need it.
enum WeightFormat : int32_t { kU4 = 0, kS8 = 1, kS8Halves = 2 };

struct PanelLayout {
    WeightFormat format;
    int32_t scale_bytes;  // 2 or 4
    bool has_minimums;    // kU4 always has

    constexpr int64_t quant_bytes() const { return format == kU4 ? 256 : format == kS8 ? 512 : 544; }
    constexpr int64_t block_bytes() const { return quant_bytes() + 16 * scale_bytes * (has_minimums ? 2 : 1); }
};

// Activations of one block and a tile of T tokens, quantised with one scale a token:
//   for kU4: int8 [8 steps][T][4 inputs];  for the others: int16 [16 steps][T][2 inputs];
//   then float scale[T] and float scaled_sum[T], the sum of the block's numbers times the scale.
// The finest steps whose sums fit: 8 x 2 x 15 x 128 in int16, and 32 x 128 x 128 x 4096 in int32 but for one.
constexpr int32_t kLargestByteQuant = 127, kLargestWideQuant = 4095;
constexpr int64_t activation_bytes(WeightFormat format) { return (format == kU4 ? 32 : 64) + 8; }  // a token

// What is done to a row of x before a product.
enum BeforeKind : int32_t {
    kAsItIs = 0,
    kRmsNormed = 1,  // RMS norm over the row
    kGatedSilu = 2,  // a row of x is [gate][up], each as long as the product's: silu(gate) * up
};

struct Before {
    BeforeKind kind;
    const float* weight;  // of the norm, or null
    float eps;
};

// x [num_tokens][32 * num_blocks] -> activations, tile after tile, each [num_blocks] blocks as above.
struct QuantizeCall {
    Before before;
    const float* x;
    int64_t x_stride;  // floats
    int64_t num_tokens;
    int64_t num_blocks;
    WeightFormat format;
    uint8_t* activations;
};

struct LowbitCall {
    PanelLayout layout;
    const uint8_t* panels;  // [ceil(out_size / 16)][num_blocks] blocks
    const uint8_t* activations;
    const float* bias;  // [out_size] or null
    float* out;         // [num_tokens][out_size], rows out_stride floats apart
    int64_t out_stride;
    bool adds;  // to what `out` holds
    int64_t num_tokens;
    int64_t num_blocks;
    int64_t out_size;
};

}  // namespace octavo
