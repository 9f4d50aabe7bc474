// Compiled once per instruction set: SPARSEPRIORS_ISA names it, SPARSEPRIORS_VECTOR_BYTES is its vector width.
#include "born.hpp"
#include "kernels.hpp"
#include "masks.hpp"
#include "spmm.hpp"
#include "variation.hpp"

namespace sparsepriors {

extern const InstructionSet SPARSEPRIORS_ISA;
const InstructionSet SPARSEPRIORS_ISA = {
    {born_forward<float>, born_adjoint<float>},
    {born_forward<double>, born_adjoint<double>},
    {nm_mask<float>},
    {nm_mask<double>},
    variation<float>,
    variation<double>,
    {kWidth, spmm_limit, spmm, spmm_panel},
};

}  // namespace sparsepriors
