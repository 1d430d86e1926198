// The inner sums of lowbit_kernels.h for arm64 with the dot product instructions (armv8.2-a+dotprod).
// Included there, inside its namespace; what is not a sum is the plain unit's.

namespace plain {
#include "lowbit_plain.h"
}
using plain::kPrefetchBytes;
using plain::quantize_32;
using plain::to_float;
using plain::unpack_s8;

constexpr int kQuads = kPanelRows / 4;  // registers of four rows each

template <int T>
OCTAVO_INLINE void store_quads(const int32x4_t (&sums)[T][kQuads], IntVec (&wide)[T][kGroups]) {
    for (int t = 0; t < T; ++t) std::memcpy(&wide[t], &sums[t], sizeof sums[t]);
}

OCTAVO_INLINE int32_t read_four(const uint8_t* from) {
    int32_t bits;
    std::memcpy(&bits, from, sizeof bits);
    return bits;
}

// One step of four inputs, weights below 128.
template <int T>
OCTAVO_INLINE void step_u4(const uint8x16_t (&weights)[kQuads], const uint8_t* inputs, int32x4_t (&sums)[T][kQuads]) {
#pragma GCC unroll 8
    for (int t = 0; t < T; ++t) {
        const int8x16_t input = vreinterpretq_s8_s32(vdupq_n_s32(read_four(inputs + 4 * t)));
#pragma GCC unroll 4
        for (int q = 0; q < kQuads; ++q) sums[t][q] = vdotq_s32(sums[t][q], vreinterpretq_s8_u8(weights[q]), input);
    }
}

template <int T>
OCTAVO_INLINE void sum_u4_ready(const uint8_t* quants, const uint8_t* inputs, IntVec (&wide)[T][kGroups]) {
    int32x4_t sums[T][kQuads] = {};
#pragma GCC unroll 8
    for (int step = 0; step < 8; ++step) {
        const uint8_t* from = quants + 64 * step;
        const uint8x16_t weights[kQuads] = {vld1q_u8(from), vld1q_u8(from + 16), vld1q_u8(from + 32), vld1q_u8(from + 48)};
        step_u4<T>(weights, inputs + 4 * T * step, sums);
    }
    store_quads<T>(sums, wide);
}

template <int T>
OCTAVO_INLINE void sum_u4_packed(const uint8_t* block, const uint8_t* inputs, IntVec (&wide)[T][kGroups]) {
    const uint8x16_t mask = vdupq_n_u8(15);
    int32x4_t sums[T][kQuads] = {};
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) {
        uint8x16_t low[kQuads], high[kQuads];
#pragma GCC unroll 4
        for (int q = 0; q < kQuads; ++q) {
            const uint8x16_t both = vld1q_u8(block + 64 * j + 16 * q);
            low[q] = vandq_u8(both, mask), high[q] = vshrq_n_u8(both, 4);
        }
        step_u4<T>(low, inputs + 4 * T * j, sums);
        step_u4<T>(high, inputs + 4 * T * (j + 4), sums);
    }
    store_quads<T>(sums, wide);
}

OCTAVO_INLINE void unpack_u4(const uint8_t* block, uint8_t* ready) {
    for (int i = 0; i < 256; i += 16) {
        const uint8x16_t both = vld1q_u8(block + i);
        vst1q_u8(ready + i, vandq_u8(both, vdupq_n_u8(15)));
        vst1q_u8(ready + 256 + i, vshrq_n_u8(both, 4));
    }
}

// One step of two inputs, weights and inputs as int16; four rows a register.
template <int T>
OCTAVO_INLINE void step_s8(const int16x8_t (&weights)[kQuads], const uint8_t* inputs, int32x4_t (&sums)[T][kQuads]) {
#pragma GCC unroll 8
    for (int t = 0; t < T; ++t) {
        const int16x8_t input = vreinterpretq_s16_s32(vdupq_n_s32(read_four(inputs + 4 * t)));
#pragma GCC unroll 4
        for (int q = 0; q < kQuads; ++q) {
            const int32x4_t first = vmull_s16(vget_low_s16(weights[q]), vget_low_s16(input));
            const int32x4_t second = vmull_high_s16(weights[q], input);
            sums[t][q] = vaddq_s32(sums[t][q], vpaddq_s32(first, second));
        }
    }
}

template <int T>
OCTAVO_INLINE void sum_s8_ready(const uint8_t* quants, const uint8_t* inputs, IntVec (&wide)[T][kGroups]) {
    const auto* from = reinterpret_cast<const int16_t*>(quants);
    int32x4_t sums[T][kQuads] = {};
    for (int step = 0; step < 16; ++step, from += 32) {
        const int16x8_t weights[kQuads] = {vld1q_s16(from), vld1q_s16(from + 8), vld1q_s16(from + 16), vld1q_s16(from + 24)};
        step_s8<T>(weights, inputs + 4 * T * step, sums);
    }
    store_quads<T>(sums, wide);
}

template <int T>
OCTAVO_INLINE void sum_s8_packed(const uint8_t* block, const uint8_t* inputs, IntVec (&wide)[T][kGroups]) {
    int32x4_t sums[T][kQuads] = {};
    for (int step = 0; step < 16; ++step) {
        const int8x16_t a = vld1q_s8(reinterpret_cast<const int8_t*>(block) + 32 * step);
        const int8x16_t b = vld1q_s8(reinterpret_cast<const int8_t*>(block) + 32 * step + 16);
        const int16x8_t weights[kQuads] = {vmovl_s8(vget_low_s8(a)), vmovl_high_s8(a), vmovl_s8(vget_low_s8(b)),
                                           vmovl_high_s8(b)};
        step_s8<T>(weights, inputs + 4 * T * step, sums);
    }
    store_quads<T>(sums, wide);
}
