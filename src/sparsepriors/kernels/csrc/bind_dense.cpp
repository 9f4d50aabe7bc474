// Products of a matrix with one vector.
#include <algorithm>

#include "binding.hpp"
#include "scratch.hpp"
#include "threads.hpp"

namespace sparsepriors {
namespace {

// Pieces depend on the shape alone, so that results do not depend on the number of threads.
constexpr size_t kPieceEntries = size_t(1) << 15;  // of the matrix, about so many make a piece of work
constexpr size_t kTile = 2048;                     // columns whose sums stay in the nearest cache
constexpr size_t kMostPieces = 16;                 // of the rows, each with sums of its own

size_t pieces_of(size_t total, size_t each) { return (total + each - 1) / each; }

template <class T>
void right(const Array<const T>& matrix, const Array<const T>& x, const Array<T>& out, size_t threads,
           const DenseKernels<T>& kernels) {
    const size_t rows = out.size(), columns = x.size();
    require(matrix.size() == rows * columns, "matrix must be (rows, columns)");
    const T *from = matrix.data(), *vector = x.data();
    T* to = out.data();
    const size_t each = std::max<size_t>(kPieceEntries / std::max<size_t>(columns, 1), 4);
    const Unlocked unlocked;
    share(pieces_of(rows, each), threads, [&](size_t p, size_t) {
        kernels.matrix_vector(from, columns, p * each, std::min(rows, (p + 1) * each), vector, to);
    });
}

template <class T>
void left(const Array<const T>& y, const Array<const T>& matrix, const Array<T>& out, size_t threads,
          const DenseKernels<T>& kernels) {
    const size_t rows = y.size(), columns = out.size();
    require(matrix.size() == rows * columns, "matrix must be (rows, columns)");
    const T *from = matrix.data(), *vector = y.data();
    T* to = out.data();
    const size_t tiles = pieces_of(columns, kTile);
    const size_t parts = std::clamp<size_t>(rows * std::min(columns, kTile) / kPieceEntries, 1,
                                            tiles < kMostPieces ? kMostPieces / std::max<size_t>(tiles, 1) : 1);
    const Unlocked unlocked;
    const Scratch<T> sums(parts > 1 ? parts * columns : 1);
    share(tiles * parts, threads, [&](size_t p, size_t) {
        const size_t tile = p % tiles, part = p / tiles, begin = tile * kTile, end = std::min(columns, begin + kTile);
        T* room = parts > 1 ? sums.data() + part * columns : to;
        kernels.vector_matrix(from, columns, rows * part / parts, rows * (part + 1) / parts, begin, end, vector,
                              room + begin);
    });
    if (parts == 1) return;
    std::copy_n(sums.data(), columns, to);
    for (size_t part = 1; part < parts; ++part)
        for (size_t i = 0; i < columns; ++i) to[i] += sums.data()[part * columns + i];
}

template <class T>
void bind(nb::module_& m, DenseKernels<T> InstructionSet::*kernels) {
    m.def("matrix_vector", [kernels](Array<const T> matrix, Array<const T> x, Array<T> out, size_t threads,
                                     const std::string& isa) {
        right<T>(matrix, x, out, threads, chosen(isa).*kernels);
    });
    m.def("vector_matrix", [kernels](Array<const T> y, Array<const T> matrix, Array<T> out, size_t threads,
                                     const std::string& isa) {
        left<T>(y, matrix, out, threads, chosen(isa).*kernels);
    });
}

}  // namespace

void bind_dense(nb::module_& m) {
    bind<float>(m, &InstructionSet::dense32);
    bind<double>(m, &InstructionSet::dense64);
}

}  // namespace sparsepriors
