// The inner loops, written once and compiled once per instruction set. Include only inside a unit.
//
// Every number that leaves here is a function of its own row alone: rows are never summed together, and
// each sum runs in an order fixed by the row's position and the model's shape. That is what makes a
// request's output bitwise the same alone, in a batch, chunked or recomputed.
#pragma once
#include <cmath>

#include "isa.h"
#include "vector.h"

namespace octavo {
namespace {

// 1 / sqrt(mean of squares + eps).
OCTAVO_INLINE float inverse_rms(const float* row, int64_t size, float eps) {
    const int64_t body = size - size % kLanes;
    Vec squares[2] = {};
    int64_t i = 0;
    for (; i + 2 * kLanes <= body; i += 2 * kLanes) {
        const Vec a = load(row + i), b = load(row + i + kLanes);
        squares[0] += a * a;
        squares[1] += b * b;
    }
    for (; i < body; i += kLanes) squares[0] += load(row + i) * load(row + i);
    float sum = sum_lanes(squares[0] + squares[1]);
    for (i = body; i < size; ++i) sum += row[i] * row[i];
    return 1.0f / std::sqrt(sum / static_cast<float>(size) + eps);
}

void rms_norm(const StridedRows& rows, const float* x, const float* weight, float eps, int64_t first_outer,
              int64_t end_outer, float* out) {
    const int64_t size = rows.size, body = size - size % kLanes;
    for (int64_t outer = first_outer; outer < end_outer; ++outer) {
        for (int64_t inner = 0; inner < rows.num_inner; ++inner) {
            const float* row = x + outer * rows.outer_stride + inner * rows.inner_stride;
            float* to = out + (outer * rows.num_inner + inner) * size;
            const float inverse = inverse_rms(row, size, eps);
            int64_t i = 0;
            for (; i < body; i += kLanes) {
                const Vec normed = load(row + i) * broadcast(inverse);
                store(to + i, weight ? normed * load(weight + i) : normed);
            }
            for (i = body; i < size; ++i) to[i] = row[i] * inverse * (weight ? weight[i] : 1.0f);
        }
    }
}

void rotate(const StridedRows& rows, float* x, const float* cos, const float* sin, const int64_t* positions,
            int64_t first_token, int64_t end_token) {
    const int64_t half = rows.size / 2, body = half - half % kLanes;
    for (int64_t token = first_token; token < end_token; ++token) {
        const float *c = cos + positions[token] * half, *s = sin + positions[token] * half;
        for (int64_t head = 0; head < rows.num_inner; ++head) {
            float* first = x + token * rows.outer_stride + head * rows.inner_stride;
            float* second = first + half;
            for (int64_t i = 0; i < body; i += kLanes) {
                const Vec a = load(first + i), b = load(second + i), vc = load(c + i), vs = load(s + i);
                store(first + i, a * vc - b * vs);
                store(second + i, b * vc + a * vs);
            }
            for (int64_t i = body; i < half; ++i) {
                const float a = first[i], b = second[i];
                first[i] = a * c[i] - b * s[i];
                second[i] = b * c[i] + a * s[i];
            }
        }
    }
}

OCTAVO_INLINE Vec silu(Vec x) { return x / (broadcast(1.0f) + exp(broadcast(0.0f) - x)); }

void gated_silu(int64_t size, const float* gate, int64_t gate_stride, const float* up, int64_t up_stride,
                int64_t first_row, int64_t end_row, float* out) {
    const int64_t body = size - size % kLanes;
    for (int64_t row = first_row; row < end_row; ++row) {
        const float *g = gate + row * gate_stride, *u = up + row * up_stride;
        float* to = out + row * size;
        for (int64_t i = 0; i < body; i += kLanes) store(to + i, silu(load(g + i)) * load(u + i));
        for (int64_t i = body; i < size; ++i) to[i] = silu(broadcast(g[i]))[0] * u[i];
    }
}

// The largest of x and the first place where it stands; NaN where x holds one.
void find_maximum(const float* x, int64_t count, float* maximum, int64_t* place) {
    const int64_t body = count - count % kLanes;
    Vec largest = broadcast(-INFINITY);
    IntVec is_nan = {};
    for (int64_t i = 0; i < body; i += kLanes) {
        const Vec v = load(x + i);
        is_nan |= v != v;
        largest = max(largest, v);
    }
    float result = max_lanes(largest);
    bool found_nan = false;
    for (int lane = 0; lane < kLanes; ++lane) found_nan |= is_nan[lane] != 0;
    for (int64_t i = body; i < count; ++i) {
        found_nan |= std::isnan(x[i]);
        result = x[i] > result ? x[i] : result;
    }
    *maximum = found_nan ? NAN : result;
    int64_t i = 0;
    while (!found_nan && i < count - 1 && x[i] != result) ++i;
    *place = i;
}

}  // namespace
}  // namespace octavo
