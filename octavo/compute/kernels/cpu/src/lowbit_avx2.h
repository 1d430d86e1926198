// The inner sums of lowbit_kernels.h in AVX2. Included there, inside its namespace.

// GCC forwards loads into each use and reorders sums until nothing fits the registers; a value that passed
// through here is a fact to it, in a register and in order.
#define OCTAVO_PIN(value) asm volatile("" : "+x"(value))

// Far enough ahead for memory's latency at the speed at which one core reads.
constexpr int64_t kPrefetchBytes = 2048;

OCTAVO_INLINE Vec to_float(IntVec v) { return (Vec)_mm256_cvtepi32_ps((__m256i)v); }

OCTAVO_INLINE __m256i load_bytes(const uint8_t* from) {
    return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from));
}

OCTAVO_INLINE __m256i broadcast_four(const uint8_t* from) {
    int32_t bits;
    std::memcpy(&bits, from, sizeof bits);
    return _mm256_set1_epi32(bits);
}

// One step of four inputs: at most 8 steps fit in int16 (8 x 2 x 15 x 128 = 30,720).
template <int T>
OCTAVO_INLINE void step_u4(__m256i low, __m256i high, const uint8_t* inputs, bool is_first,
                           __m256i (&sums)[T][kGroups]) {
    OCTAVO_PIN(low);
    OCTAVO_PIN(high);
#pragma GCC unroll 8
    for (int t = 0; t < T; ++t) {
        __m256i input = broadcast_four(inputs + 4 * t);
        OCTAVO_PIN(input);
        const __m256i a = _mm256_maddubs_epi16(low, input), b = _mm256_maddubs_epi16(high, input);
        sums[t][0] = is_first ? a : _mm256_add_epi16(sums[t][0], a);
        sums[t][1] = is_first ? b : _mm256_add_epi16(sums[t][1], b);
        OCTAVO_PIN(sums[t][0]);
        OCTAVO_PIN(sums[t][1]);
    }
}

template <int T>
OCTAVO_INLINE void widen_sums(const __m256i (&sums)[T][kGroups], IntVec (&wide)[T][kGroups]) {
    const __m256i ones = _mm256_set1_epi16(1);
#pragma GCC unroll 8
    for (int t = 0; t < T; ++t)
        for (int g = 0; g < kGroups; ++g) wide[t][g] = (IntVec)_mm256_madd_epi16(sums[t][g], ones);
}

template <int T>
OCTAVO_INLINE void sum_u4_ready(const uint8_t* quants, const uint8_t* inputs, IntVec (&wide)[T][kGroups]) {
    __m256i sums[T][kGroups];
#pragma GCC unroll 8
    for (int step = 0; step < 8; ++step)
        step_u4<T>(load_bytes(quants + 64 * step), load_bytes(quants + 64 * step + 32), inputs + 4 * T * step, step == 0, sums);
    widen_sums<T>(sums, wide);
}

template <int T>
OCTAVO_INLINE void sum_u4_packed(const uint8_t* block, const uint8_t* inputs, IntVec (&wide)[T][kGroups]) {
    const __m256i mask = _mm256_set1_epi8(15);
    __m256i sums[T][kGroups];
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) {
        const __m256i a = load_bytes(block + 64 * j), b = load_bytes(block + 64 * j + 32);
        step_u4<T>(_mm256_and_si256(a, mask), _mm256_and_si256(b, mask), inputs + 4 * T * j, j == 0, sums);
        step_u4<T>(_mm256_and_si256(_mm256_srli_epi16(a, 4), mask), _mm256_and_si256(_mm256_srli_epi16(b, 4), mask),
                   inputs + 4 * T * (j + 4), false, sums);
    }
    widen_sums<T>(sums, wide);
}

OCTAVO_INLINE void unpack_u4(const uint8_t* block, uint8_t* ready) {
    const __m256i mask = _mm256_set1_epi8(15);
    for (int i = 0; i < 8; ++i) {
        const __m256i both = load_bytes(block + 32 * i);
        _mm256_store_si256(reinterpret_cast<__m256i*>(ready + 32 * i), _mm256_and_si256(both, mask));
        _mm256_store_si256(reinterpret_cast<__m256i*>(ready + 256 + 32 * i),
                           _mm256_and_si256(_mm256_srli_epi16(both, 4), mask));
    }
}

// One step of two inputs, weights and inputs as int16.
template <int T>
OCTAVO_INLINE void step_s8(__m256i low, __m256i high, const uint8_t* inputs, bool is_first,
                           __m256i (&sums)[T][kGroups]) {
    OCTAVO_PIN(low);
    OCTAVO_PIN(high);
#pragma GCC unroll 8
    for (int t = 0; t < T; ++t) {
        __m256i input = broadcast_four(inputs + 4 * t);
        OCTAVO_PIN(input);
        const __m256i a = _mm256_madd_epi16(low, input), b = _mm256_madd_epi16(high, input);
        sums[t][0] = is_first ? a : _mm256_add_epi32(sums[t][0], a);
        sums[t][1] = is_first ? b : _mm256_add_epi32(sums[t][1], b);
        OCTAVO_PIN(sums[t][0]);
        OCTAVO_PIN(sums[t][1]);
    }
}

