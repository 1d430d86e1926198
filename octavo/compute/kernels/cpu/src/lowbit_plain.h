// The inner sums of lowbit_kernels.h for any processor: plain loops that the compiler may vectorise.
// Included there, inside its namespace.

constexpr int64_t kPrefetchBytes = 2048;

OCTAVO_INLINE Vec to_float(IntVec v) {
    Vec to;
    for (int i = 0; i < kLanes; ++i) to[i] = static_cast<float>(v[i]);
    return to;
}

// quants [8 steps][16 rows][4 inputs]
template <int T>
OCTAVO_INLINE void sum_u4_ready(const uint8_t* quants, const uint8_t* inputs, IntVec (&wide)[T][kGroups]) {
    const auto* numbers = reinterpret_cast<const int8_t*>(inputs);
    for (int t = 0; t < T; ++t) {
        int32_t sums[kPanelRows] = {};
        for (int step = 0; step < 8; ++step)
            for (int row = 0; row < kPanelRows; ++row)
                for (int i = 0; i < 4; ++i)
                    sums[row] += quants[(step * kPanelRows + row) * 4 + i] * numbers[(step * T + t) * 4 + i];
        std::memcpy(&wide[t], sums, sizeof sums);
    }
}

OCTAVO_INLINE void unpack_u4(const uint8_t* block, uint8_t* ready) {
    for (int i = 0; i < 256; ++i) ready[i] = block[i] & 15, ready[256 + i] = block[i] >> 4;
}

template <int T>
OCTAVO_INLINE void sum_u4_packed(const uint8_t* block, const uint8_t* inputs, IntVec (&wide)[T][kGroups]) {
    uint8_t quants[512];
    unpack_u4(block, quants);
    sum_u4_ready<T>(quants, inputs, wide);
}

// quants int16 [16 steps][16 rows][2 inputs]
template <int T>
OCTAVO_INLINE void sum_s8_ready(const uint8_t* quants, const uint8_t* inputs, IntVec (&wide)[T][kGroups]) {
    const auto *weights = reinterpret_cast<const int16_t*>(quants), *numbers = reinterpret_cast<const int16_t*>(inputs);
    for (int t = 0; t < T; ++t) {
        int32_t sums[kPanelRows] = {};
        for (int step = 0; step < 16; ++step)
            for (int row = 0; row < kPanelRows; ++row)
                for (int i = 0; i < 2; ++i)
                    sums[row] += weights[(step * kPanelRows + row) * 2 + i] * numbers[(step * T + t) * 2 + i];
        std::memcpy(&wide[t], sums, sizeof sums);
    }
}

OCTAVO_INLINE void unpack_s8(const uint8_t* block, uint8_t* ready) {
    auto* to = reinterpret_cast<int16_t*>(ready);
    for (int i = 0; i < 512; ++i) to[i] = static_cast<int8_t>(block[i]);
}

template <int T>
OCTAVO_INLINE void sum_s8_packed(const uint8_t* block, const uint8_t* inputs, IntVec (&wide)[T][kGroups]) {
    alignas(2) uint8_t quants[1024];
    unpack_s8(block, quants);
    sum_s8_ready<T>(quants, inputs, wide);
}

// x [32] -> quants from -largest to largest (one less beside NaN and infinity), their scale, and their sum.
template <typename Quant>
OCTAVO_INLINE int32_t quantize_32(const float* x, Quant* quants, float* scale) {
    constexpr int32_t kLargest = sizeof(Quant) == 1 ? kLargestByteQuant : kLargestWideQuant;
    int32_t largest = 0;
    for (int i = 0; i < kBlockSize; ++i) {
        int32_t bits;
        std::memcpy(&bits, x + i, sizeof bits);
        bits &= 0x7fffffff;
        largest = bits > largest ? bits : largest;
    }
    float magnitude;
    std::memcpy(&magnitude, &largest, sizeof magnitude);
    *scale = activation_scale(magnitude, kLargest);
    const float inverse = inverse_activation_scale(magnitude, kLargest);
    int32_t sum = 0;
    for (int i = 0; i < kBlockSize; ++i) {
        const float value = x[i] * inverse;
        const bool is_number = value >= -kLargest - 0.5f && value <= kLargest + 0.5f;
        quants[i] = static_cast<Quant>(is_number ? std::nearbyint(value) : -kLargest - 1);
        sum += quants[i];
    }
    return sum;
}
