// From ggml's rows of blocks to panels, and single rows back. See lowbit.h for the panels' layout.
#pragma once
#include "lowbit.h"

namespace octavo {

// The ids that GGUF files give the formats that are kept as they are; the first two are plain numbers.
enum GgmlTypeId : int32_t {
    kF16 = 1,
    kBF16 = 30,
    kQ4_0 = 2,
    kQ4_1 = 3,
    kQ5_0 = 6,
    kQ5_1 = 7,
    kQ8_0 = 8,
    kQ3_K = 11,
    kQ4_K = 12,
    kQ5_K = 13,
    kQ6_K = 14,
};

struct PackCall {
    GgmlTypeId type;
    PanelLayout layout;
    const uint8_t* rows;  // [out_size] rows of ggml blocks
    int64_t out_size;
    int64_t num_blocks;  // of 32 inputs, in a row
    uint8_t* panels;
};

// How a ggml type lies in panels. False: it is not one of those that do.
bool find_layout(int32_t type, PanelLayout* layout);

// False: a scale does not fit the layout's number format, so the panel is of no use.
bool pack_panel(const PackCall& call, int64_t panel);

// One row's weights as floats [32 * num_blocks].
void read_row(const PanelLayout& layout, const uint8_t* panels, int64_t num_blocks, int64_t row, float* out);

// The same of panels [in_size][16] of plain numbers: kF16, kBF16, or else float32.
void read_plain_row(int32_t type, const void* panels, int64_t in_size, int64_t row, float* out);

}  // namespace octavo
