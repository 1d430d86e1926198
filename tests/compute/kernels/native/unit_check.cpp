// Holds one instruction-set unit against the generic one, without Python: for processors that are only emulated.
// Usage: unit_check UNIT [ROUNDS [SEED]]. Prints one line; exit code 0 if all agree, 1 if not, 77 where the
// processor lacks the unit.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "isa.h"
#include "lowbit_pack.h"

extern "C" const void* octavo_isa(const char* name);

using namespace octavo;

namespace {

std::mt19937_64 g_random;
int g_num_checks = 0, g_num_wrong = 0;

int64_t between(int64_t low, int64_t high) { return low + static_cast<int64_t>(g_random() % (high - low + 1)); }

// Whole numbers of at most `largest`: products of them are exact, in any order.
std::vector<float> whole_numbers(int64_t count, int largest) {
    std::vector<float> numbers(count);
    for (float& number : numbers) number = static_cast<float>(between(-largest, largest));
    return numbers;
}

std::vector<float> numbers(int64_t count) {
    std::normal_distribution<float> normal;
    std::vector<float> out(count);
    for (float& number : out) number = normal(g_random);
    return out;
}

void compare(const char* what, const std::vector<float>& found, const std::vector<float>& expected, float tolerance) {
    ++g_num_checks;
    float largest = 0;
    for (float value : expected) largest = std::fmax(largest, std::fabs(value));
    for (size_t i = 0; i < found.size(); ++i) {
        const bool agrees = tolerance == 0 ? std::memcmp(&found[i], &expected[i], sizeof(float)) == 0
                                           : std::fabs(found[i] - expected[i]) <= tolerance * largest + 1e-30f;
        if (agrees) continue;
        ++g_num_wrong;
        std::printf("%s: %.9g at %zu, expected %.9g\n", what, found[i], i, expected[i]);
        return;
    }
}

struct Lowbit {
    PanelLayout layout;
    std::vector<uint8_t> panels;
    int64_t out_size, num_blocks;
};

// Random bits in every block; scales and minimums of 1 and factors of at most 2 where all is to be exact.
Lowbit random_panels(GgmlTypeId type, bool is_exact) {
    Lowbit weight;
    find_layout(type, &weight.layout);
    weight.out_size = between(1, 40), weight.num_blocks = between(1, 60);
    const int64_t num_panels = (weight.out_size + kPanelRows - 1) / kPanelRows;
    weight.panels.resize(num_panels * weight.num_blocks * weight.layout.block_bytes());
    for (uint8_t& byte : weight.panels) byte = static_cast<uint8_t>(g_random());
    const int num_scales = weight.layout.has_minimums ? 32 : 16;
    for (int64_t b = 0; b < num_panels * weight.num_blocks; ++b) {
        uint8_t* scales = weight.panels.data() + b * weight.layout.block_bytes() + weight.layout.quant_bytes();
        if (is_exact && weight.layout.format == kS8Halves)
            for (int i = 1; i <= 32; ++i) scales[-i] = static_cast<uint8_t>(between(-2, 2));
        for (int i = 0; i < num_scales; ++i) {
            const float single = is_exact ? 1.0f : static_cast<float>(between(1, 2000)) / 1024;
            const auto half = static_cast<uint16_t>(is_exact ? 0x3c00 : between(0x2000, 0x3fff));
            if (weight.layout.scale_bytes == 2)
                std::memcpy(scales + 2 * i, &half, 2);
            else
                std::memcpy(scales + 4 * i, &single, 4);
        }
    }
    return weight;
}

std::vector<float> multiply(const IsaKernels& unit, const Lowbit& weight, const std::vector<float>& x,
                            int64_t num_tokens) {
    std::vector<uint8_t> activations(num_tokens * weight.num_blocks * activation_bytes(weight.layout.format));
    const QuantizeCall quantize = {{kAsItIs, nullptr, 0}, x.data(), weight.num_blocks * kBlockSize, num_tokens, weight.num_blocks,
                                   weight.layout.format, activations.data()};
    unit.quantize_tiles(quantize, 0, (num_tokens + kTileWidth - 1) / kTileWidth);
    std::vector<float> out(num_tokens * weight.out_size, 1.0f);
    const LowbitCall call = {weight.layout, weight.panels.data(), activations.data(), nullptr, out.data(),
                             weight.out_size, true, num_tokens, weight.num_blocks, weight.out_size};
    unit.multiply_lowbit(call, 0, (weight.out_size + kPanelRows - 1) / kPanelRows);
    return out;
}

void check_lowbit(const IsaKernels& unit, GgmlTypeId type) {
    const int64_t num_tokens = between(1, 11);
    // With the largest quant in each block activations are their own quants: all sums are whole, and small
    // enough to be exact as floats.
    const Lowbit exact = random_panels(type, true);
    std::vector<float> x = whole_numbers(num_tokens * exact.num_blocks * kBlockSize, 2);
    for (size_t i = 0; i < x.size(); i += kBlockSize) x[i] = exact.layout.format == kU4 ? kLargestByteQuant : kLargestWideQuant;
    compare("integer sums", multiply(unit, exact, x, num_tokens), multiply(kGenericKernels, exact, x, num_tokens), 0);
    const Lowbit weight = random_panels(type, false);
    x = numbers(num_tokens * weight.num_blocks * kBlockSize);
    compare("low-bit product", multiply(unit, weight, x, num_tokens), multiply(kGenericKernels, weight, x, num_tokens),
            2e-5f);
}

void check_floats(const IsaKernels& unit) {
    const int64_t num_tokens = between(1, 14), in_size = between(1, 600), out_size = between(1, 40);
    const int64_t num_panels = (out_size + kPanelRows - 1) / kPanelRows;
    const std::vector<float> x = numbers(num_tokens * in_size), bias = numbers(out_size);
    std::vector<float> panels = numbers(num_panels * in_size * kPanelRows);
    std::vector<uint16_t> narrow(panels.size());
    for (size_t i = 0; i < panels.size(); ++i) {
        uint32_t bits;
        std::memcpy(&bits, &panels[i], sizeof bits);
        bits &= 0xffff0000u;
        std::memcpy(&panels[i], &bits, sizeof bits);
        narrow[i] = static_cast<uint16_t>(bits >> 16);
    }
    std::vector<float> found(num_tokens * out_size), expected(found.size());
    LinearCall call = {x.data(), in_size, panels.data(), bias.data(), found.data(),
                       out_size, false, num_tokens, in_size, out_size};
    unit.multiply_panels(call, 0, num_panels);
    const std::vector<float> wide = found;
    unit.multiply_narrow({call, narrow.data(), false}, 0, num_panels);
    compare("bfloat16 product beside float32", found, wide, 0);
    call.out = expected.data();
    kGenericKernels.multiply_panels(call, 0, num_panels);
    compare("float32 product", wide, expected, 2e-5f);
}

void check_halves(const IsaKernels& unit) {
    std::vector<float> x(4096), found(x.size()), expected(x.size());
    for (size_t i = 0; i < x.size(); ++i) x[i] = std::ldexp(static_cast<float>(between(-4095, 4095)), between(-30, 8));
    std::vector<uint16_t> theirs(x.size()), ours(x.size());
    unit.store_halves(x.data(), static_cast<int64_t>(x.size()), ours.data());
    kGenericKernels.store_halves(x.data(), static_cast<int64_t>(x.size()), theirs.data());
    for (size_t i = 0; i < x.size(); ++i) found[i] = ours[i], expected[i] = theirs[i];
    compare("float16 rounding", found, expected, 0);
}

void check_rows(const IsaKernels& unit) {
    const int64_t num_rows = between(1, 5), size = 2 * between(1, 300);
    const std::vector<float> x = numbers(num_rows * size), y = numbers(num_rows * size), weight = numbers(size);
    std::vector<float> found(x.size()), expected(x.size());
    const StridedRows rows = {num_rows, 1, size, size, size};
    unit.rms_norm(rows, x.data(), weight.data(), 1e-5f, 0, num_rows, found.data());
    kGenericKernels.rms_norm(rows, x.data(), weight.data(), 1e-5f, 0, num_rows, expected.data());
    compare("RMS norm", found, expected, 1e-5f);
    unit.gated_silu(size, x.data(), size, y.data(), size, 0, num_rows, found.data());
    kGenericKernels.gated_silu(size, x.data(), size, y.data(), size, 0, num_rows, expected.data());
    compare("gated SiLU", found, expected, 1e-5f);
    const std::vector<float> angles = numbers(num_rows * size);
    const std::vector<int64_t> positions(num_rows, 0);
    found = expected = x;
    unit.rotate(rows, found.data(), angles.data(), y.data(), positions.data(), 0, num_rows);
    kGenericKernels.rotate(rows, expected.data(), angles.data(), y.data(), positions.data(), 0, num_rows);
    compare("rotation", found, expected, 1e-5f);
}

// Rows of a cache in this format.
std::vector<uint8_t> stored_rows(const std::vector<float>& numbers, int head_dim, KvFormat format) {
    const int64_t row_bytes = format == kKvFloat ? 4 * head_dim : format == kKvHalf ? 2 * head_dim : head_dim + 4;
    const auto num_rows = static_cast<int64_t>(numbers.size()) / head_dim;
    std::vector<uint8_t> rows(num_rows * row_bytes);
    for (int64_t i = 0; i < num_rows; ++i) {
        const float* from = numbers.data() + i * head_dim;
        uint8_t* to = rows.data() + i * row_bytes;
        if (format == kKvFloat) std::memcpy(to, from, row_bytes);
        if (format == kKvHalf) kGenericKernels.store_halves(from, head_dim, reinterpret_cast<uint16_t*>(to));
        if (format == kKvInt8) kGenericKernels.store_int8(from, head_dim, reinterpret_cast<int8_t*>(to));
    }
    return rows;
}

// One sequence's rows over a cache of its own, in pieces that are merged.
void check_attention(const IsaKernels& unit, KvFormat format) {
    const int group = static_cast<int>(between(1, 8)), head_dim = 8 * static_cast<int>(between(1, 32));
    const int32_t context = static_cast<int32_t>(between(1, 400)), rows = static_cast<int32_t>(between(1, std::min(context, 4)));
    const int32_t block_size = 16, num_blocks = (context + block_size - 1) / block_size;
    const std::vector<float> query = numbers(int64_t{rows} * group * head_dim);
    const std::vector<uint8_t> keys = stored_rows(numbers(int64_t{num_blocks} * block_size * head_dim), head_dim, format),
                               values = stored_rows(numbers(int64_t{num_blocks} * block_size * head_dim), head_dim, format);
    const float soft_cap = between(0, 1) ? 0.0f : 2.0f;
    const int32_t starts[2] = {0, rows};
    std::vector<int32_t> table(num_blocks);
    for (int32_t b = 0; b < num_blocks; ++b) table[b] = b;
    std::vector<float> outs[2];
    const IsaKernels* units[2] = {&unit, &kGenericKernels};
    for (int u = 0; u < 2; ++u) {
        outs[u].resize(query.size());
        const AttentionCall call = {query.data(), group * head_dim, head_dim,
                                    keys.data(), values.data(), starts, &context, table.data(), num_blocks, outs[u].data(), 1, group, 1, head_dim,
                                    block_size, 0, 1.0f / std::sqrt(static_cast<float>(head_dim)), soft_cap, format};
        const QueryTile tile = {0, 0, rows};
        const int num_pairs = rows * group;
        std::vector<float> total(num_pairs * (head_dim + 2)), part(total.size());
        const auto partial = [&](std::vector<float>& from) {
            return AttentionPartial{from.data(), from.data() + num_pairs, from.data() + 2 * num_pairs};
        };
        units[u]->attend_tokens(call, tile, 0, 0, kPieceTokens, {}, partial(total));
        if (context > kPieceTokens) {
            units[u]->attend_tokens(call, tile, 0, kPieceTokens, 2 * kPieceTokens, {}, partial(part));
            units[u]->merge_partials(num_pairs, head_dim, partial(total), partial(part));
        }
        units[u]->store_attention(call, tile, 0, partial(total));
    }
    compare("attention", outs[0], outs[1], 2e-5f);
}

}  // namespace

int main(int argc, char** argv) {
    if (argc < 2) return std::fprintf(stderr, "usage: unit_check UNIT [ROUNDS [SEED]]\n"), 2;
    const auto* unit = static_cast<const IsaKernels*>(octavo_isa(argv[1]));
    if (unit == nullptr) return std::printf("%s: not on this processor\n", argv[1]), 77;
    const int num_rounds = argc > 2 ? std::atoi(argv[2]) : 20;
    g_random.seed(argc > 3 ? std::strtoull(argv[3], nullptr, 10) : 0);
    for (int round = 0; round < num_rounds; ++round) {
        for (GgmlTypeId type : {kQ4_0, kQ4_1, kQ4_K, kQ5_0, kQ5_1, kQ5_K, kQ8_0, kQ3_K, kQ6_K}) check_lowbit(*unit, type);
        check_floats(*unit);
        check_halves(*unit);
        check_rows(*unit);
        check_attention(*unit, static_cast<KvFormat>(round % 3));
    }
    std::printf("%s beside generic: %d checks, %d wrong\n", unit->name, g_num_checks, g_num_wrong);
    return g_num_wrong == 0 ? 0 : 1;
}
