// Lays ggml's blocks out in panels, and reads single rows back out of them. Done once a model, or for the
// few rows of a step, so in plain C++ for every processor.
// Block layouts: ggml-common.h and ggml-quants.c of https://github.com/ggml-org/ggml.
#include "lowbit_pack.h"

#include <cmath>
#include <cstring>

namespace octavo {
namespace {

constexpr int kRows = 16;  // of a panel

// One block of a row: 32 quants, their scale and their minimum; for kS8Halves a factor of each half's quants.
struct Block {
    int16_t quants[kBlockSize];
    int8_t factors[2];
    float scale, minimum;
};

float widen_half(uint16_t half) {
    const int exponent = half >> 10 & 31, fraction = half & 1023;
    float value = exponent == 0 ? std::ldexp(static_cast<float>(fraction), -24)
                                : std::ldexp(static_cast<float>(fraction + 1024), exponent - 25);
    if (exponent == 31) value = fraction ? NAN : INFINITY;
    return half & 0x8000 ? -value : value;
}

float read_half(const uint8_t* from) {
    uint16_t half;
    std::memcpy(&half, from, sizeof half);
    return widen_half(half);
}

// Exact, for the numbers that a float16 can hold; the others are told by `fits_half`.
uint16_t to_half(float value) {
    const uint16_t sign = std::signbit(value) ? 0x8000 : 0;
    const float magnitude = std::fabs(value);
    if (std::isnan(value)) return 0x7e00;
    if (std::isinf(value)) return sign | 0x7c00;
    if (magnitude < std::ldexp(1.0f, -14)) return sign | static_cast<uint16_t>(std::ldexp(magnitude, 24));
    int exponent;
    const float fraction = std::frexp(magnitude, &exponent);  // magnitude = fraction * 2^exponent
    return static_cast<uint16_t>(sign | (exponent + 14) << 10 | (static_cast<int>(fraction * 2048) - 1024));
}

bool fits_half(float value) { return !(std::fabs(value) > 65504.0f) || std::isinf(value); }

void read_nibbles(const uint8_t* packed, Block* block) {
    for (int i = 0; i < 16; ++i) block->quants[i] = packed[i] & 15, block->quants[16 + i] = packed[i] >> 4;
}

void add_fifth_bits(const uint8_t* packed, Block* block) {
    uint32_t bits;
    std::memcpy(&bits, packed, sizeof bits);
    for (int i = 0; i < kBlockSize; ++i) block->quants[i] = static_cast<int16_t>(block->quants[i] | (bits >> i & 1) << 4);
}

// Part `sub` of 32 inputs of a superblock of 256: a sign bit, two bits, and a scale of six bits for 16 inputs.
void read_q3_k(const uint8_t* super, int sub, Block* block) {
    const uint8_t *high = super, *quants = super + 32 + sub / 4 * 32, *packed = super + 96;
    for (int i = 0; i < kBlockSize; ++i) {
        const int low = quants[i] >> 2 * (sub % 4) & 3;
        block->quants[i] = static_cast<int16_t>((high[i] >> sub & 1) ? low : low - 4);
    }
    for (int half = 0; half < 2; ++half) {
        const int j = 2 * sub + half;
        const int low = packed[j % 8] >> 4 * (j / 8) & 15, top = packed[8 + j % 4] >> 2 * (j / 4) & 3;
        block->factors[half] = static_cast<int8_t>((low | top << 4) - 32);
    }
    block->scale = read_half(super + 108);
    block->minimum = 0.0f;
}

// The same of six bits, with scales of eight.
void read_q6_k(const uint8_t* super, int sub, Block* block) {
    const uint8_t *low = super + sub / 4 * 64 + sub % 2 * 32, *high = super + 128 + sub / 4 * 32;
    for (int i = 0; i < kBlockSize; ++i) {
        const int quant = (low[i] >> sub % 4 / 2 * 4 & 15) | (high[i] >> 2 * (sub % 4) & 3) << 4;
        block->quants[i] = static_cast<int16_t>(quant - 32);
    }
    for (int half = 0; half < 2; ++half) block->factors[half] = static_cast<int8_t>(super[192 + 2 * sub + half]);
    block->scale = read_half(super + 208);
    block->minimum = 0.0f;
}

// Block number `index` of a row of this ggml type.
void read_block(GgmlTypeId type, const uint8_t* row, int64_t index, Block* block) {
    switch (type) {
        case kF16:
        case kBF16: return;  // not in blocks
        case kQ4_0: {
            const uint8_t* from = row + index * 18;
            read_nibbles(from + 2, block);
            block->scale = read_half(from);
            block->minimum = -8.0f * block->scale;
            return;
        }
        case kQ4_1: {
            const uint8_t* from = row + index * 20;
            read_nibbles(from + 4, block);
            block->scale = read_half(from);
            block->minimum = read_half(from + 2);
            return;
        }
        case kQ5_0: {
            const uint8_t* from = row + index * 22;
            read_nibbles(from + 6, block);
            add_fifth_bits(from + 2, block);
            for (int16_t& quant : block->quants) quant = static_cast<int16_t>(quant - 16);
            block->scale = read_half(from);
            block->minimum = 0.0f;
            return;
        }
        case kQ5_1: {
            const uint8_t* from = row + index * 24;
            read_nibbles(from + 8, block);
            add_fifth_bits(from + 4, block);
            block->scale = read_half(from);
            block->minimum = read_half(from + 2);
            return;
        }
        case kQ8_0: {
            const uint8_t* from = row + index * 34;
            for (int i = 0; i < kBlockSize; ++i) block->quants[i] = static_cast<int8_t>(from[2 + i]);
            block->scale = read_half(from);
            block->minimum = 0.0f;
            return;
        }
        case kQ3_K: read_q3_k(row + index / 8 * 110, static_cast<int>(index % 8), block); return;
        case kQ6_K: read_q6_k(row + index / 8 * 210, static_cast<int>(index % 8), block); return;
        case kQ4_K:
        case kQ5_K: {
            const int64_t super_bytes = type == kQ4_K ? 144 : 176;
            const uint8_t* super = row + index / 8 * super_bytes;
            const int sub = static_cast<int>(index % 8);
            const uint8_t* packed = super + 4;  // eight scales and eight minimums of six bits
            const int scale = sub < 4 ? packed[sub] & 63 : (packed[sub + 4] & 15) | (packed[sub - 4] >> 6) << 4;
            const int minimum = sub < 4 ? packed[sub + 4] & 63 : packed[sub + 4] >> 4 | (packed[sub] >> 6) << 4;
            const uint8_t* nibbles = super + (type == kQ4_K ? 16 : 48) + sub / 2 * 32;
            for (int i = 0; i < kBlockSize; ++i) {
                int quant = nibbles[i] >> 4 * (sub % 2) & 15;
                if (type == kQ5_K) quant |= (super[16 + i] >> sub & 1) << 4;
                block->quants[i] = static_cast<int16_t>(quant);
            }
            block->scale = read_half(super) * static_cast<float>(scale);
            block->minimum = -read_half(super + 2) * static_cast<float>(minimum);
            return;
        }
    }
}

int64_t row_bytes(GgmlTypeId type, int64_t num_blocks) {
    switch (type) {
        case kF16:
        case kBF16: return 0;
        case kQ4_0: return num_blocks * 18;
        case kQ4_1: return num_blocks * 20;
        case kQ5_0: return num_blocks * 22;
        case kQ5_1: return num_blocks * 24;
        case kQ8_0: return num_blocks * 34;
        case kQ3_K: return num_blocks / 8 * 110;
        case kQ4_K: return num_blocks / 8 * 144;
        case kQ5_K: return num_blocks / 8 * 176;
        case kQ6_K: return num_blocks / 8 * 210;
    }
    return 0;
}

void write_scale(const PanelLayout& layout, uint8_t* scales, int index, float value) {
    if (layout.scale_bytes == 2) {
        const uint16_t half = to_half(value);
        std::memcpy(scales + index * 2, &half, sizeof half);
    } else {
        std::memcpy(scales + index * 4, &value, sizeof value);
    }
}

float read_scale(const PanelLayout& layout, const uint8_t* scales, int64_t index) {
    if (layout.scale_bytes == 2) return read_half(scales + index * 2);
    float value;
    std::memcpy(&value, scales + index * 4, sizeof value);
    return value;
}

}  // namespace

bool find_layout(int32_t type, PanelLayout* layout) {
    switch (type) {
        case kQ4_0:
        case kQ4_1: *layout = {kU4, 2, true}; return true;
        case kQ4_K: *layout = {kU4, 4, true}; return true;
        case kQ5_0:
        case kQ8_0: *layout = {kS8, 2, false}; return true;
        case kQ5_1: *layout = {kS8, 2, true}; return true;
        case kQ5_K: *layout = {kS8, 4, true}; return true;
        case kQ3_K:
        case kQ6_K: *layout = {kS8Halves, 2, false}; return true;
        default: return false;
    }
}

bool pack_panel(const PackCall& call, int64_t panel) {
    bool fits = true;
    for (int64_t b = 0; b < call.num_blocks; ++b) {
        uint8_t* to = call.panels + (panel * call.num_blocks + b) * call.layout.block_bytes();
        std::memset(to, 0, call.layout.block_bytes());
        for (int r = 0; r < kRows && panel * kRows + r < call.out_size; ++r) {
            Block block = {};
            read_block(call.type, call.rows + (panel * kRows + r) * row_bytes(call.type, call.num_blocks), b, &block);
            for (int i = 0; i < kBlockSize; ++i) {
                const auto quant = static_cast<uint8_t>(block.quants[i]);
                if (call.layout.format == kU4)
                    to[i % 16 / 4 * 64 + r * 4 + i % 4] |= i < 16 ? quant : quant << 4;
                else
                    to[i / 2 * 32 + r * 2 + i % 2] = quant;
            }
            if (call.layout.format == kS8Halves)
                for (int half = 0; half < 2; ++half)
                    to[512 + half * kRows + r] = static_cast<uint8_t>(block.factors[half]);
            if (call.layout.scale_bytes == 2) fits &= fits_half(block.scale) && fits_half(block.minimum);
            uint8_t* scales = to + call.layout.quant_bytes();
            write_scale(call.layout, scales, r, block.scale);
            if (call.layout.has_minimums) write_scale(call.layout, scales, kRows + r, block.minimum);
        }
    }
    return fits;
}

void read_row(const PanelLayout& layout, const uint8_t* panels, int64_t num_blocks, int64_t row, float* out) {
    const int64_t r = row % kRows;
    for (int64_t b = 0; b < num_blocks; ++b, out += kBlockSize) {
        const uint8_t* block = panels + (row / kRows * num_blocks + b) * layout.block_bytes();
        const uint8_t* scales = block + layout.quant_bytes();
        const float scale = read_scale(layout, scales, r);
        const float minimum = layout.has_minimums ? read_scale(layout, scales, kRows + r) : 0.0f;
        for (int i = 0; i < kBlockSize; ++i) {
            float part_scale = scale;
            if (layout.format == kS8Halves)
                part_scale *= static_cast<float>(static_cast<int8_t>(block[512 + i / 16 * kRows + r]));
            float quant;
            if (layout.format == kU4)
                quant = static_cast<float>(block[i % 16 / 4 * 64 + r * 4 + i % 4] >> (i < 16 ? 0 : 4) & 15);
            else
                quant = static_cast<float>(static_cast<int8_t>(block[i / 2 * 32 + r * 2 + i % 2]));
            out[i] = part_scale * quant + minimum;
        }
    }
}

void read_plain_row(int32_t type, const void* panels, int64_t in_size, int64_t row, float* out) {
    const int64_t first = row / kRows * in_size * kRows + row % kRows;
    for (int64_t k = 0; k < in_size; ++k) {
        const int64_t index = first + k * kRows;
        if (type == kF16) {
            out[k] = widen_half(static_cast<const uint16_t*>(panels)[index]);
        } else if (type == kBF16) {
            const uint32_t bits = static_cast<uint32_t>(static_cast<const uint16_t*>(panels)[index]) << 16;
            std::memcpy(out + k, &bits, sizeof bits);
        } else {
            out[k] = static_cast<const float*>(panels)[index];
        }
    }
}

}  // namespace octavo
