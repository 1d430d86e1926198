// Paged attention, written once and compiled once per instruction set. Include only inside a unit.
//
// Every number that leaves here is a function of its own row alone, and each sum runs in an order fixed by
// the row's position and the model's shape: bitwise the same alone, in a batch, chunked or recomputed.
#pragma once
#include <cmath>

#include "isa.h"
#include "vector.h"

namespace octavo {
namespace {

constexpr int kChunkTokens = 32;  // K and V of a chunk (16 KB at head size 64) stay in the L1 cache
constexpr int kMaxHeads = 3;      // heads attended at once: 3 x 4 accumulators fill 12 of 16 registers
// Tiles with few rows wait for memory. They ask for the next chunk while they compute this one, a little
// at a time: asked for in one go, the requests would fill the core's miss buffers and stall it.
constexpr int kMaxPrefetchRows = 4;
constexpr int kLineBytes = 64;  // of a cache line

template <typename Number>
OCTAVO_INLINE void prefetch(const Number* start, int count) {
    for (int i = 0; i < count; i += kLineBytes / static_cast<int>(sizeof(Number))) __builtin_prefetch(start + i);
}

OCTAVO_INLINE Vec load_number(const float* from) { return load(from); }
OCTAVO_INLINE Vec load_number(const uint16_t* from) { return load_halves(from); }
OCTAVO_INLINE Vec load_number(const int8_t* from) { return load_int8(from); }

// Numbers from one token's row to the next.
template <typename Number>
OCTAVO_INLINE int row_size(int head_dim) {
    return sizeof(Number) == 1 ? head_dim + static_cast<int>(sizeof(float)) : head_dim;
}

// Some neighbouring tokens of one sequence and KV head: where their keys and values lie.
// Entries up to num_known - 1 may be prefetched: the tokens that come next, of whatever sequence and head.
// Numbers are float, uint16_t where the cache holds float16, or int8_t; these have a scale for each token.
template <typename Number>
struct TokenRun {
    const Number* const* keys;
    const Number* const* values;
    int num_tokens;
    int num_known;
    const float *key_scales, *value_scales;  // null where the numbers need none
};

// scores[h * kChunkTokens + t] = query_h . key_t, for t < run.num_tokens rounded up to a multiple of 4.
template <int H, typename Number>
OCTAVO_INLINE void score_tokens(const float* query, int64_t head_stride, const TokenRun<Number>& run, int head_dim,
                                float* scores) {
    for (int t = 0; t < run.num_tokens; t += 4) {
        const Number* rows[4];
        for (int i = 0; i < 4; ++i) {
            // Past the end the last key is read again: the same code computes every score.
            rows[i] = run.keys[t + i < run.num_tokens ? t + i : run.num_tokens - 1];
            const int ahead = t + i + kChunkTokens;
            if (ahead < run.num_known) prefetch(run.keys[ahead], row_size<Number>(head_dim));
        }
        Vec sums[H][4] = {};
        for (int d = 0; d < head_dim; d += kLanes) {
            Vec q[H];
            for (int h = 0; h < H; ++h) q[h] = load(query + h * head_stride + d);
            for (int i = 0; i < 4; ++i) {
                const Vec k = load_number(rows[i] + d);
                for (int h = 0; h < H; ++h) sums[h][i] = multiply_add(q[h], k, sums[h][i]);
            }
        }
        for (int h = 0; h < H; ++h)
            store_sums(scores + h * kChunkTokens + t, sums[h][0], sums[h][1], sums[h][2], sums[h][3]);
    }
}

// weighted_h = weighted_h * rescale_h + sum over t of weights_h[t] * value_t, on W vectors of the head.
template <int H, int W, typename Number>
OCTAVO_INLINE void add_values(const float* weights, const float* rescale, const TokenRun<Number>& run, int d, int head_dim,
                              float* weighted) {
    Vec sums[H][W];
    for (int h = 0; h < H; ++h)
        for (int w = 0; w < W; ++w)
            sums[h][w] = settled(load(weighted + h * head_dim + d + w * kLanes) * broadcast(rescale[h]));
    for (int t = 0; t < run.num_tokens; ++t) {
        const Number* value = run.values[t] + d;
        if (t + kChunkTokens < run.num_known) prefetch(run.values[t + kChunkTokens] + d, W * kLanes);
        Vec p[H];
        for (int h = 0; h < H; ++h) p[h] = broadcast(weights[h * kChunkTokens + t]);
        for (int w = 0; w < W; ++w) {
            const Vec v = load_number(value + w * kLanes);
            for (int h = 0; h < H; ++h) sums[h][w] = multiply_add(p[h], v, sums[h][w]);
        }
    }
    for (int h = 0; h < H; ++h)
        for (int w = 0; w < W; ++w) store(weighted + h * head_dim + d + w * kLanes, sums[h][w]);
}

OCTAVO_INLINE void multiply_scores(float* scores, const float* factors) {
    for (int i = 0; i < kChunkTokens; i += kLanes) store(scores + i, load(scores + i) * load(factors + i));
}

// score -> cap * tanh(score * scale / cap), for models that bound their scores so (Gemma 2, arXiv:2408.00118).
OCTAVO_INLINE void cap_scores(float* scores, float scale, float cap) {
    for (int i = 0; i < kChunkTokens; i += kLanes) {
        const Vec twice = load(scores + i) * broadcast(2.0f * scale / cap);
        // tanh(u) = 1 - 2 / (1 + e^2u)
        store(scores + i, broadcast(cap) - broadcast(2.0f * cap) / (broadcast(1.0f) + exp(twice)));
    }
}

// Turn one head's scores into softmax weights against the running maximum. Returns the factor that
// brings what was summed before to the new maximum.
OCTAVO_INLINE float weigh_scores(float* scores, int num_tokens, float scale, float* running_max, float* running_sum) {
    for (int t = num_tokens; t < kChunkTokens; ++t) scores[t] = -INFINITY;
    Vec largest = broadcast(*running_max);
    Vec scaled[kChunkTokens / kLanes];
    for (int i = 0; i < kChunkTokens / kLanes; ++i) {
        scaled[i] = settled(load(scores + i * kLanes) * broadcast(scale));
        largest = max(largest, scaled[i]);
    }
    const float new_max = max_lanes(largest);
    Vec sum = {};
    for (int i = 0; i < kChunkTokens / kLanes; ++i) {
        const Vec weight = exp(scaled[i] - broadcast(new_max));
        store(scores + i * kLanes, weight);
        sum += weight;
    }
    // Most chunks bring no new maximum; exp(0) is exactly 1.
    const float rescale = new_max == *running_max ? 1.0f : exp(broadcast(*running_max - new_max))[0];
    *running_max = new_max;
    *running_sum = multiply_add(broadcast(*running_sum), broadcast(rescale), broadcast(sum_lanes(sum)))[0];
    return rescale;
}

template <int H, typename Number>
void attend_chunk(const AttentionCall& call, const float* query, const TokenRun<Number>& run, float* max, float* sum,
                  float* weighted) {
    constexpr int kWide = H == 1 ? 8 : 4;
    const int head_dim = call.head_dim;
    alignas(32) float scores[H * kChunkTokens];
    float rescale[H];
    score_tokens<H, Number>(query, call.query_head_stride, run, head_dim, scores);
    for (int h = 0; h < H; ++h) {
        float* row = scores + h * kChunkTokens;
        if (run.key_scales) multiply_scores(row, run.key_scales);
        if (call.soft_cap > 0) cap_scores(row, call.scale, call.soft_cap);
        rescale[h] = weigh_scores(row, run.num_tokens, call.soft_cap > 0 ? 1.0f : call.scale, max + h, sum + h);
        if (run.value_scales) multiply_scores(row, run.value_scales);
    }
    int d = 0;
    for (; d + kWide * kLanes <= head_dim; d += kWide * kLanes)
        add_values<H, kWide, Number>(scores, rescale, run, d, head_dim, weighted);
    for (; d + 2 * kLanes <= head_dim; d += 2 * kLanes)
        add_values<H, 2, Number>(scores, rescale, run, d, head_dim, weighted);
    for (; d < head_dim; d += kLanes) add_values<H, 1, Number>(scores, rescale, run, d, head_dim, weighted);
}

// A KV head serves any number of query heads: take them in even parts of at most kMaxHeads.
template <typename Number>
void attend_group(const AttentionCall& call, const float* query, const TokenRun<Number>& run, int first_pair,
                  const AttentionPartial& part) {
    const int group = call.num_heads / call.num_kv_heads;
    const int num_parts = (group + kMaxHeads - 1) / kMaxHeads;
    for (int i = 0; i < num_parts; ++i) {
        const int head = group * i / num_parts, num_heads = group * (i + 1) / num_parts - head;
        const int pair = first_pair + head;
        const float* q = query + head * call.query_head_stride;
        float *max = part.max + pair, *sum = part.sum + pair;
        float* weighted = part.weighted + static_cast<int64_t>(pair) * call.head_dim;
        if (num_heads == 3)
            attend_chunk<3, Number>(call, q, run, max, sum, weighted);
        else if (num_heads == 2)
            attend_chunk<2, Number>(call, q, run, max, sum, weighted);
        else
            attend_chunk<1, Number>(call, q, run, max, sum, weighted);
    }
}

// A chunk's keys and values as float32, for the many rows that will read them.
constexpr int kMaxWideHead = 256;
struct WideChunk {
    alignas(64) float numbers[2][kChunkTokens * kMaxWideHead];
    const float *keys[kChunkTokens], *values[kChunkTokens];
};

template <typename Number>
void widen_chunk(const TokenRun<Number>& run, int head_dim, WideChunk* wide) {
    for (int t = 0; t < run.num_tokens; ++t) {
        float *key = wide->numbers[0] + t * head_dim, *value = wide->numbers[1] + t * head_dim;
        for (int d = 0; d < head_dim; d += kLanes) {
            store(key + d, load_number(run.keys[t] + d));
            store(value + d, load_number(run.values[t] + d));
        }
        wide->keys[t] = key;
        wide->values[t] = value;
    }
}

// Where each token's key and value lie, from start_token on; those of first_token would be in keys[0].
template <typename Number>
OCTAVO_INLINE void find_tokens(const AttentionCall& call, int sequence, int kv_head, int first_token, int start_token,
                               int end_token, const Number** keys, const Number** values) {
    const int32_t* block_table = call.block_tables + sequence * call.block_table_stride;
    const auto *key_blocks = static_cast<const Number*>(call.key_blocks),
               *value_blocks = static_cast<const Number*>(call.value_blocks);
    int block = start_token / call.block_size, offset = start_token % call.block_size;
    for (int token = start_token; token < end_token; ++block, offset = 0) {
        const int64_t tile_start =
            (static_cast<int64_t>(block_table[block]) * call.num_kv_heads + kv_head) * call.block_size;
        for (; offset < call.block_size && token < end_token; ++offset, ++token) {
            keys[token - first_token] = key_blocks + (tile_start + offset) * row_size<Number>(call.head_dim);
            values[token - first_token] = value_blocks + (tile_start + offset) * row_size<Number>(call.head_dim);
        }
    }
}

// The scales of a chunk's int8 rows, with room for reading whole vectors from any token on.
struct ChunkScales {
    alignas(32) float keys[2 * kChunkTokens], values[2 * kChunkTokens];
};

OCTAVO_INLINE void read_scales(const TokenRun<int8_t>& run, int head_dim, ChunkScales* scales) {
    *scales = {};
    for (int t = 0; t < run.num_tokens; ++t) {
        std::memcpy(scales->keys + t, run.keys[t] + head_dim, sizeof(float));
        std::memcpy(scales->values + t, run.values[t] + head_dim, sizeof(float));
    }
}
template <typename Number>
OCTAVO_INLINE void read_scales(const TokenRun<Number>&, int, ChunkScales*) {}

template <typename Number>
void attend_typed(const AttentionCall& call, const QueryTile& tile, int kv_head, int first_token, int end_token,
                  const TokensAhead& ahead, const AttentionPartial& part) {
    const int group = call.num_heads / call.num_kv_heads;
    const int64_t first_query = call.query_starts[tile.sequence];
    const int64_t num_queries = call.query_starts[tile.sequence + 1] - first_query;
    // Position in the sequence of the tile's first and last row.
    const int first_position = static_cast<int>(call.context_lengths[tile.sequence] - num_queries) + tile.first_row;
    const int last_position = first_position + tile.num_rows - 1;
    if (end_token > last_position + 1) end_token = last_position + 1;
    const int visible_from = call.window > 0 ? first_position - call.window + 1 : 0;
    const int start_token = visible_from < first_token ? first_token : visible_from;
    const Number *keys[kPieceTokens + kChunkTokens], *values[kPieceTokens + kChunkTokens];
    find_tokens<Number>(call, tile.sequence, kv_head, first_token, start_token, end_token, keys, values);
    int end_known = end_token;
    if (tile.num_rows <= kMaxPrefetchRows && ahead.num_tokens > 0) {
        const int num_ahead = ahead.num_tokens < kChunkTokens ? ahead.num_tokens : kChunkTokens;
        find_tokens<Number>(call, ahead.sequence, ahead.kv_head, ahead.first_token, ahead.first_token,
                            ahead.first_token + num_ahead, keys + (end_token - first_token),
                            values + (end_token - first_token));
        end_known += num_ahead;
    }
    // One row reads the cache as it is; several share what was widened once.
    const bool widens = sizeof(Number) != sizeof(float) && tile.num_rows > 1 && call.head_dim <= kMaxWideHead;
    WideChunk wide;
    constexpr bool kHasScales = sizeof(Number) == 1;
    ChunkScales scales;
    const int first_chunk = start_token - (start_token - first_token) % kChunkTokens;
    for (int chunk = first_chunk; chunk < end_token; chunk += kChunkTokens) {
        const int chunk_end = chunk + kChunkTokens < end_token ? chunk + kChunkTokens : end_token;
        const int start = chunk > start_token ? chunk : start_token;
        const Number *const *chunk_keys = keys + (start - first_token), *const *chunk_values = values + (start - first_token);
        const TokenRun<Number> whole = {chunk_keys, chunk_values, chunk_end - start, 0, nullptr, nullptr};
        if (kHasScales) read_scales(whole, call.head_dim, &scales);
        if (widens) widen_chunk<Number>(whole, call.head_dim, &wide);
        for (int row = 0; row < tile.num_rows; ++row) {
            const int position = first_position + row;
            int low = call.window > 0 ? position - call.window + 1 : 0;
            if (low < start) low = start;
            const int high = position + 1 < chunk_end ? position + 1 : chunk_end;
            if (low >= high) continue;
            const float* query = call.query + (first_query + tile.first_row + row) * call.query_token_stride +
                                 kv_head * group * call.query_head_stride;
            const int skipped = low - start;
            const int num_known = tile.num_rows <= kMaxPrefetchRows ? end_known - low : 0;
            const float *key_scales = kHasScales ? scales.keys + skipped : nullptr,
                        *value_scales = kHasScales ? scales.values + skipped : nullptr;
            if (widens)
                attend_group<float>(
                    call, query, {wide.keys + skipped, wide.values + skipped, high - low, 0, key_scales, value_scales},
                    row * group, part);
            else
                attend_group<Number>(call, query,
                                     {chunk_keys + skipped, chunk_values + skipped, high - low, num_known, key_scales,
                                      value_scales},
                                     row * group, part);
        }
    }
}

void attend_tokens(const AttentionCall& call, const QueryTile& tile, int kv_head, int first_token, int end_token,
                   const TokensAhead& ahead, const AttentionPartial& part) {
    const int num_pairs = tile.num_rows * (call.num_heads / call.num_kv_heads);
    for (int i = 0; i < num_pairs; ++i) part.max[i] = -INFINITY, part.sum[i] = 0.0f;
    std::memset(part.weighted, 0, sizeof(float) * num_pairs * call.head_dim);
    switch (call.kv_format) {
        case kKvFloat: return attend_typed<float>(call, tile, kv_head, first_token, end_token, ahead, part);
        case kKvHalf: return attend_typed<uint16_t>(call, tile, kv_head, first_token, end_token, ahead, part);
        case kKvInt8: return attend_typed<int8_t>(call, tile, kv_head, first_token, end_token, ahead, part);
    }
}

void merge_partials(int num_pairs, int head_dim, const AttentionPartial& total, const AttentionPartial& part) {
    for (int i = 0; i < num_pairs; ++i) {
        if (part.sum[i] == 0.0f) continue;  // the row saw none of these tokens
        const float new_max = total.max[i] > part.max[i] ? total.max[i] : part.max[i];
        const Vec keep = exp(broadcast(total.max[i] - new_max)), add = exp(broadcast(part.max[i] - new_max));
        total.max[i] = new_max;
        total.sum[i] = total.sum[i] * keep[0] + part.sum[i] * add[0];
        float* sums = total.weighted + static_cast<int64_t>(i) * head_dim;
        const float* more = part.weighted + static_cast<int64_t>(i) * head_dim;
        for (int d = 0; d < head_dim; d += kLanes) store(sums + d, load(sums + d) * keep + load(more + d) * add);
    }
}

void store_attention(const AttentionCall& call, const QueryTile& tile, int kv_head, const AttentionPartial& total) {
    const int group = call.num_heads / call.num_kv_heads;
    for (int row = 0; row < tile.num_rows; ++row) {
        const int64_t token = call.query_starts[tile.sequence] + tile.first_row + row;
        for (int h = 0; h < group; ++h) {
            const int pair = row * group + h;
            const float* weighted = total.weighted + static_cast<int64_t>(pair) * call.head_dim;
            float* out = call.out + (token * call.num_heads + kv_head * group + h) * call.head_dim;
            const Vec inverse = broadcast(1.0f / total.sum[pair]);
            for (int d = 0; d < call.head_dim; d += kLanes) store(out + d, load(weighted + d) * inverse);
        }
    }
}

// Floats -> int8, rounded to the nearest, and the float32 that they are to be multiplied by: the largest
// magnitude / 127. A row with NaN or infinity gets NaN there.
void store_int8(const float* from, int64_t count, int8_t* to) {
    float largest = 0.0f, never = 0.0f;
    for (int64_t i = 0; i < count; ++i) {
        largest = std::fabs(from[i]) > largest ? std::fabs(from[i]) : largest;
        never += from[i] - from[i];
    }
    const bool is_zero = largest < 1e-35f;  // its inverse would overflow
    const float inverse = is_zero || never != 0.0f ? 0.0f : 127.0f / largest;
    for (int64_t i = 0; i < count; ++i)
        to[i] = never != 0.0f ? int8_t{0} : static_cast<int8_t>(std::nearbyint(from[i] * inverse));
    const float scale = never != 0.0f ? NAN : is_zero ? 0.0f : largest / 127.0f;
    std::memcpy(to + count, &scale, sizeof scale);
}

// Floats -> float16, rounded to the nearest, ties to even.
void store_halves(const float* from, int64_t count, uint16_t* to) {
    int64_t i = 0;
#if defined(__F16C__)
    for (; i + kLanes <= count; i += kLanes)
        _mm_storeu_si128(reinterpret_cast<__m128i*>(to + i), _mm256_cvtps_ph(_mm256_loadu_ps(from + i), 0));
#endif
    for (; i < count; ++i) to[i] = float_to_half(from[i]);
}

}  // namespace
}  // namespace octavo
