// Eight floats at a time, in the compiler's vector extensions: each unit's flags decide what they become
// (AVX2: one register; SSE2 and NEON: two). Include only inside an instruction-set unit.
#pragma once
#include <cstdint>
#include <cstring>
#if defined(__AVX2__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

namespace octavo {
namespace {

constexpr int kLanes = 8;
typedef float Vec __attribute__((vector_size(32)));
typedef int32_t IntVec __attribute__((vector_size(32)));

#define OCTAVO_INLINE inline __attribute__((always_inline))

OCTAVO_INLINE Vec load(const float* from) {
    Vec v;
    std::memcpy(&v, from, sizeof v);
    return v;
}

OCTAVO_INLINE void store(float* to, Vec v) { std::memcpy(to, &v, sizeof v); }

// float16 bits -> float32, subnormal numbers, infinity and NaN included.
OCTAVO_INLINE float half_to_float(uint16_t half) {
    const uint32_t sign = static_cast<uint32_t>(half & 0x8000) << 16, exponent = half >> 10 & 31, fraction = half & 1023;
    uint32_t bits = sign | (exponent + 112) << 23 | fraction << 13;
    if (exponent == 31) bits = sign | 0x7f800000u | fraction << 13;
    float value;
    std::memcpy(&value, &bits, sizeof value);
    if (exponent == 0) {
        value = static_cast<float>(fraction) * 5.9604644775390625e-8f;  // 2^-24
        if (sign) value = -value;
    }
    return value;
}

// The nearest float16's bits, ties to even; too large becomes infinity.
OCTAVO_INLINE uint16_t float_to_half(float value) {
    uint32_t bits;
    std::memcpy(&bits, &value, sizeof bits);
    const uint16_t sign = static_cast<uint16_t>(bits >> 16 & 0x8000);
    bits &= 0x7fffffff;
    if (bits > 0x7f800000) return sign | 0x7e00;   // NaN
    if (bits >= 0x477ff000) return sign | 0x7c00;  // rounds to more than 65504
    if (bits < 0x38800000) {                       // below 2^-14: a count of 2^-24, rounded by an addition
        const float magic = 0.5f;                  // whose last place is worth 2^-24
        float magnitude;
        std::memcpy(&magnitude, &bits, sizeof bits);
        const float shifted = magnitude + magic;
        uint32_t count;
        std::memcpy(&count, &shifted, sizeof count);
        return static_cast<uint16_t>(sign | (count - 0x3f000000));
    }
    bits += 0xfff + (bits >> 13 & 1);
    return static_cast<uint16_t>(sign | ((bits - 0x38000000) >> 13));
}

// Eight float16 numbers, widened.
OCTAVO_INLINE Vec load_halves(const void* from) {
#if defined(__F16C__)
    return (Vec)_mm256_cvtph_ps(_mm_loadu_si128(static_cast<const __m128i*>(from)));
#elif defined(__aarch64__)
    const uint16x8_t halves = vld1q_u16(static_cast<const uint16_t*>(from));
    const float32x4_t wide[2] = {vcvt_f32_f16(vreinterpret_f16_u16(vget_low_u16(halves))),
                                 vcvt_f32_f16(vreinterpret_f16_u16(vget_high_u16(halves)))};
    Vec to;
    std::memcpy(&to, wide, sizeof to);
    return to;
#else
    uint16_t halves[kLanes];
    std::memcpy(halves, from, sizeof halves);
    Vec to;
    for (int i = 0; i < kLanes; ++i) to[i] = half_to_float(halves[i]);
    return to;
#endif
}

// Eight int8 numbers, widened.
OCTAVO_INLINE Vec load_int8(const int8_t* from) {
#if defined(__AVX2__)
    return (Vec)_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(from))));
#else
    Vec to;
    for (int i = 0; i < kLanes; ++i) to[i] = static_cast<float>(from[i]);
    return to;
#endif
}

OCTAVO_INLINE Vec broadcast(float x) { return Vec{x, x, x, x, x, x, x, x}; }

// a * b + c, rounded once where the processor can. Spelled out, so that every tile size does the same.
OCTAVO_INLINE Vec multiply_add(Vec a, Vec b, Vec c) {
#if defined(__FMA__)
    return (Vec)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
#else
    return a * b + c;
#endif
}

