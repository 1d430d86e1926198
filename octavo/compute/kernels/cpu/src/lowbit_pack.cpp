// Lays ggml's blocks out in panels, and reads single rows back out of them. Done once a model, or for the
// few rows of a step, so in plain C++ for every processor.
// Block layouts: ggml-common.h and ggml-quants.c of https://github.com/ggml-org/ggml.
#include "lowbit_pack.h"

#include <cmath>
#include <cstring>

namespace octavo {
namespace {

constexpr int kRows = 16;  // of a panel

// One block of a row: 32 quants, their scale and their minimum.
struct Block {
    int16_t quants[kBlockSize];
    float scale, minimum;
};

float read_half(const uint8_t* from) {
    uint16_t half;
    std::memcpy(&half, from, sizeof half);
    const int exponent = half >> 10 & 31, fraction = half & 1023;
    float value = exponent == 0 ? std::ldexp(static_cast<float>(fraction), -24)
                                : std::ldexp(static_cast<float>(fraction + 1024), exponent - 25);
    if (exponent == 31) value = fraction ? NAN : INFINITY;
    return half & 0x8000 ? -value : value;
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

// Block number `index` of a row of this ggml type.
void read_block(GgmlTypeId type, const uint8_t* row, int64_t index, Block* block) {
    switch (type) {
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
        case kQ4_0: return num_blocks * 18;
        case kQ4_1: return num_blocks * 20;
        case kQ5_0: return num_blocks * 22;
        case kQ5_1: return num_blocks * 24;
        case kQ8_0: return num_blocks * 34;
        case kQ4_K: return num_blocks / 8 * 144;
        case kQ5_K: return num_blocks / 8 * 176;
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
            float quant;
            if (layout.format == kU4)
                quant = static_cast<float>(block[i % 16 / 4 * 64 + r * 4 + i % 4] >> (i < 16 ? 0 : 4) & 15);
            else
                quant = static_cast<float>(static_cast<int8_t>(block[i / 2 * 32 + r * 2 + i % 2]));
            out[i] = scale * quant + minimum;
        }
    }
}

}  // namespace octavo
