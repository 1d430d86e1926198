// The inner loops for x86-64 processors with AVX-512 and its dot products (VNNI; servers since 2019).
#include "attention_kernels.h"
#include "linear_kernels.h"
#include "lowbit_kernels.h"
#include "narrow_kernels.h"
#include "row_kernels.h"

namespace octavo {

const IsaKernels kAvx512VnniKernels = {
    "avx512vnni",     attend_tokens, merge_partials,  store_attention, store_halves,    store_int8, rms_norm,
    rotate,     gated_silu,    find_maximum,    multiply_panels, quantize_tiles,  multiply_lowbit,
    multiply_narrow,
};

}  // namespace octavo
