// The library's C interface: cuts calls into work items and hands them to the chosen unit's inner loops.
// The Python side has checked shapes, formats and devices; indices into memory are checked here.
#include <algorithm>
#include <cstring>
#include <memory>
#include <vector>

#include "isa.h"
#include "program.h"
#include "thread_pool.h"

#define OCTAVO_API extern "C" __attribute__((visibility("default")))

namespace octavo {
namespace {

// Rows of a tile times heads of a group: K and V of a chunk are read once for so many (row, head) pairs.
constexpr int kTilePairs = 48;
// Below so many multiply-adds or copied floats, waking another thread costs more than it saves.
constexpr int64_t kMinParallelWork = 1 << 16;
constexpr int64_t kMinParallelFloats = 1 << 14;
constexpr int64_t kVisitItemsPerThread = 8;  // of attention

// Partials for `count` tiles of one call, in one allocation.
class PartialStorage {
  public:
    PartialStorage(int64_t count, int num_pairs, int head_dim)
        : num_pairs_(num_pairs),
          stride_((static_cast<int64_t>(num_pairs) * (head_dim + 2) + 15) / 16 * 16),
          floats_(new float[count * stride_]) {}

    AttentionPartial at(int64_t index) const {
        float* start = floats_.get() + index * stride_;
        return {start, start + num_pairs_, start + 2 * num_pairs_};
    }

