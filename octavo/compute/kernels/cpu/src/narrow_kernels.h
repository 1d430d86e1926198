// Matrix products against weights of two bytes (float16 and bfloat16). Included by every instruction-set unit.
//
// Weights are widened exactly, and each output is the chain of linear_kernels.h: the bits are those of the
// same weights in float32, whatever the number of tokens.
#pragma once
#include "isa.h"
#include "linear_kernels.h"
#include "vector.h"

namespace octavo {
namespace {

constexpr int kWideInputs = 256;   // that are widened at a time for many tokens: 16 KB of the L1 cache
constexpr int kNarrowTokens = 192;  // whose sums are kept between the parts of a long row

struct Half {
    uint16_t bits;
};
struct Bfloat {
    uint16_t bits;
};

OCTAVO_INLINE Vec load_wide(const float* from) { return load(from); }
OCTAVO_INLINE Vec load_wide(const Half* from) { return load_halves(from); }

OCTAVO_INLINE Vec load_wide(const Bfloat* from) {
#if defined(__AVX2__)
    const __m256i wide = _mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
    return (Vec)_mm256_slli_epi32(wide, 16);
#else
    uint32_t bits[kLanes];
    for (int i = 0; i < kLanes; ++i) bits[i] = static_cast<uint32_t>(from[i].bits) << 16;
    Vec to;
    std::memcpy(&to, bits, sizeof to);
    return to;
#endif
}

// c [T][16] += x times the weights [num_inputs][16], one input after the other.
template <int T, typename Weight>
OCTAVO_INLINE void add_inputs(const float* x, int64_t x_stride, const Weight* weights, int64_t num_inputs, float* c) {
    Vec sums[T][2];
#pragma GCC unroll 8
    for (int t = 0; t < T; ++t) sums[t][0] = load(c + t * kPanelRows), sums[t][1] = load(c + t * kPanelRows + kLanes);
    for (int64_t k = 0; k < num_inputs; ++k) {
        const Vec low = load_wide(weights + k * kPanelRows), high = load_wide(weights + k * kPanelRows + kLanes);
#pragma GCC unroll 8
        for (int t = 0; t < T; ++t) {
            const Vec value = broadcast(x[t * x_stride + k]);
            sums[t][0] = multiply_add(low, value, sums[t][0]);
            sums[t][1] = multiply_add(high, value, sums[t][1]);
        }
    }
#pragma GCC unroll 8
    for (int t = 0; t < T; ++t) store(c + t * kPanelRows, sums[t][0]), store(c + t * kPanelRows + kLanes, sums[t][1]);
}

// The same for up to kTileTokens tokens.
template <typename Weight>
__attribute__((noinline)) void add_tile(int num_tokens, const float* x, int64_t x_stride, const Weight* weights,
                                        int64_t num_inputs, float* c) {
    switch (num_tokens) {
#if defined(__AVX2__)
        case 6: add_inputs<6>(x, x_stride, weights, num_inputs, c); break;
        case 5: add_inputs<5>(x, x_stride, weights, num_inputs, c); break;
        case 4: add_inputs<4>(x, x_stride, weights, num_inputs, c); break;
        case 3: add_inputs<3>(x, x_stride, weights, num_inputs, c); break;
#endif
        case 2: add_inputs<2>(x, x_stride, weights, num_inputs, c); break;
        default: add_inputs<1>(x, x_stride, weights, num_inputs, c); break;
    }
}

// How many of the tokens that are left come next: no tile is so small that its few chains wait for themselves.
OCTAVO_INLINE int next_tile(int64_t tokens_left) {
    if (tokens_left >= 2 * kTileTokens) return kTileTokens;
    return static_cast<int>(tokens_left <= kTileTokens ? tokens_left : (tokens_left + 1) / 2);
}

// c [num_tokens][16] += x times the weights [num_inputs][16].
template <typename Weight>
OCTAVO_INLINE void add_tiles(int64_t num_tokens, const float* x, int64_t x_stride, const Weight* weights,
                                         int64_t num_inputs, float* c) {
    for (int64_t t = 0; t < num_tokens;) {
        const int tile = next_tile(num_tokens - t);
        add_tile(tile, x + t * x_stride, x_stride, weights, num_inputs, c + t * kPanelRows);
        t += tile;
    }
}

// Sums c [num_tokens][16] -> the panel's columns of `out`.
OCTAVO_INLINE void store_narrow_sums(const LinearCall& call, int64_t panel, int64_t first_token, int64_t num_tokens,
                                     const float* c) {
    const int64_t row = panel * kPanelRows, rows_left = call.out_size - row;
    const int num_rows = rows_left < kPanelRows ? static_cast<int>(rows_left) : kPanelRows;
    for (int64_t t = 0; t < num_tokens; ++t, c += kPanelRows) {
        float* to = call.out + (first_token + t) * call.out_stride + row;
        for (int i = 0; i < num_rows; ++i) {
            float sum = c[i];
            if (call.bias) sum = sum + call.bias[row + i];
            to[i] = call.adds ? sum + to[i] : sum;
        }
    }
}

// Few tokens are multiplied straight from the panel; for more, it pays to widen it first.
template <typename Weight>
void multiply_narrow_panel(const LinearCall& call, int64_t panel, const Weight* weights, int64_t first_token,
                           int64_t num_tokens) {
    alignas(64) float c[kNarrowTokens * kPanelRows];
    std::memset(c, 0, sizeof(float) * num_tokens * kPanelRows);
    const float* x = call.x + first_token * call.x_stride;
    if (num_tokens <= 2 * kTileTokens) {
        add_tiles(num_tokens, x, call.x_stride, weights, call.in_size, c);
    } else {
        alignas(64) float wide[kWideInputs * kPanelRows];
        for (int64_t k = 0; k < call.in_size; k += kWideInputs) {
            const int64_t left = call.in_size - k, num_inputs = left < kWideInputs ? left : kWideInputs;
            for (int64_t i = 0; i < num_inputs * kPanelRows; i += kLanes)
                store(wide + i, load_wide(weights + k * kPanelRows + i));
            add_tiles(num_tokens, x + k, call.x_stride, wide, num_inputs, c);
        }
    }
    store_narrow_sums(call, panel, first_token, num_tokens, c);
}

template <typename Weight>
void multiply_narrow_panels(const LinearCall& call, const Weight* panels, int64_t first_panel, int64_t end_panel) {
    for (int64_t p = first_panel; p < end_panel; ++p)
        for (int64_t t = 0; t < call.num_tokens; t += kNarrowTokens) {
            const int64_t left = call.num_tokens - t;
            multiply_narrow_panel(call, p, panels + p * call.in_size * kPanelRows, t,
                                  left < kNarrowTokens ? left : kNarrowTokens);
        }
}

void multiply_narrow(const NarrowCall& call, int64_t first_panel, int64_t end_panel) {
    if (call.is_half)
        multiply_narrow_panels(call.rest, static_cast<const Half*>(call.panels), first_panel, end_panel);
    else
        multiply_narrow_panels(call.rest, static_cast<const Bfloat*>(call.panels), first_panel, end_panel);
}

}  // namespace
}  // namespace octavo
