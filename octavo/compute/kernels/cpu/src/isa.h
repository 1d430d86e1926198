// What every instruction-set unit provides: the inner loops, over plain float32 memory.
// A unit is compiled with its own flags, so nothing here may be inline code that two units would share.
#pragma once
#include <cstdint>

#include "lowbit.h"

namespace octavo {

// How the cache holds a head's row of numbers: as many float32, float16 or int8, the latter followed by the
// float32 that they are multiplied by.
enum KvFormat : int32_t { kKvFloat = 0, kKvHalf = 1, kKvInt8 = 2 };

// One layer's attention call. Strides count floats; see signatures.PagedAttention for the shapes.
struct AttentionCall {
    const float* query;
    int64_t query_token_stride;
    int64_t query_head_stride;
    const void* key_blocks;
    const void* value_blocks;
    const int32_t* query_starts;
    const int32_t* context_lengths;
    const int32_t* block_tables;
    int64_t block_table_stride;
    float* out;
    int32_t num_sequences;
    int32_t num_heads;
    int32_t num_kv_heads;
    int32_t head_dim;
    int32_t block_size;
    int32_t window;  // 0: none
    float scale;
    float soft_cap;  // 0: none
    KvFormat kv_format;
};

// Neighbouring rows of one sequence, attended together so that K and V come from the L1 cache.
struct QueryTile {
    int32_t sequence;
    int32_t first_row;  // within the sequence's rows of this step
    int32_t num_rows;
};

// The tokens that are attended to next: tiles of few rows wait for memory, and ask for it in time.
struct TokensAhead {
    int32_t sequence, kv_head, first_token;
    int32_t num_tokens;  // 0: none are known
};

// Softmax-weighted sums of some (row, head) pairs over some tokens, before division. Pairs are ordered
// by row, then by head of the group; `weighted` is [num_pairs][head_dim].
struct AttentionPartial {
    float* max;
    float* sum;
    float* weighted;
};

// [num_outer, num_inner, size] with a contiguous last dim; strides count floats.
struct StridedRows {
    int64_t num_outer;
    int64_t num_inner;
    int64_t size;
    int64_t outer_stride;
    int64_t inner_stride;
};

// One matrix product against packed weights: panels [ceil(out_size / 16)][in_size][16], missing rows 0.
struct LinearCall {
    const float* x;  // [num_tokens][in_size], rows x_stride floats apart
    int64_t x_stride;
    const float* panels;
    const float* bias;  // [out_size] or null
    float* out;         // [num_tokens][out_size], rows out_stride floats apart
    int64_t out_stride;
    bool adds;  // to what `out` holds
    int64_t num_tokens;
    int64_t in_size;
    int64_t out_size;
};

// The same where a weight takes two bytes, which are widened as they are multiplied; `rest.panels` is not read.
struct NarrowCall {
    LinearCall rest;
    const void* panels;
    bool is_half;  // float16; else bfloat16
};

struct IsaKernels {
    const char* name;
    // Attend the tile's rows to the tokens first_token .. end_token - 1 that they may see.
    void (*attend_tokens)(const AttentionCall&, const QueryTile&, int kv_head, int first_token, int end_token,
                          const TokensAhead&, const AttentionPartial&);
    // total = total + part, in the softmax sense.
    void (*merge_partials)(int num_pairs, int head_dim, const AttentionPartial& total, const AttentionPartial& part);
    // Divide and store the tile's rows.
    void (*store_attention)(const AttentionCall&, const QueryTile&, int kv_head, const AttentionPartial&);
    void (*store_halves)(const float* from, int64_t count, uint16_t* to);
    void (*store_int8)(const float* from, int64_t count, int8_t* to);
    void (*rms_norm)(const StridedRows&, const float* x, const float* weight, float eps, int64_t first_outer,
                     int64_t end_outer, float* out);
    void (*rotate)(const StridedRows&, float* x, const float* cos, const float* sin, const int64_t* positions,
                   int64_t first_token, int64_t end_token);
    void (*gated_silu)(int64_t size, const float* gate, int64_t gate_stride, const float* up, int64_t up_stride,
                       int64_t first_row, int64_t end_row, float* out);
    void (*find_maximum)(const float* x, int64_t count, float* maximum, int64_t* place);
    void (*multiply_panels)(const LinearCall&, int64_t first_panel, int64_t end_panel);
    void (*quantize_tiles)(const QuantizeCall&, int64_t first_tile, int64_t end_tile);
    void (*multiply_lowbit)(const LowbitCall&, int64_t first_panel, int64_t end_panel);
    void (*multiply_narrow)(const NarrowCall&, int64_t first_panel, int64_t end_panel);
};

constexpr int kPanelRows = 16;  // the Python side packs by the same number

// Attention is computed in pieces of this many tokens, counted from the start of the sequence, each by
// itself and then merged in order: cuts that no batch, tile or thread count can move.
constexpr int kPieceTokens = 256;

extern const IsaKernels kGenericKernels;
// Linked in only where the build defines OCTAVO_X86_UNITS or OCTAVO_NEON_UNIT.
extern const IsaKernels kAvx2Kernels;
extern const IsaKernels kAvx512Kernels;
extern const IsaKernels kAvx512VnniKernels;
extern const IsaKernels kNeonKernels;

}  // namespace octavo