  private:
    int num_pairs_;
    int64_t stride_;
    std::unique_ptr<float[]> floats_;
};

std::vector<QueryTile> cut_tiles(const AttentionCall& call, int rows_per_tile) {
    std::vector<QueryTile> tiles;
    for (int32_t sequence = 0; sequence < call.num_sequences; ++sequence) {
        const int32_t num_rows = call.query_starts[sequence + 1] - call.query_starts[sequence];
        for (int32_t row = 0; row < num_rows; row += rows_per_tile)
            tiles.push_back({sequence, row, std::min(rows_per_tile, num_rows - row)});
    }
    return tiles;
}

// The pieces of its sequence that a tile sees.
struct PieceRange {
    int first, end;
};

PieceRange visible_pieces(const AttentionCall& call, const QueryTile& tile) {
    const int num_queries = call.query_starts[tile.sequence + 1] - call.query_starts[tile.sequence];
    const int first_position = call.context_lengths[tile.sequence] - num_queries + tile.first_row;
    const int visible_from = call.window > 0 ? std::max(0, first_position - call.window + 1) : 0;
    return {visible_from / kPieceTokens, (first_position + tile.num_rows - 1) / kPieceTokens + 1};
}

// One KV head of a tile and the pieces of its sequence: what attend_whole does one after another.
struct Visit {
    int32_t tile, kv_head;
    PieceRange pieces;
};

TokensAhead tokens_of_piece(const AttentionCall& call, const QueryTile& tile, int kv_head, int piece) {
    const int first_token = piece * kPieceTokens, end_token = call.context_lengths[tile.sequence];
    return {tile.sequence, kv_head, first_token, std::max(0, end_token - first_token)};
}

TokensAhead first_tokens(const AttentionCall& call, const std::vector<QueryTile>& tiles, const Visit& visit) {
    return tokens_of_piece(call, tiles[visit.tile], visit.kv_head, visit.pieces.first);
}

// A few visits an item, so that each can ask for the next one's memory; the pieces of each one after another.
void attend_whole(const IsaKernels& isa, const AttentionCall& call, const std::vector<QueryTile>& tiles, int num_pairs,
                  int num_threads) {
    const int group = call.num_heads / call.num_kv_heads;
    const PartialStorage storage(2 * static_cast<int64_t>(num_threads), num_pairs, call.head_dim);
    const int64_t num_visits = static_cast<int64_t>(tiles.size()) * call.num_kv_heads;
    const auto visit_at = [&](int64_t index) {
        const auto tile = static_cast<int32_t>(index / call.num_kv_heads);
        return Visit{tile, static_cast<int32_t>(index % call.num_kv_heads), visible_pieces(call, tiles[tile])};
    };
    const int64_t num_items = std::min(num_visits, kVisitItemsPerThread * num_threads);
    for_each_item(num_items, num_threads, [&](int64_t item, int worker) {
        const AttentionPartial total = storage.at(2 * worker), part = storage.at(2 * worker + 1);
        const int64_t end = num_visits * (item + 1) / num_items;
        for (int64_t v = num_visits * item / num_items; v < end; ++v) {
            const Visit visit = visit_at(v);
            const QueryTile& tile = tiles[visit.tile];
            for (int piece = visit.pieces.first; piece < visit.pieces.end; ++piece) {
                const bool is_first = piece == visit.pieces.first, is_last = piece + 1 == visit.pieces.end;
                TokensAhead ahead = {};
                if (!is_last)
                    ahead = tokens_of_piece(call, tile, visit.kv_head, piece + 1);
                else if (v + 1 < end)
                    ahead = first_tokens(call, tiles, visit_at(v + 1));
                isa.attend_tokens(call, tile, visit.kv_head, piece * kPieceTokens, (piece + 1) * kPieceTokens, ahead,
                                  is_first ? total : part);
                if (!is_first) isa.merge_partials(tile.num_rows * group, call.head_dim, total, part);
            }
            isa.store_attention(call, tile, visit.kv_head, total);
        }
    });
}

// One item a piece, for few rows over long contexts; then the same merges in the same order as above.
void attend_split(const IsaKernels& isa, const AttentionCall& call, const std::vector<QueryTile>& tiles, int num_pairs,
                  int num_threads) {
    struct Item {
        int32_t tile, kv_head, piece;
    };
    const int group = call.num_heads / call.num_kv_heads;
    std::vector<Item> items;
    std::vector<int64_t> first_items;
    for (int32_t t = 0; t < static_cast<int32_t>(tiles.size()); ++t) {
        const PieceRange pieces = visible_pieces(call, tiles[t]);
        for (int32_t kv_head = 0; kv_head < call.num_kv_heads; ++kv_head) {
            first_items.push_back(static_cast<int64_t>(items.size()));
            for (int piece = pieces.first; piece < pieces.end; ++piece) items.push_back({t, kv_head, piece});
        }
    }
    first_items.push_back(static_cast<int64_t>(items.size()));
    const PartialStorage storage(static_cast<int64_t>(items.size()), num_pairs, call.head_dim);
    for_each_item(static_cast<int64_t>(items.size()), num_threads, [&](int64_t i, int) {
        const Item& item = items[i];
        isa.attend_tokens(call, tiles[item.tile], item.kv_head, item.piece * kPieceTokens,
                          (item.piece + 1) * kPieceTokens, {}, storage.at(i));
    });
    for (size_t j = 0; j + 1 < first_items.size(); ++j) {
        const Item& item = items[first_items[j]];
        const QueryTile& tile = tiles[item.tile];
        const AttentionPartial total = storage.at(first_items[j]);
        for (int64_t i = first_items[j] + 1; i < first_items[j + 1]; ++i)
            isa.merge_partials(tile.num_rows * group, call.head_dim, total, storage.at(i));
        isa.store_attention(call, tile, item.kv_head, total);
    }
}

// A wrong block id would read another request's memory or none at all: cheap to rule out beforehand.
int64_t find_wrong_sequence(const AttentionCall& call, int64_t num_tokens, int64_t num_blocks) {
    for (int32_t s = 0; s < call.num_sequences; ++s) {
        const int64_t first_row = call.query_starts[s], end_row = call.query_starts[s + 1];
        const int64_t context_length = call.context_lengths[s];
        if (first_row < 0 || end_row <= first_row || end_row > num_tokens || context_length < end_row - first_row ||
            context_length > call.block_table_stride * call.block_size)
            return s + 1;
        const int32_t* block_table = call.block_tables + s * call.block_table_stride;
        for (int64_t i = 0; i * call.block_size < context_length; ++i)
            if (block_table[i] < 0 || block_table[i] >= num_blocks) return s + 1;
    }
    return 0;
}

void attend(const IsaKernels& isa, const AttentionCall& call, int num_threads) {
    const int group = call.num_heads / call.num_kv_heads;
    int32_t max_rows = 0;
    int64_t num_visited_tokens = 0;
    bool is_long = false;
    for (int32_t s = 0; s < call.num_sequences; ++s) {
        const int32_t num_rows = call.query_starts[s + 1] - call.query_starts[s];
        max_rows = std::max(max_rows, num_rows);
        num_visited_tokens += static_cast<int64_t>(num_rows) * call.context_lengths[s];
        is_long |= call.context_lengths[s] > kPieceTokens;
    }
    const int rows_per_tile = std::clamp(kTilePairs / group, 1, std::max(max_rows, 1));
    const std::vector<QueryTile> tiles = cut_tiles(call, rows_per_tile);
    if (2 * num_visited_tokens * call.num_heads * call.head_dim < kMinParallelWork) num_threads = 1;
    const int num_pairs = rows_per_tile * group;
    const int64_t num_items = static_cast<int64_t>(tiles.size()) * call.num_kv_heads;
    if (num_threads > 1 && is_long && num_items < 8 * num_threads)
        attend_split(isa, call, tiles, num_pairs, num_threads);
    else
        attend_whole(isa, call, tiles, num_pairs, num_threads);
}

int64_t find_outside(const int64_t* values, int64_t count, int64_t end) {
    for (int64_t i = 0; i < count; ++i)
        if (values[i] < 0 || values[i] >= end) return i + 1;
    return 0;
}

// Cut rows into a few ranges a thread, or leave them whole where there is little to do.
template <typename Function>
void for_row_ranges(int64_t num_rows, int64_t num_floats, int num_threads, Function&& function) {
    const int64_t num_ranges = num_floats < kMinParallelFloats ? 1 : std::min<int64_t>(num_rows, 4 * num_threads);
    for_each_item(num_ranges, num_threads, [&](int64_t range, int) {
        function(num_rows * range / num_ranges, num_rows * (range + 1) / num_ranges);
    });
}

}  // namespace
}  // namespace octavo

