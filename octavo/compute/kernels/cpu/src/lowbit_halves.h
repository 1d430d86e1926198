// Blocks with a whole factor for each half (kS8Halves): multiplied into the quants they are int16, and from
// there on a block like any other of kS8. Included by lowbit_kernels.h, inside its namespace.

constexpr int kFactorsByte = 512;  // of a block

#if defined(__AVX512BW__)

// Sixteen rows' factors, each twice: for the two inputs of a step.
OCTAVO_INLINE __m512i load_factors(const uint8_t* from) {
    const __m512i wide = _mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
    return _mm512_or_si512(_mm512_and_si512(wide, _mm512_set1_epi32(0xffff)), _mm512_slli_epi32(wide, 16));
}

template <int T>
OCTAVO_INLINE void sum_s8_halves_packed(const uint8_t* block, const uint8_t* inputs, IntVec (&wide)[T][kGroups]) {
    __m512i sums[T] = {};
    for (int half = 0; half < 2; ++half) {
        const __m512i factors = load_factors(block + kFactorsByte + half * kPanelRows);
#pragma GCC unroll 8
        for (int step = 8 * half; step < 8 * half + 8; ++step)
            step_s8<T>(_mm512_mullo_epi16(widen_line(block + 32 * step), factors), inputs + 4 * T * step, sums);
    }
    split_sums<T>(sums, wide);
}

OCTAVO_INLINE void unpack_s8_halves(const uint8_t* block, uint8_t* ready) {
    for (int half = 0; half < 2; ++half) {
        const __m512i factors = load_factors(block + kFactorsByte + half * kPanelRows);
        for (int step = 8 * half; step < 8 * half + 8; ++step)
            _mm512_storeu_si512(ready + 64 * step, _mm512_mullo_epi16(widen_line(block + 32 * step), factors));
    }
}

#elif defined(__AVX2__)

// Eight rows' factors, each twice: for the two inputs of a step.
OCTAVO_INLINE __m256i load_factors(const uint8_t* from) {
    const __m256i wide = _mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(from)));
    return _mm256_or_si256(_mm256_and_si256(wide, _mm256_set1_epi32(0xffff)), _mm256_slli_epi32(wide, 16));
}

template <int T>
OCTAVO_INLINE void sum_s8_halves_packed(const uint8_t* block, const uint8_t* inputs, IntVec (&wide)[T][kGroups]) {
    __m256i sums[T][kGroups];
#pragma GCC unroll 2
    for (int half = 0; half < 2; ++half) {
        const uint8_t* factors = block + kFactorsByte + half * kPanelRows;
        __m256i low = load_factors(factors), high = load_factors(factors + kLanes);
        OCTAVO_PIN(low);
        OCTAVO_PIN(high);
#pragma GCC unroll 8
        for (int step = 8 * half; step < 8 * half + 8; ++step)
            step_s8<T>(_mm256_mullo_epi16(widen_bytes(block + 32 * step), low),
                       _mm256_mullo_epi16(widen_bytes(block + 32 * step + 16), high), inputs + 4 * T * step, step == 0, sums);
    }
    for (int t = 0; t < T; ++t)
        for (int g = 0; g < kGroups; ++g) wide[t][g] = (IntVec)sums[t][g];
}

OCTAVO_INLINE void unpack_s8_halves(const uint8_t* block, uint8_t* ready) {
    for (int half = 0; half < 2; ++half)
        for (int g = 0; g < kGroups; ++g) {
            const __m256i factors = load_factors(block + kFactorsByte + half * kPanelRows + g * kLanes);
            for (int i = 16 * half + g; i < 16 * half + 16; i += kGroups)
                _mm256_store_si256(reinterpret_cast<__m256i*>(ready + 32 * i),
                                   _mm256_mullo_epi16(widen_bytes(block + 16 * i), factors));
        }
}

#else

OCTAVO_INLINE void unpack_s8_halves(const uint8_t* block, uint8_t* ready) {
    auto* to = reinterpret_cast<int16_t*>(ready);
    for (int i = 0; i < 512; ++i)
        to[i] = static_cast<int16_t>(static_cast<int8_t>(block[i]) *
                                     static_cast<int8_t>(block[kFactorsByte + i / 256 * kPanelRows + i % 32 / 2]));
}

template <int T>
OCTAVO_INLINE void sum_s8_halves_packed(const uint8_t* block, const uint8_t* inputs, IntVec (&wide)[T][kGroups]) {
    alignas(2) uint8_t quants[1024];
    unpack_s8_halves(block, quants);
    sum_s8_ready<T>(quants, inputs, wide);
}

#endif
