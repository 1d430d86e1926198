// Products of low-bit weights and quantised activations. Included by every instruction-set unit.
//
// A block's 32 products are summed exactly, in integers; then one multiply-add for the scales and one for
// the minimums, block after block. Each output is that one chain, whatever the number of tokens: its bits
// do not depend on the batch.
#pragma once
#include <cmath>

#include "isa.h"
#include "lowbit.h"
#include "row_kernels.h"
#include "vector.h"

namespace octavo {
namespace {

constexpr int kGroups = kPanelRows / kLanes;
constexpr int kChunkTokenRows = 128;  // tokens at a time: their sums (8 KB) stay in L1 beside a ready panel

// A block made ready for many tokens: quants, then 16 float scales and 16 float minimums.
constexpr int64_t kU4Ready = 512, kS8Ready = 1024, kReadyScales = 2 * kPanelRows * sizeof(float);
// Of this many blocks at a time, so that they stay in the L1 cache beside the activations.
constexpr int kU4ReadyBlocks = 24, kS8ReadyBlocks = 18;

// Blocks smaller than this are zero: their inverse scale would overflow.
constexpr float kSmallestMagnitude = 1e-35f;

OCTAVO_INLINE float activation_scale(float magnitude, float largest_quant) {
    return magnitude < kSmallestMagnitude ? 0.0f : magnitude / largest_quant;
}

OCTAVO_INLINE float inverse_activation_scale(float magnitude, float largest_quant) {
    return magnitude < kSmallestMagnitude ? 0.0f : largest_quant / magnitude;
}

#if defined(__AVX512BW__)
#include "lowbit_avx512.h"
#elif defined(__AVX2__)
#include "lowbit_avx2.h"
#elif defined(__ARM_FEATURE_DOTPROD)
#include "lowbit_neon.h"
#else
#include "lowbit_plain.h"
#endif
#include "lowbit_halves.h"

// float16 or float32 at `from` -> the 16 scales or minimums of a block.
OCTAVO_INLINE void load_scales(const uint8_t* from, int scale_bytes, Vec* to) {
    for (int g = 0; g < kGroups; ++g)
        to[g] = scale_bytes == 2 ? load_halves(from + g * kLanes * 2)
                                 : load(reinterpret_cast<const float*>(from) + g * kLanes);
}

// The running sums of a tile, [T][16]. Variables of their own while blocks are added: through a pointer that bytes
// might alias, the compiler would store each sum twice a block.
template <int T>
struct TileSums {
    Vec of[T][kGroups];

    OCTAVO_INLINE void load_from(const float* c) {
        for (int t = 0; t < T; ++t)
            for (int g = 0; g < kGroups; ++g) of[t][g] = load(c + t * kPanelRows + g * kLanes);
    }

