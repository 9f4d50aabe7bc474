// Compiled once per instruction set: SPARSEPRIORS_ISA names it, SPARSEPRIORS_VECTOR_BYTES is its vector width.
#include "anderson.hpp"
#include "bitmap.hpp"
#include "bitmap_pack.hpp"
#include "born.hpp"
#include "codes.hpp"
#include "columns.hpp"
#include "dense.hpp"
#include "descent.hpp"
#include "ista.hpp"
#include "kernels.hpp"
#include "masks.hpp"
#include "modulus.hpp"
#include "momentum.hpp"
#include "newton.hpp"
#include "nm_dot.hpp"
#include "nm_linear.hpp"
#include "pursuit.hpp"
#include "simplex.hpp"
#include "softmax.hpp"
#include "spmm.hpp"
#include "variation.hpp"

namespace sparsepriors {
namespace {

template <class V>
constexpr BitmapKernels<V> kBitmap = {bitmap_scores<V>, bitmap_mix<V>, dense_scores<V>, dense_mix<V>, bitmap_mark<V>,
                                      bitmap_fill<V>, bitmap_unpack<V>};

}  // namespace

extern const InstructionSet SPARSEPRIORS_ISA;
const InstructionSet SPARSEPRIORS_ISA = {
    {born_forward<float>, born_adjoint<float>},
    {born_forward<double>, born_adjoint<double>},
    {nm_mask<float>},
    {nm_mask<double>},
    variation<float>,
    variation<double>,
    {kWidth, spmm_limit, spmm, spmm_panel},
    kBitmap<float>,
    kBitmap<Float16>,
    kBitmap<BFloat16>,
    {exponentials},
    nm::nm_linear<float>,
    nm::nm_linear<uint16_t>,
    nm::nm_dot,
    {descend<Descent>, descend<GroupDescent>, descend<BlockDescent>, newton, optimality, column_products<float>,
     column_products<double>},
    {ista<float>},
    {ista<double>},
    {pursuit<float>},
    {pursuit<double>},
    {reaching<float>, sum_rows<float>, dot_rows<float>},
    {reaching<double>, sum_rows<double>, dot_rows<double>},
    {matrix_vector<float>, vector_matrix<float>},
    {matrix_vector<double>, vector_matrix<double>},
    {moves<float>, beyond_line<float>},
    {moves<double>, beyond_line<double>},
    largest_modulus<float>,
    largest_modulus<double>,
    simplex<float>,
    simplex<double>,
};

}  // namespace sparsepriors
