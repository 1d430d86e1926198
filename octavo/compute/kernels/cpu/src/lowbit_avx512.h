// The inner sums of lowbit_kernels.h in AVX-512, with VNNI's dot products where the unit has them: a panel's
// 16 rows in one register. Included there, inside its namespace; what is not a sum is AVX2's.

namespace narrower {
#include "lowbit_avx2.h"
}
using narrower::kPrefetchBytes;
using narrower::load_bytes;
using narrower::quantize_32;
using narrower::to_float;
using narrower::unpack_s8;
using narrower::unpack_u4;
using narrower::widen_bytes;

OCTAVO_INLINE __m512i load_line(const uint8_t* from) { return _mm512_loadu_si512(from); }

OCTAVO_INLINE __m512i broadcast_four(const uint8_t* from) {
    int32_t bits;
    std::memcpy(&bits, from, sizeof bits);
    return _mm512_set1_epi32(bits);
}

template <int T>
OCTAVO_INLINE void split_sums(const __m512i (&sums)[T], IntVec (&wide)[T][kGroups]) {
#pragma GCC unroll 8
    for (int t = 0; t < T; ++t) {
        wide[t][0] = (IntVec)_mm512_castsi512_si256(sums[t]);
        wide[t][1] = (IntVec)_mm512_extracti64x4_epi64(sums[t], 1);
    }
}

// One step of four inputs. Without VNNI the sums are int16, in which 8 steps fit (8 x 2 x 15 x 128 = 30,720).
template <int T>
OCTAVO_INLINE void step_u4(__m512i weights, const uint8_t* inputs, __m512i (&sums)[T]) {
#pragma GCC unroll 8
    for (int t = 0; t < T; ++t) {
#if defined(__AVX512VNNI__)
        sums[t] = _mm512_dpbusd_epi32(sums[t], weights, broadcast_four(inputs + 4 * t));
#else
        sums[t] = _mm512_add_epi16(sums[t], _mm512_maddubs_epi16(weights, broadcast_four(inputs + 4 * t)));
#endif
    }
}

template <int T>
OCTAVO_INLINE void finish_u4(__m512i (&sums)[T], IntVec (&wide)[T][kGroups]) {
#if !defined(__AVX512VNNI__)
#pragma GCC unroll 8
    for (int t = 0; t < T; ++t) sums[t] = _mm512_madd_epi16(sums[t], _mm512_set1_epi16(1));
#endif
    split_sums<T>(sums, wide);
}

template <int T>
OCTAVO_INLINE void sum_u4_ready(const uint8_t* quants, const uint8_t* inputs, IntVec (&wide)[T][kGroups]) {
    __m512i sums[T] = {};
#pragma GCC unroll 8
    for (int step = 0; step < 8; ++step) step_u4<T>(load_line(quants + 64 * step), inputs + 4 * T * step, sums);
    finish_u4<T>(sums, wide);
}

template <int T>
OCTAVO_INLINE void sum_u4_packed(const uint8_t* block, const uint8_t* inputs, IntVec (&wide)[T][kGroups]) {
    const __m512i mask = _mm512_set1_epi8(15);
    __m512i sums[T] = {};
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) {
        const __m512i both = load_line(block + 64 * j);
        step_u4<T>(_mm512_and_si512(both, mask), inputs + 4 * T * j, sums);
        step_u4<T>(_mm512_and_si512(_mm512_srli_epi16(both, 4), mask), inputs + 4 * T * (j + 4), sums);
    }
    finish_u4<T>(sums, wide);
}

// One step of two inputs, weights and inputs as int16.
template <int T>
OCTAVO_INLINE void step_s8(__m512i weights, const uint8_t* inputs, __m512i (&sums)[T]) {
#pragma GCC unroll 8
    for (int t = 0; t < T; ++t) {
#if defined(__AVX512VNNI__)
        sums[t] = _mm512_dpwssd_epi32(sums[t], weights, broadcast_four(inputs + 4 * t));
#else
        sums[t] = _mm512_add_epi32(sums[t], _mm512_madd_epi16(weights, broadcast_four(inputs + 4 * t)));
#endif
    }
}

OCTAVO_INLINE __m512i widen_line(const uint8_t* from) { return _mm512_cvtepi8_epi16(load_bytes(from)); }

template <int T>
OCTAVO_INLINE void sum_s8_ready(const uint8_t* quants, const uint8_t* inputs, IntVec (&wide)[T][kGroups]) {
    __m512i sums[T] = {};
#pragma GCC unroll 16
    for (int step = 0; step < 16; ++step) step_s8<T>(load_line(quants + 64 * step), inputs + 4 * T * step, sums);
    split_sums<T>(sums, wide);
}

template <int T>
OCTAVO_INLINE void sum_s8_packed(const uint8_t* block, const uint8_t* inputs, IntVec (&wide)[T][kGroups]) {
    __m512i sums[T] = {};
#pragma GCC unroll 16
    for (int step = 0; step < 16; ++step) step_s8<T>(widen_line(block + 32 * step), inputs + 4 * T * step, sums);
    split_sums<T>(sums, wide);
}
