// The inner loops for x86-64 processors with AVX2 and FMA (2013 and later).
#include "attention_kernels.h"
#include "linear_kernels.h"
#include "lowbit_kernels.h"
#include "narrow_kernels.h"
#include "row_kernels.h"

namespace octavo {

const IsaKernels kAvx2Kernels = {
    "avx2",     attend_tokens, merge_partials,  store_attention, store_halves,    store_int8, rms_norm,
    rotate,     gated_silu,    find_maximum,    multiply_panels, quantize_tiles,  multiply_lowbit,
    multiply_narrow,
};

}  // namespace octavo
