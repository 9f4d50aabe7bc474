// Nesterov's momentum for a batch of problems.
#include <algorithm>
#include <cmath>
#include <vector>

#include "binding.hpp"
#include "threads.hpp"

namespace sparsepriors {
namespace {

constexpr size_t kPiece = size_t(1) << 15;  // entries of a piece of work

// Calls work(problem, first, last) for pieces of `each` entries of every problem.
template <class Work>
void by_pieces(size_t problems, size_t each, size_t threads, const Work& work) {
    const size_t pieces = (each + kPiece - 1) / kPiece;
    share(problems * pieces, threads, [&](size_t p, size_t) {
        const size_t first = p % pieces * kPiece;
        work(p / pieces, p % pieces, first, std::min(each, first + kPiece));
    });
}

template <class T>
void step(const Array<const T>& old, const Array<const T>& now, const Array<const T>& v, const Array<const T>& image,
          const Array<const T>& new_image, const Array<const T>& momentum, const Array<const T>& floor, bool restart,
          const Array<T>& next, const Array<T>& next_image, const Array<T>& next_momentum, const Array<T>& residual,
          size_t threads, const MomentumKernels<T>& kernels) {
    const size_t problems = momentum.size(), each = problems ? old.size() / problems : 0;
    const size_t measured = problems ? image.size() / problems : 0;
    require(each * problems == old.size() && now.size() == old.size() && v.size() == old.size() &&
                next.size() == old.size(), "points must be of one shape");
    require(measured * problems == image.size() && new_image.size() == image.size() &&
                next_image.size() == image.size(), "images must be of one shape");
    require(floor.size() == problems && next_momentum.size() == problems && residual.size() == problems,
            "every problem needs a momentum and a floor");
    const T *a = old.data(), *b = now.data(), *c = v.data(), *d = image.data(), *e = new_image.data();
    const T *before = momentum.data(), *least = floor.data();
    T *out = next.data(), *out_image = next_image.data(), *after = next_momentum.data(), *moved = residual.data();
    const Unlocked unlocked;
    const size_t pieces = (each + kPiece - 1) / kPiece;
    std::vector<double> sums(3 * std::max<size_t>(pieces, 1) * problems), weights(problems);
    by_pieces(problems, each, threads, [&](size_t p, size_t piece, size_t first, size_t last) {
        const size_t at = p * each + first;
        kernels.moves(a + at, b + at, c + at, last - first, &sums[3 * (p * pieces + piece)]);
    });
    for (size_t p = 0; p < problems; ++p) {
        double total[3] = {0, 0, 0};
        for (size_t i = 0; i < pieces; ++i)
            for (size_t k = 0; k < 3; ++k) total[k] += sums[3 * (p * pieces + i) + k];
        const double now = restart && total[2] > 0 ? 1 : before[p], grown = 0.5 * (1 + std::sqrt(1 + 4 * now * now));
        const double length = std::sqrt(total[0]), own = std::sqrt(total[1]), given = least[p];
        const double size = std::isnan(given) || given > own ? given : own;
        weights[p] = (now - 1) / grown;
        after[p] = static_cast<T>(grown);
        moved[p] = static_cast<T>(length == 0 && !std::isnan(size) ? 0 : length / size);
    }
    by_pieces(problems, each, threads, [&](size_t p, size_t, size_t first, size_t last) {
        const size_t at = p * each + first;
        kernels.beyond(a + at, b + at, static_cast<T>(weights[p]), last - first, out + at);
    });
    by_pieces(problems, measured, threads, [&](size_t p, size_t, size_t first, size_t last) {
        const size_t at = p * measured + first;
        kernels.beyond(d + at, e + at, static_cast<T>(weights[p]), last - first, out_image + at);
    });
}

template <class T>
void bind(nb::module_& m, MomentumKernels<T> InstructionSet::*kernels) {
    m.def("momentum_step", [kernels](Array<const T> old, Array<const T> now, Array<const T> v, Array<const T> image,
                                     Array<const T> new_image, Array<const T> momentum, Array<const T> floor,
                                     bool restart, Array<T> next, Array<T> next_image, Array<T> next_momentum,
                                     Array<T> residual, size_t threads, const std::string& isa) {
        step<T>(old, now, v, image, new_image, momentum, floor, restart, next, next_image, next_momentum, residual,
                threads, chosen(isa).*kernels);
    });
}

}  // namespace

void bind_momentum(nb::module_& m) {
    bind<float>(m, &InstructionSet::momentum32);
    bind<double>(m, &InstructionSet::momentum64);
}

}  // namespace sparsepriors