    OCTAVO_INLINE void store_to(float* c) const {
        for (int t = 0; t < T; ++t)
            for (int g = 0; g < kGroups; ++g) store(c + t * kPanelRows + g * kLanes, of[t][g]);
    }
};

// c[t] += scale * a_scale[t] * sum[t] + minimum * a_scaled_sum[t], for one block.
template <int T, bool kMinimums>
OCTAVO_INLINE void add_block(const IntVec (&sums)[T][kGroups], const Vec* scales, const Vec* minimums,
                             const float* token_scales, TileSums<T>& c) {
#pragma GCC unroll 8
    for (int t = 0; t < T; ++t) {
        const Vec scale = broadcast(token_scales[t]), scaled_sum = broadcast(token_scales[T + t]);
#pragma GCC unroll 2
        for (int g = 0; g < kGroups; ++g) {
            Vec& sum = c.of[t][g];
            sum = multiply_add(to_float(sums[t][g]) * scales[g], scale, sum);
            if (kMinimums) sum = multiply_add(minimums[g], scaled_sum, sum);
        }
    }
}

// The bytes that will be made ready next. Tiles ask for them while they compute, a few lines a block: asked
// for in one go, the requests would fill the core's miss buffers and stall it.
struct NextBytes {
    const uint8_t* start;
    const uint8_t* end;
};
constexpr int64_t kNextBytesABlock = 192;

OCTAVO_INLINE void ask_for(NextBytes* next) {
    for (int64_t i = 0; i < kNextBytesABlock && next->start + i < next->end; i += 64)
        __builtin_prefetch(next->start + i, 0, 2);
    next->start += kNextBytesABlock;
}

// A tile of T tokens against blocks that were made ready.
template <int T, WeightFormat kFormat, bool kMinimums>
void multiply_ready(const uint8_t* ready, const uint8_t* activations, int64_t num_blocks, NextBytes* next, float* out) {
    constexpr int64_t kQuants = kFormat == kU4 ? kU4Ready : kS8Ready;
    TileSums<T> c;
    c.load_from(out);
    for (int64_t b = 0; b < num_blocks; ++b) {
        const uint8_t* quants = ready + b * (kQuants + kReadyScales);
        if (next->start < next->end) ask_for(next);
        const float* scales = reinterpret_cast<const float*>(quants + kQuants);
        const uint8_t* tile = activations + b * T * activation_bytes(kFormat);
        IntVec sums[T][kGroups];
        if (kFormat == kU4)
            sum_u4_ready<T>(quants, tile, sums);
        else
            sum_s8_ready<T>(quants, tile, sums);
        const Vec d[kGroups] = {load(scales), load(scales + 8)}, m[kGroups] = {load(scales + 16), load(scales + 24)};
        add_block<T, kMinimums>(sums, d, m, reinterpret_cast<const float*>(tile + T * (activation_bytes(kFormat) - 8)), c);
    }
    c.store_to(out);
}

// A tile of T tokens straight from the panel: for so few tokens that making ready would not pay.
template <int T, WeightFormat kFormat, bool kMinimums>
void multiply_packed(const PanelLayout& layout, const uint8_t* panel, const uint8_t* activations, int64_t num_blocks,
                     float* out) {
    TileSums<T> c = {};
    for (int64_t b = 0; b < num_blocks; ++b) {
        const uint8_t* block = panel + b * layout.block_bytes();
        const uint8_t* tile = activations + b * T * activation_bytes(kFormat);
        for (int64_t ahead = 0; ahead < layout.block_bytes(); ahead += 64)
            __builtin_prefetch(block + ahead + kPrefetchBytes);
        IntVec sums[T][kGroups];
        if (kFormat == kU4)
            sum_u4_packed<T>(block, tile, sums);
        else if (kFormat == kS8)
            sum_s8_packed<T>(block, tile, sums);
        else
            sum_s8_halves_packed<T>(block, tile, sums);
        Vec d[kGroups], m[kGroups] = {};
        load_scales(block + layout.quant_bytes(), layout.scale_bytes, d);
        if (kMinimums) load_scales(block + layout.quant_bytes() + kPanelRows * layout.scale_bytes, layout.scale_bytes, m);
        add_block<T, kMinimums>(sums, d, m, reinterpret_cast<const float*>(tile + T * (activation_bytes(kFormat) - 8)), c);
    }
    c.store_to(out);
}

template <WeightFormat kFormat, bool kMinimums>
void make_ready(const PanelLayout& layout, const uint8_t* blocks, int64_t num_blocks, uint8_t* ready) {
    constexpr int64_t kQuants = kFormat == kU4 ? kU4Ready : kS8Ready;
    for (int64_t b = 0; b < num_blocks; ++b) {
        const uint8_t* block = blocks + b * layout.block_bytes();
        uint8_t* to = ready + b * (kQuants + kReadyScales);
        if (kFormat == kU4)
            unpack_u4(block, to);
        else if (kFormat == kS8)
            unpack_s8(block, to);
        else
            unpack_s8_halves(block, to);
        Vec scales[2 * kGroups] = {};
        load_scales(block + layout.quant_bytes(), layout.scale_bytes, scales);
        if (kMinimums)
            load_scales(block + layout.quant_bytes() + kPanelRows * layout.scale_bytes, layout.scale_bytes,
                        scales + kGroups);
        for (int i = 0; i < 2 * kGroups; ++i) store(reinterpret_cast<float*>(to + kQuants) + i * kLanes, scales[i]);
    }
}

// Sums c [num_tokens][16] -> the panel's columns of `out`.
OCTAVO_INLINE void store_panel(const LowbitCall& call, int64_t panel, int64_t first_token, int64_t num_tokens,
                               const float* c) {
    const int64_t row = panel * kPanelRows, rows_left = call.out_size - row;
    const int num_rows = rows_left < kPanelRows ? static_cast<int>(rows_left) : kPanelRows;
    for (int64_t t = 0; t < num_tokens; ++t, c += kPanelRows) {
        float* to = call.out + (first_token + t) * call.out_stride + row;
        if (num_rows == kPanelRows) {
            for (int i = 0; i < kPanelRows; i += kLanes) {
                Vec sum = load(c + i);
                if (call.bias) sum = sum + load(call.bias + row + i);
                if (call.adds) sum = sum + load(to + i);
                store(to + i, sum);
            }
        } else {
            for (int i = 0; i < num_rows; ++i) {
                float sum = c[i];
                if (call.bias) sum = sum + call.bias[row + i];
                if (call.adds) sum = sum + to[i];
                to[i] = sum;
            }
        }
    }
}

template <int T, WeightFormat kFormat, bool kMinimums>
OCTAVO_INLINE void multiply_few(const LowbitCall& call, int64_t panel, const uint8_t* blocks) {
    alignas(32) float c[T * kPanelRows];
    multiply_packed<T, kFormat, kMinimums>(call.layout, blocks, call.activations, call.num_blocks, c);
    store_panel(call, panel, 0, T, c);
}

template <WeightFormat kFormat, bool kMinimums>
void multiply_many(const LowbitCall& call, int64_t panel, const uint8_t* blocks, int64_t first_token,
                   int64_t num_tokens) {
    constexpr int kReadyBlocks = kFormat == kU4 ? kU4ReadyBlocks : kS8ReadyBlocks;
    constexpr int64_t kQuants = kFormat == kU4 ? kU4Ready : kS8Ready;
    alignas(64) uint8_t ready[kReadyBlocks * (kQuants + kReadyScales)];
    alignas(64) float c[kChunkTokenRows * kPanelRows];
    std::memset(c, 0, sizeof(float) * num_tokens * kPanelRows);
    const int64_t token_bytes = call.num_blocks * activation_bytes(kFormat);
    for (int64_t b = 0; b < call.num_blocks; b += kReadyBlocks) {
        const int64_t num_blocks = call.num_blocks - b < kReadyBlocks ? call.num_blocks - b : kReadyBlocks;
        make_ready<kFormat, kMinimums>(call.layout, blocks + b * call.layout.block_bytes(), num_blocks, ready);
        const uint8_t* after = blocks + (b + num_blocks) * call.layout.block_bytes();
        NextBytes next = {after, after + num_blocks * call.layout.block_bytes()};
        const int64_t skipped = b * activation_bytes(kFormat);
        int64_t t = 0;
        for (; t + kTileWidth <= num_tokens; t += kTileWidth) {
            if (b + num_blocks == call.num_blocks)
                for (int i = 0; i < kTileWidth; ++i)
                    __builtin_prefetch(call.out + (first_token + t + i) * call.out_stride + panel * kPanelRows, 1, 2);
            multiply_ready<kTileWidth, kFormat, kMinimums>(
                ready, call.activations + (first_token + t) * token_bytes + kTileWidth * skipped, num_blocks, &next,
                c + t * kPanelRows);
        }
        const uint8_t* rest = call.activations + (first_token + t) * token_bytes;
        switch (num_tokens - t) {
            case 3: multiply_ready<3, kFormat, kMinimums>(ready, rest + 3 * skipped, num_blocks, &next, c + t * kPanelRows); break;
            case 2: multiply_ready<2, kFormat, kMinimums>(ready, rest + 2 * skipped, num_blocks, &next, c + t * kPanelRows); break;
            case 1: multiply_ready<1, kFormat, kMinimums>(ready, rest + 1 * skipped, num_blocks, &next, c + t * kPanelRows); break;
            default: break;
        }
    }
    store_panel(call, panel, first_token, num_tokens, c);
}

template <WeightFormat kFormat, bool kMinimums>
void multiply_format(const LowbitCall& call, int64_t first_panel, int64_t end_panel) {
    for (int64_t p = first_panel; p < end_panel; ++p) {
        const uint8_t* blocks = call.panels + p * call.num_blocks * call.layout.block_bytes();
        switch (call.num_tokens) {
            case 1: multiply_few<1, kFormat, kMinimums>(call, p, blocks); break;
            case 2: multiply_few<2, kFormat, kMinimums>(call, p, blocks); break;
            case 3: multiply_few<3, kFormat, kMinimums>(call, p, blocks); break;
            case 4: multiply_few<4, kFormat, kMinimums>(call, p, blocks); break;
            default:
                for (int64_t t = 0; t < call.num_tokens; t += kChunkTokenRows) {
                    const int64_t left = call.num_tokens - t;
                    multiply_many<kFormat, kMinimums>(call, p, blocks, t, left < kChunkTokenRows ? left : kChunkTokenRows);
                }
        }
    }
}

void multiply_lowbit(const LowbitCall& call, int64_t first_panel, int64_t end_panel) {
    if (call.layout.format == kU4)
        multiply_format<kU4, true>(call, first_panel, end_panel);
    else if (call.layout.format == kS8Halves)
        multiply_format<kS8Halves, false>(call, first_panel, end_panel);
    else if (call.layout.has_minimums)
        multiply_format<kS8, true>(call, first_panel, end_panel);
    else
        multiply_format<kS8, false>(call, first_panel, end_panel);
}

// One block of one token. The largest magnitude is found among the floats' bits, where NaN stands above
// all numbers: a block that holds one gets it as its scale.
OCTAVO_INLINE void quantize_block(const float* x, WeightFormat format, int tile_width, int t, uint8_t* block) {
    float* scales = reinterpret_cast<float*>(block + tile_width * (activation_bytes(format) - 8));
    int32_t sum;
    if (format == kU4) {
        alignas(32) int8_t quants[kBlockSize];
        sum = quantize_32(x, quants, scales + t);
        for (int step = 0; step < 8; ++step) std::memcpy(block + (step * tile_width + t) * 4, quants + step * 4, 4);
    } else {
        alignas(32) int16_t quants[kBlockSize];
        sum = quantize_32(x, quants, scales + t);
        for (int step = 0; step < 16; ++step) std::memcpy(block + (step * tile_width + t) * 4, quants + step * 2, 4);
    }
    scales[tile_width + t] = scales[t] * static_cast<float>(sum);
}

// The 32 numbers of a row's block that starts at `first`, as they go into the product.
template <BeforeKind kKind>
OCTAVO_INLINE const float* prepare_block(const QuantizeCall& call, const float* row, float inverse, int64_t first,
                                         float* numbers) {
    if (kKind == kAsItIs) return row + first;
    const float* up = row + call.num_blocks * kBlockSize + first;
    for (int i = 0; i < kBlockSize; i += kLanes) {
        const Vec x = load(row + first + i);
        if (kKind == kGatedSilu)
            store(numbers + i, silu(x) * load(up + i));
        else
            store(numbers + i, call.before.weight ? x * broadcast(inverse) * load(call.before.weight + first + i)
                                                  : x * broadcast(inverse));
    }
    return numbers;
}

template <BeforeKind kKind>
void quantize_kind(const QuantizeCall& call, int64_t first_tile, int64_t end_tile) {
    const int64_t token_bytes = call.num_blocks * activation_bytes(call.format);
    alignas(32) float numbers[kBlockSize];
    for (int64_t tile = first_tile; tile < end_tile; ++tile) {
        const int64_t first_token = tile * kTileWidth, left = call.num_tokens - first_token;
        const int width = left < kTileWidth ? static_cast<int>(left) : kTileWidth;
        for (int t = 0; t < width; ++t) {
            const float* row = call.x + (first_token + t) * call.x_stride;
            const float inverse = kKind == kRmsNormed ? inverse_rms(row, call.num_blocks * kBlockSize, call.before.eps) : 0;
            uint8_t* to = call.activations + first_token * token_bytes;
            for (int64_t b = 0; b < call.num_blocks; ++b, to += width * activation_bytes(call.format))
                quantize_block(prepare_block<kKind>(call, row, inverse, b * kBlockSize, numbers), call.format, width, t,
                               to);
        }
    }
}

void quantize_tiles(const QuantizeCall& call, int64_t first_tile, int64_t end_tile) {
    switch (call.before.kind) {
        case kAsItIs: return quantize_kind<kAsItIs>(call, first_tile, end_tile);
        case kRmsNormed: return quantize_kind<kRmsNormed>(call, first_tile, end_tile);
        case kGatedSilu: return quantize_kind<kGatedSilu>(call, first_tile, end_tile);
    }
}

}  // namespace
}  // namespace octavo