using namespace octavo;

// Which sources the library was built from: the Python side compares it with those it finds.
OCTAVO_API const char* octavo_source_hash() { return OCTAVO_SOURCE_HASH; }

// Returns 0, or the first sequence whose rows or blocks lie outside the given memory, plus 1.
OCTAVO_API int64_t octavo_paged_attention(const void* isa, const float* query, int64_t query_token_stride,
                                       int64_t query_head_stride, const void* key_blocks, const void* value_blocks,
                                       const int32_t* query_starts, const int32_t* context_lengths,
                                       const int32_t* block_tables, int64_t block_table_stride, float* out,
                                       int64_t num_tokens, int64_t num_blocks, int32_t num_sequences, int32_t num_heads, int32_t num_kv_heads,
                                       int32_t head_dim, int32_t block_size, int32_t window, float scale,
                                       float soft_cap, int32_t kv_format, int32_t num_threads) {
    const AttentionCall fixed = {query,          query_token_stride, query_head_stride,  key_blocks,    value_blocks,
                                 query_starts,   context_lengths,    block_tables,       block_table_stride,
                                 out,            num_sequences,      num_heads,          num_kv_heads,  head_dim,
                                 block_size,     window,             scale,              soft_cap,
                                 static_cast<KvFormat>(kv_format)};
    StepInputs now = {num_tokens, num_threads};
    now.query_starts = query_starts, now.context_lengths = context_lengths, now.block_tables = block_tables;
    now.block_table_stride = block_table_stride, now.num_sequences = num_sequences;
    return perform({"attention", num_heads * head_dim, num_heads * head_dim}, now, [=](const StepInputs& step) {
        AttentionCall call = fixed;
        call.query_starts = step.query_starts, call.context_lengths = step.context_lengths;
        call.block_tables = step.block_tables, call.block_table_stride = step.block_table_stride;
        call.num_sequences = step.num_sequences;
        const int64_t wrong_sequence = find_wrong_sequence(call, step.num_tokens, num_blocks);
        if (wrong_sequence == 0) attend(*static_cast<const IsaKernels*>(isa), call, step.num_threads);
        return wrong_sequence;
    });
}

