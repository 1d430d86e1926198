// Matrix products against packed weights. Included by every instruction-set unit.
//
// A panel is 16 output rows side by side: [in_size][16]. Each output is one chain of multiply-adds over
// the inputs in their order, whatever the number of tokens: its bits do not depend on the batch.
#pragma once
#include "isa.h"
#include "vector.h"

namespace octavo {
namespace {

// Tokens whose accumulators stay in registers: 16 registers hold 6 x 2 sums, 2 weights and a broadcast.
#if defined(__AVX2__)
constexpr int kTileTokens = 6;
#else
constexpr int kTileTokens = 2;
#endif

// All loops over tokens are unrolled, or the compiler keeps the accumulators in memory.
template <int kTokens>
OCTAVO_INLINE void multiply_tile(const LinearCall& call, const float* panel, int64_t first_token, int num_rows,
                                 const float* bias, float* out) {
    const float* x = call.x + first_token * call.x_stride;
    Vec sums[kTokens][2];
#pragma GCC unroll 8
    for (int t = 0; t < kTokens; ++t) sums[t][0] = sums[t][1] = Vec{};
    for (int64_t k = 0; k < call.in_size; ++k) {
        const Vec low = load(panel + k * kPanelRows), high = load(panel + k * kPanelRows + kLanes);
#pragma GCC unroll 8
        for (int t = 0; t < kTokens; ++t) {
            const Vec value = broadcast(x[t * call.x_stride + k]);
            sums[t][0] = multiply_add(low, value, sums[t][0]);
            sums[t][1] = multiply_add(high, value, sums[t][1]);
        }
    }
#pragma GCC unroll 8
    for (int t = 0; t < kTokens; ++t) {
        float* row = out + (first_token + t) * call.out_stride;
        if (num_rows == kPanelRows) {
            for (int g = 0; g < 2; ++g) {
                Vec sum = sums[t][g];
                if (bias) sum = sum + load(bias + g * kLanes);
                if (call.adds) sum = sum + load(row + g * kLanes);
                store(row + g * kLanes, sum);
            }
        } else {
            for (int i = 0; i < num_rows; ++i) {
                float sum = sums[t][i / kLanes][i % kLanes];
                if (bias) sum = sum + bias[i];
                row[i] = call.adds ? sum + row[i] : sum;
            }
        }
    }
}

void multiply_panels(const LinearCall& call, int64_t first_panel, int64_t end_panel) {
    for (int64_t p = first_panel; p < end_panel; ++p) {
        const float* panel = call.panels + p * call.in_size * kPanelRows;
        const float* bias = call.bias ? call.bias + p * kPanelRows : nullptr;
        float* out = call.out + p * kPanelRows;
        const int64_t rows_left = call.out_size - p * kPanelRows;
        const int num_rows = rows_left < kPanelRows ? static_cast<int>(rows_left) : kPanelRows;
        int64_t token = 0;
        for (; token + kTileTokens <= call.num_tokens; token += kTileTokens)
            multiply_tile<kTileTokens>(call, panel, token, num_rows, bias, out);
        switch (call.num_tokens - token) {
#if defined(__AVX2__)
            case 5: multiply_tile<5>(call, panel, token, num_rows, bias, out); break;
            case 4: multiply_tile<4>(call, panel, token, num_rows, bias, out); break;
            case 3: multiply_tile<3>(call, panel, token, num_rows, bias, out); break;
            case 2: multiply_tile<2>(call, panel, token, num_rows, bias, out); break;
#endif
            case 1: multiply_tile<1>(call, panel, token, num_rows, bias, out); break;
            default: break;
        }
    }
}

}  // namespace
}  // namespace octavo
