// The part of the C interface that finds the inner loops which this processor can run.
#include <cstring>

#include "isa.h"
#if defined(OCTAVO_NEON_UNIT)
#include <sys/auxv.h>
#endif

#define OCTAVO_API extern "C" __attribute__((visibility("default")))

using namespace octavo;

namespace {

#if defined(OCTAVO_X86_UNITS)
bool has_avx2() {
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
}

bool has_avx512() {
    return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}
#endif

#if defined(OCTAVO_NEON_UNIT)
constexpr unsigned long kHasDotProduct = 1ul << 20;  // HWCAP_ASIMDDP of Linux's arm64 interface
#endif

}  // namespace

// The inner loops for an instruction set, or null where this build or this processor does not have it.
OCTAVO_API const void* octavo_isa(const char* name) {
    if (std::strcmp(name, "generic") == 0) return &kGenericKernels;
#if defined(OCTAVO_X86_UNITS)
    if (std::strcmp(name, "avx2") == 0 && has_avx2()) return &kAvx2Kernels;
    if (std::strcmp(name, "avx512") == 0 && has_avx512()) return &kAvx512Kernels;
    if (std::strcmp(name, "avx512vnni") == 0 && has_avx512() && __builtin_cpu_supports("avx512vnni"))
        return &kAvx512VnniKernels;
#endif
#if defined(OCTAVO_NEON_UNIT)
    if (std::strcmp(name, "neon") == 0 && (getauxval(AT_HWCAP) & kHasDotProduct)) return &kNeonKernels;
#endif
    return nullptr;
}