// Returns 0, or the first token whose slot lies outside the blocks, plus 1; then nothing is written.
OCTAVO_API int64_t octavo_write_kv(const void* isa, const float* key, const float* value, int64_t key_token_stride,
                                   int64_t key_head_stride, int64_t value_token_stride, int64_t value_head_stride,
                                   void* key_blocks, void* value_blocks, int32_t kv_format, const int64_t* slots,
                                   int64_t num_tokens, int64_t num_blocks, int64_t num_kv_heads, int64_t block_size,
                                   int64_t head_dim, int32_t num_threads) {
    const auto* kernels = static_cast<const IsaKernels*>(isa);
    const int64_t row_size = kv_format == kKvInt8 ? head_dim + static_cast<int64_t>(sizeof(float)) : head_dim;
    const auto put = [=](const float* from, void* blocks, int64_t to) {
        switch (static_cast<KvFormat>(kv_format)) {
            case kKvFloat: std::memcpy(static_cast<float*>(blocks) + to, from, sizeof(float) * head_dim); return;
            case kKvHalf: kernels->store_halves(from, head_dim, static_cast<uint16_t*>(blocks) + to); return;
            case kKvInt8: kernels->store_int8(from, head_dim, static_cast<int8_t*>(blocks) + to); return;
        }
    };
    // Each token's rows lie in another block: none is in a cache, and stores wait for their lines one by one.
    constexpr int64_t kTokensAhead = 4;
    const int64_t number_size = kv_format == kKvFloat ? 4 : kv_format == kKvHalf ? 2 : 1;
    const auto ask = [=](int64_t to) {
        for (int64_t byte = 0; byte < row_size * number_size; byte += 64) {
            __builtin_prefetch(static_cast<char*>(key_blocks) + to * number_size + byte, 1);
            __builtin_prefetch(static_cast<char*>(value_blocks) + to * number_size + byte, 1);
        }
    };
    StepInputs now = {num_tokens, num_threads};
    now.slots = slots;
    return perform({"write_kv", 2 * num_kv_heads * head_dim, 2 * num_kv_heads * head_dim}, now, [=](const StepInputs& step) {
        const int64_t wrong_token = find_outside(step.slots, step.num_tokens, num_blocks * block_size);
        if (wrong_token != 0) return wrong_token;
        const int64_t num_floats = 2 * step.num_tokens * num_kv_heads * head_dim;
        const auto place = [=](int64_t slot, int64_t head) {
            return ((slot / block_size * num_kv_heads + head) * block_size + slot % block_size) * row_size;
        };
        for_row_ranges(step.num_tokens, num_floats, step.num_threads, [&](int64_t first, int64_t end) {
            for (int64_t token = first; token < end; ++token) {
                if (token + kTokensAhead < end)
                    for (int64_t head = 0; head < num_kv_heads; ++head) ask(place(step.slots[token + kTokensAhead], head));
                for (int64_t head = 0; head < num_kv_heads; ++head) {
                    const int64_t to = place(step.slots[token], head);
                    put(key + token * key_token_stride + head * key_head_stride, key_blocks, to);
                    put(value + token * value_token_stride + head * value_head_stride, value_blocks, to);
                }
            }
        });
        return int64_t{0};
    });
}