// v, finished: a product that passed through here is not merged into an addition that follows. Of a sum of two
// products the compiler may fuse either one, and not the same one in every copy of an inlined function.
OCTAVO_INLINE Vec settled(Vec v) {
#if defined(__AVX2__)
    asm("" : "+x"(v));
#else
    asm("" : "+m"(v));
#endif
    return v;
}

// The second operand wins against NaN, so a NaN in `b` survives.
OCTAVO_INLINE Vec max(Vec a, Vec b) { return a > b ? a : b; }

// The lanes' sums of four vectors. One fixed tree: a sum's bits never depend on its neighbours.
OCTAVO_INLINE void store_sums(float* to, Vec a, Vec b, Vec c, Vec d) {
#if defined(__AVX2__)
    const __m256 pairs = _mm256_hadd_ps(_mm256_hadd_ps((__m256)a, (__m256)b), _mm256_hadd_ps((__m256)c, (__m256)d));
    _mm_storeu_ps(to, _mm_add_ps(_mm256_castps256_ps128(pairs), _mm256_extractf128_ps(pairs, 1)));
#else
    const Vec all[4] = {a, b, c, d};
    for (int i = 0; i < 4; ++i) {
        const Vec v = all[i];
        to[i] = ((v[0] + v[1]) + (v[2] + v[3])) + ((v[4] + v[5]) + (v[6] + v[7]));
    }
#endif
}

// One fixed tree.
OCTAVO_INLINE float sum_lanes(Vec v) {
#if defined(__AVX2__)
    const __m128 halves = _mm_add_ps(_mm256_castps256_ps128((__m256)v), _mm256_extractf128_ps((__m256)v, 1));
    const __m128 pairs = _mm_add_ps(halves, _mm_movehl_ps(halves, halves));
    return _mm_cvtss_f32(_mm_add_ss(pairs, _mm_movehdup_ps(pairs)));
#else
    return ((v[0] + v[1]) + (v[2] + v[3])) + ((v[4] + v[5]) + (v[6] + v[7]));
#endif
}

// NaN in any lane may be lost: what is computed from the lanes themselves still shows it.
OCTAVO_INLINE float max_lanes(Vec v) {
#if defined(__AVX2__)
    const __m128 halves = _mm_max_ps(_mm256_castps256_ps128((__m256)v), _mm256_extractf128_ps((__m256)v, 1));
    const __m128 pairs = _mm_max_ps(halves, _mm_movehl_ps(halves, halves));
    return _mm_cvtss_f32(_mm_max_ss(pairs, _mm_movehdup_ps(pairs)));
#else
    float largest = v[0];
    for (int i = 1; i < kLanes; ++i) largest = largest > v[i] ? largest : v[i];
    return largest;
#endif
}

// e^x, within 2 units in the last place on [-87.3, 88]; 0 below; e^88 above; NaN stays NaN.
// Cody-Waite reduction and the Cephes polynomial (S. Moshier, expf).
OCTAVO_INLINE Vec exp(Vec x) {
    const Vec low = broadcast(-87.3f), high = broadcast(88.0f);
    const IntVec is_tiny = x < low;
    // Comparisons are written so that NaN fails them and is kept.
    x = x > high ? high : x;
    x = x < low ? low : x;
    const Vec rounder = broadcast(12582912.0f);  // 1.5 * 2^23: adding it rounds to a whole number
    const Vec shifted = x * broadcast(1.44269504088896341f) + rounder;
    const Vec n = shifted - rounder;
    Vec r = x - n * broadcast(0.693359375f);
    r = r - n * broadcast(-2.12194440e-4f);
    Vec p = broadcast(1.9875691500e-4f);
    p = p * r + broadcast(1.3981999507e-3f);
    p = p * r + broadcast(8.3334519073e-3f);
    p = p * r + broadcast(4.1665795894e-2f);
    p = p * r + broadcast(1.6666665459e-1f);
    p = p * r + broadcast(5.0000001201e-1f);
    const Vec y = (p * (r * r) + r) + broadcast(1.0f);
    IntVec bits, rounder_bits;
    std::memcpy(&bits, &shifted, sizeof bits);
    std::memcpy(&rounder_bits, &rounder, sizeof rounder_bits);
    const IntVec power_bits = (bits - rounder_bits + 127) << 23;
    Vec power;
    std::memcpy(&power, &power_bits, sizeof power);
    return is_tiny ? broadcast(0.0f) : y * power;
}

}  // namespace
}  // namespace octavo
