// What every instruction set's translation unit offers to the module: plain functions over plain pointers.
#pragma once
#include <cstddef>
#include <cstdint>
#include <utility>

namespace sparsepriors {

// One-way propagators of a Born model (see kernels/formats.py): base [segments][tiles][antennas][2][tile],
// ratio [tiles][antennas][2][tile], transmitters before receivers.
template <class T>
struct Born {
    const T* base;
    const T* ratio;
    size_t tiles, tile, voxels, transmitters, receivers, frequencies, segment;
    size_t antennas() const { return transmitters + receivers; }
    size_t pairs() const { return transmitters * receivers; }
};

template <class T>
struct BornKernels {
    // Adds the measurements of tiles [first, last) of one scene x [voxels] (interleaved complex) to y
    // [frequencies][2][receivers][transmitters], real and imaginary planes.
    void (*forward)(const Born<T>&, const T* x, size_t first, size_t last, T* scratch, T* y);
    // Writes the voxels of tiles [first, last) of x from y [frequencies][3][transmitters][receivers], the planes real,
    // imaginary and their sum of the CONJUGATE measurements.
    void (*adjoint)(const Born<T>&, const T* y, size_t first, size_t last, T* scratch, T* x);
};

constexpr size_t kAlignment = 64;  // bytes of a cache line: a vector load that straddles two costs twice

// Values of scratch that one thread needs, in whole cache lines: two planes of all antennas, two of voxels, three of
// pairs.
template <class T>
size_t born_scratch(const Born<T>& b) {
    constexpr size_t line = kAlignment / sizeof(T);
    return (2 * b.antennas() * b.tile + 2 * b.tile + 3 * b.pairs() + line - 1) / line * line;
}

template <class T>
struct MaskKernels {
    // keep[i] = 1 for the n largest of every m consecutive scores, ties to the lower index; true if any score is NaN.
    bool (*nm)(const T* scores, size_t groups, int n, int m, uint8_t* keep);
};

// One unknown x [parts][planes][rows][columns] of a total variation problem: minimise ||x - D^T p||^2 / 2 over p
// [axes][parts][planes][rows][columns], |p| <= bound at every entry; D differences along the last `axes` axes, the
// others having length 1. A line is one row of columns.
template <class T>
struct Variation {
    const T* x;
    T bound;
    size_t planes, rows, columns;
    int axes;
    size_t lines() const { return planes * rows; }
    size_t entries() const { return lines() * columns; }
    size_t ahead() const { return axes == 3 ? rows : axes == 2; }  // lines until the farthest neighbour
};

// Values of scratch that one thread needs: a line for each difference, one of factors, one of zeros, and u on the lines
// up to the farthest neighbour, each with one more entry.
template <class T>
size_t variation_scratch(const Variation<T>& v, size_t parts) {
    constexpr size_t line = kAlignment / sizeof(T);
    const size_t entries = (v.axes * parts + 2) * v.columns + (v.ahead() + 1) * parts * (v.columns + 1);
    return (entries + line - 1) / line * line;
}

template <class T>
struct VariationKernels {
    // A projected gradient step from q on lines [first, last): p becomes the new point, next = p + beta * (p - old p).
    // Returns the inner product of q - p and p - old p.
    double (*step)(const Variation<T>&, size_t first, size_t last, T beta, const T* q, T* p, T* next, T* scratch);
    // Adds to sums the duality gap of p, the primal objective at u = x - D^T p, and ||x||^2.
    void (*gap)(const Variation<T>&, size_t first, size_t last, const T* p, T* scratch, double* sums);
    // Writes u.
    void (*primal)(const Variation<T>&, size_t first, size_t last, const T* p, T* scratch, T* u);
};

// Sparse weights of a 1 x 1 convolution (see kernels/chw.py): `full` blocks of nr output channels that share their kept
// input channels, then blocks of one. Block b begins at output channel rows[b] and keeps the input channels
// columns[starts[b]], ..., with as many values each as it has rows.
struct Spmm {
    const float* values;
    const int32_t* columns;
    const int32_t* starts;
    const int32_t* rows;
    const float* bias;
    size_t full, blocks;
    float lo, hi;
};

// A strip of pixels: channel c of the input at x + c * stride, of the output at y + c * out_stride. Vectors follow one
// another but for the last, which begins `last` (`out_last`) pixels in: it overlaps the one before where pixels do not
// fill whole vectors. Or the last is short: kSpmmShort pixels, of channel c of the input at tail + c * tail_stride, of
// which the first `tail_pixels` belong to the output.
struct SpmmPixels {
    const float* x;
    size_t stride, last;
    float* y;
    size_t out_stride, out_last;
    const float* tail;
    size_t tail_stride, tail_pixels;
};

constexpr size_t kSpmmShort = 4;  // pixels

using SpmmStrip = void (*)(const Spmm&, size_t first_block, size_t last_block, const SpmmPixels&);

struct SpmmKernels {
    size_t width;                                     // pixels of a vector
    size_t (*limit)(int nr);                          // most vectors of a strip, a short one among them
    SpmmStrip (*strip)(int nr, size_t vectors, bool shortened);
    // Copies a strip of `vectors` whole vectors of every channel to lie without gaps, and behind it the `tail_pixels`
    // that follow in every channel.
    void (*panel)(const float* x, size_t channels, size_t stride, size_t vectors, size_t last, size_t tail_pixels,
                  float* panel);
};

struct Float16 {
    uint16_t bits;
};
struct BFloat16 {
    uint16_t bits;
};

// The packed tokens of one head (see kernels/bitmap.py): words [blocks][tiles], block b of the values from
// values + offsets[b]. At least 64 values may be read after the last.
template <class V>
struct BitmapHead {
    const uint64_t* words;
    const int32_t* offsets;
    const V* values;
    size_t tiles;  // of a block: channels of keys, channels in whole words of values
    size_t pad;
};

// Dense tokens of one head: [tokens][channels].
template <class V>
struct DenseHead {
    const V* values;
    size_t tokens, channels;
};

// What `heads` queries that share a head read of it: products, and sums weighted by them. Rows of queries, products and
// weights are `stride` apart.
template <class V>
struct BitmapKernels {
    // out[h][t] = sum over channels of q[h] and key t, for the tokens of blocks [first, last); out begins with `first`.
    void (*scores)(const BitmapHead<V>&, size_t first, size_t last, size_t heads, const float* q, size_t q_stride,
                   float* out, size_t out_stride);
    // Adds to out [heads][tiles of a block] the values of blocks [first, last) times weights, which begin with `first`.
    void (*mix)(const BitmapHead<V>&, size_t first, size_t last, size_t heads, const float* weights, size_t stride,
                float* out);
    void (*dense_scores)(const DenseHead<V>&, size_t heads, const float* q, size_t q_stride, float* out,
                         size_t out_stride);
    void (*dense_mix)(const DenseHead<V>&, size_t heads, const float* weights, size_t stride, float* out,
                      size_t out_stride);
    // Words of a block x [64][channels] and how many values they mark, with padding. The `keep` largest channels of
    // every token stay, all nonzeros if keep > channels; true if magnitudes had to be ranked and one is NaN.
    // scratch: two words for each channel, in whole words of channels.
    bool (*mark)(const V* x, size_t channels, size_t keep, size_t pad, bool by_channel, uint64_t* words, int32_t* count,
                 uint64_t* scratch);
    // Writes the values that the words of a block mark, and zeros between tiles.
    void (*fill)(const V* x, size_t channels, size_t pad, bool by_channel, const uint64_t* words, V* values);
    // Writes a block x [64][channels] from what is packed.
    void (*unpack)(const BitmapHead<V>&, size_t block, size_t channels, bool by_channel, V* x);
};

struct SoftmaxKernels {
    // scores becomes exp(scores + mask - the largest); the largest (-inf if there is none) and the sum are returned.
    void (*exponentials)(float* scores, const float* mask, size_t count, float* largest, float* sum);
};

constexpr size_t kNMRows = 16;  // outputs whose values lie side by side

// A linear layer with N:M sparse weights (see kernels/nm_linear.py): values [panels][pairs] of 16 rows, two values each
// (float: [2][16], bfloat16: [16][2]), places [panels][pairs][4 * bits] bytes and 16 bytes more, bias [out] or null.
struct NMLinear {
    const void* values;
    const uint8_t* places;
    const float* bias;
    size_t out, groups, pairs, n, m;
    int bits;
    size_t panels() const { return (out + kNMRows - 1) / kNMRows; }
    size_t reach() const { return (2 * pairs + n - 1) / n; }  // groups, and the one where the last pair may end
    // Binary logarithm of the groups that share a table of this many entries.
    size_t shared(size_t width) const {
        size_t log = 0;
        while (width >> (log + 1 + static_cast<size_t>(bits))) ++log;
        return log;
    }
};

// X is the type of the tables' entries.
template <class X>
struct NMKernel {
    // Writes y [rows][out] of panels [first, last) from the tables of every `batch` rows of x; null if there is none.
    void (*product)(const NMLinear&, size_t first, size_t last, const X* tables, size_t rows, float* y);
    // Writes the tables of one batch from x [rows][in], rows <= batch.
    void (*fill)(const NMLinear&, const X* x, size_t rows, size_t batch, X* tables);
    size_t width, batch;
    // Entries of the tables of one batch.
    size_t size(const NMLinear& w) const {
        const size_t slots = width >> w.bits;
        return (w.reach() + slots - 1) / slots * batch * width;
    }
};
using NMLinearKernel = NMKernel<float>;
using NMDotKernel = NMKernel<uint16_t>;  // bfloat16

// Separable penalties of coordinate descent, scaled by one factor; weight and second hold one number per coordinate.
struct Penalty {
    // weight and second are: l1 and ridge (elastic, positive), bounds (box), weight and nothing (l0), weight and gamma
    // (mcp), a (scad), epsilon (log_sum) or the power 1/2 or 2/3 (power).
    enum Kind { elastic, positive, box, l0, mcp, scad, log_sum, power, kinds };
    int kind;
    double factor;
    const double *weight, *second;
};

constexpr int kDescentMemory = 5;  // epochs between two extrapolations (Bertrand and Massias, 2021)

struct Descent {
    const double* gram;  // row j begins at gram + j * stride
    size_t size, stride;
    const double* linear;
    Penalty penalty;
    bool accelerate;
    size_t unknowns() const { return size; }
    size_t followers() const { return size; }
};

// The same for unknowns x [size][tasks], gram acting on each task, with penalties of the norms of groups: group g is
// the rows [starts[g], starts[g + 1]) of x. curvature[g] bounds the eigenvalues of the group's block of gram.
struct GroupDescent {
    const double* gram;
    size_t size, stride, tasks;
    const double* linear;  // [size][tasks]
    size_t groups;
    const int64_t* starts;
    const double* curvature;
    Penalty penalty;
    bool accelerate;
    double* moves;  // room for the largest group
    size_t unknowns() const { return size * tasks; }
    size_t followers() const { return size * tasks; }
};

// The same on the columns themselves, |y - X x|^2 / 2 + penalties: what follows x is r = y - X x. The columns of a group
// are orthogonal to one another, squares[j] is the squared length of column j.
struct BlockDescent {
    const double* columns;  // [size][rows]
    size_t size, rows, tasks;
    const double* squares;
    size_t groups;
    const int64_t* starts;
    Penalty penalty;
    bool accelerate;
    double* moves;  // room for the largest group
    size_t unknowns() const { return size * tasks; }
    size_t followers() const { return rows * tasks; }
};

// Numbers that a descent keeps for its extrapolation.
template <class Problem>
size_t descent_scratch(const Problem& d) {
    return d.accelerate ? (d.unknowns() + d.followers()) * (kDescentMemory + 2) : 0;
}

// Room of Newton's method for a support of at most `room` coordinates, a multiple of 4.
struct NewtonScratch {
    size_t room, stride;
    double *hessian, *factor;  // [room][stride]
    double* vectors;           // [3][room]
    size_t* support;
    std::pair<double, size_t>* kinks;
};

// Of a point: the largest violation, the value of the penalty, the duality gap (infinite where none is known).
struct Optimality {
    double violation, value, gap;
};

struct DescentKernels {
    // Epochs from x and q = linear - gram x, both overwritten, until an epoch changes the gradient by at most tol;
    // returns how many, and the last such change.
    size_t (*run)(const Descent&, double* x, double* q, double tol, size_t max_epochs, double* scratch, double* change);
    size_t (*run_groups)(const GroupDescent&, double* x, double* q, double tol, size_t max_epochs, double* scratch,
                         double* change);
    size_t (*run_blocks)(const BlockDescent&, double* x, double* r, double tol, size_t max_epochs, double* scratch,
                         double* change);
    // Steps on the support of x, for an elastic or positive penalty: towards the minimiser for the present signs, to
    // the exact minimum along that line or to the whole step with zeros where signs would change, whichever is lower.
    // Ends when a whole step changes no sign; q becomes linear - gram x.
    void (*newton)(const Descent&, size_t max_steps, double* x, double* q, const NewtonScratch&);
    // violation[j] = curvature[j] |x_j - what one exact step in coordinate j leads to|, q being X^T r, residual |r|^2
    // and projection r.y; where there is a gap, active[j] is false for columns that it proves to be zero in every
    // solution.
    Optimality (*optimality)(const Penalty&, size_t size, const double* x, const double* q, const double* curvature,
                             double residual, double projection, double* violation, bool* active);
    // out[j] = rows[j].r for j in [first, last), n entries each; 0 where keep is false (null: all are kept).
    void (*products32)(const float* rows, size_t n, size_t first, size_t last, const double* r, const bool* keep,
                       double* out);
    void (*products64)(const double* rows, size_t n, size_t first, size_t last, const double* r, const bool* keep,
                       double* out);
};

// Sparse codes on a Gram matrix by proximal gradient, all with the same penalties.
template <class T>
struct Ista {
    const T* gram;
    size_t units;
    Penalty penalty;
    const double* edge;  // moduli up to it have a prox of zero (positive, box: below zero, for none)
    const T* dead;       // the same, rounded down
    double step, tol, floor;
    size_t max_steps;
};

template <class T>
struct IstaKernels {
    // Steps from x until one moves it by at most tol * (floor + its length); returns how many. v: scratch of an entry
    // for each unit; lists: of two.
    size_t (*run)(const Ista<T>&, const T* linear, T* x, T* v, int32_t* lists);
};

// Matching pursuit on the Gram matrix of the atoms.
template <class T>
struct Pursuit {
    const T* gram;
    size_t units, steps;
    double tol;
    bool nonneg, stop_on_repeat;
};

template <class T>
struct PursuitKernels {
    // From the correlations c of a signal of this energy, which are overwritten, the units taken and what each was
    // given; returns how many.
    size_t (*run)(const Pursuit<T>&, T* c, double energy, int64_t* atoms, T* values);
};

constexpr size_t kLook = 16;  // scores that are looked at together for one that reaches a threshold

// Codes of few nonzeros, see codes.hpp.
template <class T>
struct CodeKernels {
    size_t (*reaching)(const T* scores, size_t count, T least, int32_t* list, bool* bad);
    void (*sum_rows)(const int64_t* starts, const int32_t* indices, const T* values, const T* rows, size_t width,
                     size_t first, size_t last, T* out);
    void (*dot_rows)(const int64_t* starts, const int32_t* indices, const T* left, const T* right, size_t width,
                     size_t first, size_t last, T* out);
};

// Products of a dense matrix [rows][columns] with one vector, see dense.hpp.
template <class T>
struct DenseKernels {
    void (*matrix_vector)(const T* matrix, size_t columns, size_t first, size_t last, const T* x, T* out);
    void (*vector_matrix)(const T* matrix, size_t columns, size_t first, size_t last, size_t begin, size_t end,
                          const T* y, T* out);
};

// What of x a projection onto the simplex looks at.
enum class SimplexEntries { plain, modulus, complex_modulus };

struct SimplexTotals {
    double top, sum, moduli;  // the largest entry, their sum, the sum of their moduli
};

// How far entries are lowered: by the exact sum of the two numbers. What is near `at` is measured from it without error.
struct SimplexShift {
    double at, more;
};

// Loops of a projection onto the simplex over `count` entries, see simplex.hpp.
template <class T>
struct SimplexKernels {
    SimplexTotals (*totals)(const T* x, size_t count);
    // Copies the entries above the shift to `kept`, which has room for all, and returns how many; excess: `unit` times
    // the sum of what they exceed it by.
    size_t (*above)(const T* x, size_t count, SimplexShift, double unit, T* kept, double* excess);
    // The same of entries that were kept, in place.
    size_t (*still_above)(const T* from, size_t count, SimplexShift, double unit, T* kept, double* excess);
    // Writes x with its entries lowered, those below the shift zero.
    void (*lower)(const T* x, size_t count, SimplexShift, T* out);
};

// Momentum of accelerated proximal gradient, see momentum.hpp.
template <class T>
struct MomentumKernels {
    void (*moves)(const T* old, const T* now, const T* v, size_t count, double* sums);
    void (*beyond)(const T* old, const T* now, T weight, size_t count, T* out);
};

struct InstructionSet {
    BornKernels<float> born32;
    BornKernels<double> born64;
    MaskKernels<float> mask32;
    MaskKernels<double> mask64;
    VariationKernels<float> (*variation32)(int axes, int parts, bool isotropic);
    VariationKernels<double> (*variation64)(int axes, int parts, bool isotropic);
    SpmmKernels spmm;
    BitmapKernels<float> bitmap32;
    BitmapKernels<Float16> bitmap16;
    BitmapKernels<BFloat16> bitmap_brain;
    SoftmaxKernels softmax;
    NMLinearKernel (*nm_linear32)(const NMLinear&, size_t rows);
    NMLinearKernel (*nm_linear16)(const NMLinear&, size_t rows);
    NMDotKernel (*nm_dot)(const NMLinear&, size_t rows);
    DescentKernels descent;
    IstaKernels<float> ista32;
    IstaKernels<double> ista64;
    PursuitKernels<float> pursuit32;
    PursuitKernels<double> pursuit64;
    CodeKernels<float> code32;
    CodeKernels<double> code64;
    DenseKernels<float> dense32;
    DenseKernels<double> dense64;
    MomentumKernels<float> momentum32;
    MomentumKernels<double> momentum64;
    // The largest modulus, infinity if there is one, NaN if there is one.
    float (*modulus32)(const float* x, size_t count);
    double (*modulus64)(const double* x, size_t count);
    SimplexKernels<float> (*simplex32)(SimplexEntries);
    SimplexKernels<double> (*simplex64)(SimplexEntries);
};

extern const InstructionSet portable, avx2, avx512, avx512_vbmi2;

}  // namespace sparsepriors