// One layer's blocks, of block_bytes each.
OCTAVO_API void octavo_copy_blocks(char* key_blocks, char* value_blocks, const int64_t* source_ids,
                                   const int64_t* target_ids, int64_t num_copies, int64_t block_bytes) {
    for (int64_t i = 0; i < num_copies; ++i) {
        if (source_ids[i] == target_ids[i]) continue;
        for (char* blocks : {key_blocks, value_blocks})
            std::memcpy(blocks + target_ids[i] * block_bytes, blocks + source_ids[i] * block_bytes, block_bytes);
    }
}

OCTAVO_API void octavo_rms_norm(const void* isa, const float* x, int64_t num_outer, int64_t num_inner, int64_t size,
                                int64_t outer_stride, int64_t inner_stride, const float* weight, float eps, float* out,
                                int32_t num_threads) {
    const auto* kernels = static_cast<const IsaKernels*>(isa);
    perform({"rms_norm", num_inner * size, num_inner * size}, {num_outer, num_threads}, [=](const StepInputs& step) {
        const StridedRows rows = {step.num_tokens, num_inner, size, outer_stride, inner_stride};
        const int64_t num_floats = step.num_tokens * num_inner * size;
        for_row_ranges(step.num_tokens, num_floats, step.num_threads, [&](int64_t first, int64_t end) {
            kernels->rms_norm(rows, x, weight, eps, first, end, out);
        });
        return int64_t{0};
    });
}

// Returns 0, or the first token whose position lies outside the tables, plus 1; then nothing is turned.
OCTAVO_API int64_t octavo_rotate(const void* isa, float* query, int64_t num_heads, int64_t query_token_stride,
                                 int64_t query_head_stride, float* key, int64_t num_kv_heads, int64_t key_token_stride,
                                 int64_t key_head_stride, const float* cos, const float* sin, const int64_t* positions,
                                 int64_t max_positions, int64_t num_tokens, int64_t head_dim, int32_t num_threads) {
    const auto* kernels = static_cast<const IsaKernels*>(isa);
    StepInputs now = {num_tokens, num_threads};
    now.positions = positions;
    return perform({"rotate", (num_heads + num_kv_heads) * head_dim, (num_heads + num_kv_heads) * head_dim}, now, [=](const StepInputs& step) {
        const int64_t wrong_token = find_outside(step.positions, step.num_tokens, max_positions);
        if (wrong_token != 0) return wrong_token;
        const StridedRows queries = {step.num_tokens, num_heads, head_dim, query_token_stride, query_head_stride};
        const StridedRows keys = {step.num_tokens, num_kv_heads, head_dim, key_token_stride, key_head_stride};
        const int64_t num_floats = step.num_tokens * (num_heads + num_kv_heads) * head_dim;
        for_row_ranges(step.num_tokens, num_floats, step.num_threads, [&](int64_t first, int64_t end) {
            kernels->rotate(queries, query, cos, sin, step.positions, first, end);
            kernels->rotate(keys, key, cos, sin, step.positions, first, end);
        });
        return int64_t{0};
    });
}

OCTAVO_API void octavo_gated_silu(const void* isa, const float* gate, int64_t gate_stride, const float* up,
                                  int64_t up_stride, int64_t num_rows, int64_t size, float* out, int32_t num_threads) {
    const auto* kernels = static_cast<const IsaKernels*>(isa);
    perform({"gated_silu", 2 * size, size}, {num_rows, num_threads}, [=](const StepInputs& step) {
        const int64_t num_floats = step.num_tokens * size;
        for_row_ranges(step.num_tokens, num_floats, step.num_threads, [&](int64_t first, int64_t end) {
            kernels->gated_silu(size, gate, gate_stride, up, up_stride, first, end, out);
        });
        return int64_t{0};
    });
}