OCTAVO_INLINE __m256i widen_bytes(const uint8_t* from) {
    return _mm256_cvtepi8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
}

template <int T>
OCTAVO_INLINE void sum_s8_ready(const uint8_t* quants, const uint8_t* inputs, IntVec (&wide)[T][kGroups]) {
    __m256i sums[T][kGroups];
#pragma GCC unroll 16
    for (int step = 0; step < 16; ++step)
        step_s8<T>(load_bytes(quants + 64 * step), load_bytes(quants + 64 * step + 32), inputs + 4 * T * step, step == 0, sums);
    for (int t = 0; t < T; ++t)
        for (int g = 0; g < kGroups; ++g) wide[t][g] = (IntVec)sums[t][g];
}

template <int T>
OCTAVO_INLINE void sum_s8_packed(const uint8_t* block, const uint8_t* inputs, IntVec (&wide)[T][kGroups]) {
    __m256i sums[T][kGroups];
#pragma GCC unroll 16
    for (int step = 0; step < 16; ++step)
        step_s8<T>(widen_bytes(block + 32 * step), widen_bytes(block + 32 * step + 16), inputs + 4 * T * step, step == 0, sums);
    for (int t = 0; t < T; ++t)
        for (int g = 0; g < kGroups; ++g) wide[t][g] = (IntVec)sums[t][g];
}

OCTAVO_INLINE void unpack_s8(const uint8_t* block, uint8_t* ready) {
    for (int i = 0; i < 32; ++i)
        _mm256_store_si256(reinterpret_cast<__m256i*>(ready + 32 * i), widen_bytes(block + 16 * i));
}

// Packing works on each half of a register by itself: these put the numbers back in order.
OCTAVO_INLINE void store_quants(const __m256i (&q)[4], int8_t* to) {
    const __m256i bytes = _mm256_packs_epi16(_mm256_packs_epi32(q[0], q[1]), _mm256_packs_epi32(q[2], q[3]));
    const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), _mm256_permutevar8x32_epi32(bytes, order));
}

OCTAVO_INLINE void store_quants(const __m256i (&q)[4], int16_t* to) {
    for (int i = 0; i < 2; ++i)
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(to + 16 * i),
                            _mm256_permute4x64_epi64(_mm256_packs_epi32(q[2 * i], q[2 * i + 1]), 0xd8));
}

// x [32] -> quants from -largest to largest (one less beside NaN and infinity), their scale, and their sum.
template <typename Quant>
OCTAVO_INLINE int32_t quantize_32(const float* x, Quant* quants, float* scale) {
    constexpr int32_t kLargest = sizeof(Quant) == 1 ? kLargestByteQuant : kLargestWideQuant;
    const __m256 sign = _mm256_set1_ps(-0.0f);
    __m256i largest = _mm256_setzero_si256();
    __m256 values[4];
    for (int i = 0; i < 4; ++i) {
        values[i] = _mm256_loadu_ps(x + 8 * i);
        largest = _mm256_max_epi32(largest, _mm256_castps_si256(_mm256_andnot_ps(sign, values[i])));
    }
    __m128i m = _mm_max_epi32(_mm256_castsi256_si128(largest), _mm256_extracti128_si256(largest, 1));
    m = _mm_max_epi32(m, _mm_shuffle_epi32(m, 0x4e));
    m = _mm_max_epi32(m, _mm_shuffle_epi32(m, 0xb1));
    const float magnitude = _mm_cvtss_f32(_mm_castsi128_ps(m));
    *scale = activation_scale(magnitude, kLargest);
    const __m256 inverse = _mm256_set1_ps(inverse_activation_scale(magnitude, kLargest));
    const __m256i low = _mm256_set1_epi32(-kLargest - 1);
    __m256i q[4];
    for (int i = 0; i < 4; ++i) q[i] = _mm256_max_epi32(_mm256_cvtps_epi32(_mm256_mul_ps(values[i], inverse)), low);
    const __m256i sums = _mm256_add_epi32(_mm256_add_epi32(q[0], q[1]), _mm256_add_epi32(q[2], q[3]));
    store_quants(q, quants);
    __m128i sum = _mm_add_epi32(_mm256_castsi256_si128(sums), _mm256_extracti128_si256(sums, 1));
    sum = _mm_add_epi32(sum, _mm_shuffle_epi32(sum, 0x4e));
    sum = _mm_add_epi32(sum, _mm_shuffle_epi32(sum, 0xb1));
    return _mm_cvtsi128_si32(sum);
}
