// The compiled kernels of sparsepriors, one nanobind module: which code paths there are, and what the families bind.
#include <nanobind/stl/vector.h>

#include <vector>

#include "binding.hpp"

namespace sparsepriors {
namespace {

bool runs(const std::string& name) {
    if (name == "portable") return true;
#ifdef SPARSEPRIORS_X86
    __builtin_cpu_init();
    const bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
    if (name == "avx2") return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
                                 __builtin_cpu_supports("f16c");
    if (name == "avx512") return avx512;
    if (name == "avx512_vbmi2")
        return avx512 && __builtin_cpu_supports("avx512vbmi") && __builtin_cpu_supports("avx512vbmi2");
#endif
    return false;
}

std::vector<std::string> instruction_sets() {
    std::vector<std::string> found;
    for (const char* name : {"avx512_vbmi2", "avx512", "avx2", "portable"})
        if (runs(name)) found.emplace_back(name);
    return found;
}

}  // namespace

const InstructionSet& chosen(const std::string& name) {
    if (!runs(name)) throw std::invalid_argument("this processor or build has no instruction set '" + name + "'");
#ifdef SPARSEPRIORS_X86
    if (name == "avx512_vbmi2") return avx512_vbmi2;
    if (name == "avx512") return avx512;
    if (name == "avx2") return avx2;
#endif
    return portable;
}

}  // namespace sparsepriors

NB_MODULE(_native, m) {
    using namespace sparsepriors;
    m.doc() = "Compiled CPU kernels; the PyTorch references are in sparsepriors.kernels.reference.";
    m.def("instruction_sets", &instruction_sets, "Code paths that this processor runs, the fastest first.");
    m.def("in_memory", &in_memory, "Whether an array has memory that a kernel can be given.");
    bind_bitmap(m);
    bind_born(m);
    bind_codes(m);
    bind_csc(m);
    bind_dense(m);
    bind_descent(m);
    bind_ista(m);
    bind_masks(m);
    bind_modulus(m);
    bind_momentum(m);
    bind_nm_linear(m);
    bind_pursuit(m);
    bind_simplex(m);
    bind_sorted_l1(m);
    bind_spmm(m);
    bind_variation(m);
}
