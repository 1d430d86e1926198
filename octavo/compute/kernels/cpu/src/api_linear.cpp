// The part of the C interface that multiplies: linear layers, and the head's choice of the likeliest token.
// The Python side has checked shapes, formats and devices.
#include <algorithm>
#include <cmath>
#include <vector>

#include "product.h"
#include "program.h"
#include "thread_pool.h"

#define OCTAVO_API extern "C" __attribute__((visibility("default")))

using namespace octavo;

namespace {

constexpr int64_t kGreedyPanels = 16;  // logits of so many panels are looked through while they are in cache

struct Largest {
    float value;
    int64_t place;
};

// The first of equals wins, and NaN for good.
void keep_larger(Largest* best, const Largest& next) {
    if (std::isnan(best->value)) return;
    if (std::isnan(next.value) || next.value > best->value) *best = next;
}

}  // namespace

// out [num_tokens][out_size] = or += before(x) @ weight.T + bias.
OCTAVO_API void octavo_linear(const void* isa, int32_t ggml_type, const void* panels, const float* bias,
                              int64_t in_size, int64_t out_size, int32_t before_kind, const float* before_weight,
                              float before_eps, const float* x, int64_t x_stride, int64_t num_tokens, float* out,
                              int64_t out_stride, int32_t adds, int32_t num_threads) {
    const Weight weight = {ggml_type, panels, bias, in_size, out_size};
    const Before before = {static_cast<BeforeKind>(before_kind), before_weight, before_eps};
    perform({"linear", in_size, out_size}, {num_tokens, num_threads}, [=](const StepInputs& step) {
        const Product product(*static_cast<const IsaKernels*>(isa), weight, {before, x, x_stride, step.num_tokens},
                              step.num_threads);
        const int64_t num_panels = weight.num_panels(), num_items = product.num_items(step.num_threads);
        for_each_item(num_items, step.num_threads, [&](int64_t item, int) {
            const int64_t first = num_panels * item / num_items;
            product.multiply(first, num_panels * (item + 1) / num_items, out + first * kPanelRows, out_stride, adds != 0);
        });
        return int64_t{0};
    });
}

// For each row of before(x) @ weight.T + bias its largest value, NaN where it has one, and that value's first place.
OCTAVO_API void octavo_choose_greedy(const void* isa, int32_t ggml_type, const void* panels, const float* bias,
                                     int64_t in_size, int64_t out_size, int32_t before_kind, const float* before_weight,
                                     float before_eps, const float* x, int64_t x_stride, int64_t num_tokens,
                                     int64_t* places, float* maxima, int32_t num_threads) {
    const auto& kernels = *static_cast<const IsaKernels*>(isa);
    const Weight weight = {ggml_type, panels, bias, in_size, out_size};
    const Before before = {static_cast<BeforeKind>(before_kind), before_weight, before_eps};
    const Product product(kernels, weight, {before, x, x_stride, num_tokens}, num_threads);
    const int64_t num_items = (weight.num_panels() + kGreedyPanels - 1) / kGreedyPanels;
    constexpr int64_t kWidth = kGreedyPanels * kPanelRows;
    std::vector<Largest> found(num_items * num_tokens);
    std::vector<float> logits(num_threads * num_tokens * kWidth);
    for_each_item(num_items, num_threads, [&](int64_t item, int worker) {
        const int64_t first_panel = item * kGreedyPanels, first = first_panel * kPanelRows;
        const int64_t end_panel = std::min(first_panel + kGreedyPanels, weight.num_panels());
        float* rows = logits.data() + worker * num_tokens * kWidth;
        product.multiply(first_panel, end_panel, rows, kWidth, false);
        for (int64_t t = 0; t < num_tokens; ++t) {
            Largest& largest = found[item * num_tokens + t];
            kernels.find_maximum(rows + t * kWidth, std::min(out_size - first, kWidth), &largest.value, &largest.place);
            largest.place += first;
        }
    });
    for (int64_t t = 0; t < num_tokens; ++t) {
        Largest best = found[t];
        for (int64_t item = 1; item < num_items; ++item) keep_larger(&best, found[item * num_tokens + t]);
        places[t] = best.place, maxima[t] = best.value;
    }
}
