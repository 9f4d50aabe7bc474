// Projections onto the simplex and the l1 ball.
#include <algorithm>
#include <cmath>
#include <complex>
#include <limits>
#include <vector>

#include "binding.hpp"
#include "threads.hpp"

namespace sparsepriors {
namespace {

constexpr size_t kPiece = size_t(1) << 14;   // entries of a row that one thread takes at a time
constexpr size_t kSerial = size_t(1) << 15;  // entries that are looked at sooner than another thread has begun

// The shift moved by delta, the larger number first again.
SimplexShift moved(SimplexShift shift, double delta) {
    const double by = shift.more + delta, sum = shift.at + by, part = sum - shift.at;
    return {sum, (shift.at - (sum - part)) + (by - part)};
}

// Projects rows of n entries, each of `parts` numbers, one after another.
template <class T>
class Projection {
   public:
    Projection(const SimplexKernels<T>& kernels, size_t n, size_t parts, size_t threads)
        : kernels_(kernels), n_(n), parts_(parts), threads_(threads), found_((n + kPiece - 1) / kPiece),
          lists_(found_.size()) {}

    // Writes the point of the simplex of this radius, or of the ball, that is nearest to the row x.
    void operator()(const T* x, double radius, bool ball, T* out) {
        x_ = x, out_ = out;
        const SimplexTotals all = totals();
        if (ball && all.sum <= radius) {
            over(n_, [&](size_t p, size_t count) {
                const size_t at = p * kPiece * parts_;
                std::copy_n(x_ + at, count * parts_, out_ + at);
            });
            return;
        }
        const SimplexShift shift = find(all, radius);
        over(n_, [&](size_t p, size_t count) {
            const size_t at = p * kPiece * parts_;
            kernels_.lower(x_ + at, count, shift, out_ + at);
        });
    }

   private:
    struct List {
        size_t count;  // of the entries of a piece that may be above the shift; they lie in the piece of the output
        double excess;
    };

    const SimplexKernels<T>& kernels_;
    const size_t n_, parts_, threads_;
    std::vector<SimplexTotals> found_;
    std::vector<List> lists_;
    const T* x_ = nullptr;
    T* out_ = nullptr;

    // Calls work(piece, its number of entries), on one thread where `entries` in all are few.
    template <class Work>
    void over(size_t entries, const Work& work) {
        share(lists_.size(), entries > kSerial ? threads_ : 1,
              [&](size_t p, size_t) { work(p, std::min(kPiece, n_ - p * kPiece)); });
    }

    SimplexTotals totals() {
        over(n_, [&](size_t p, size_t count) { found_[p] = kernels_.totals(x_ + p * kPiece * parts_, count); });
        SimplexTotals all{-std::numeric_limits<double>::infinity(), 0, 0};
        for (const SimplexTotals& f : found_) {
            all.top = std::max(all.top, f.top);
            all.sum += f.sum, all.moduli += f.moduli;
        }
        return all;
    }

    // A number from which Newton's method goes up: the shift if only the largest entry stayed, or if all did, less what
    // rounding may add to that.
    SimplexShift below(const SimplexTotals& all, double radius) const {
        constexpr double slack = 1e-10, eps = std::numeric_limits<double>::epsilon();
        const double n = static_cast<double>(n_), mean = (all.sum - radius) / n;
        const double start = mean - slack * (all.moduli + radius) / n - 4 * eps * std::abs(all.top);
        if (std::isfinite(start) && start > all.top - radius && start < all.top) return {start, 0};
        return moved({all.top, 0}, -radius);
    }

    // Michelot's method, which is Newton's on the sum of what exceeds the shift, convex and piecewise linear: entries
    // once below the shift stay there, and when none falls below it any more the next shift is the exact one. A step
    // halves either the number of entries or that by which the next one can move.
    SimplexShift find(const SimplexTotals& all, double radius) {
        const double unit = radius > 0x1p900 || all.top > 0x1p900 ? 0x1p-100 : 1;  // sums do not overflow
        SimplexShift shift = below(all, radius);
        size_t last = n_;
        for (bool first = true;; first = false) {
            const size_t spread = kPiece * parts_;
            over(last, [&](size_t p, size_t count) {
                List& list = lists_[p];
                T* kept = out_ + p * spread;
                list.count = first ? kernels_.above(x_ + p * spread, count, shift, unit, kept, &list.excess)
                                   : kernels_.still_above(kept, list.count, shift, unit, kept, &list.excess);
            });
            size_t count = 0;
            double excess = 0;
            for (const List& list : lists_) count += list.count, excess += list.excess;
            if (count == 0) return shift;
            shift = moved(shift, (excess - unit * radius) / static_cast<double>(count) / unit);
            if (!first && count == last) return shift;
            last = count;
        }
    }
};

template <class T>
void rows(const T* x, size_t size, size_t count, size_t parts, const double* radius, bool ball, T* out, size_t threads,
          const SimplexKernels<T>& kernels) {
    if (!size || !count) return;
    const size_t n = size / count, work = std::max<size_t>(1, kPiece / n), pieces = (count + work - 1) / work;
    const size_t inside = pieces >= threads ? 1 : threads;  // threads within one row: only where there are too few
    const Unlocked unlocked;
    share(pieces, inside == 1 && size > kSerial ? threads : 1, [&](size_t p, size_t) {
        Projection<T> project(kernels, n, parts, inside);
        for (size_t i = p * work, end = std::min(count, i + work); i < end; ++i)
            project(x + i * n * parts, radius[i], ball, out + i * n * parts);
    });
}

template <class T>
void bind(nb::module_& m, SimplexKernels<T> (*InstructionSet::*kernels)(SimplexEntries)) {
    const auto checked = [](size_t size, size_t out, size_t radii) {
        require(out == size && (radii ? size % radii == 0 : !size), "x and out must fit each other and the radii");
    };
    m.def("project_simplex", [=](Array<const T> x, Array<const double> radius, bool ball, Array<T> out, size_t threads,
                                 const std::string& isa) {
        checked(x.size(), out.size(), radius.size());
        rows<T>(x.data(), x.size(), radius.size(), 1, radius.data(), ball, out.data(), threads,
                (chosen(isa).*kernels)(ball ? SimplexEntries::modulus : SimplexEntries::plain));
    });
    m.def("project_simplex", [=](Array<const T> x, double radius, bool ball, Array<T> out, size_t threads,
                                 const std::string& isa) {
        checked(x.size(), out.size(), 1);
        rows<T>(x.data(), x.size(), 1, 1, &radius, ball, out.data(), threads,
                (chosen(isa).*kernels)(ball ? SimplexEntries::modulus : SimplexEntries::plain));
    });
    using C = std::complex<T>;
    const auto complex_rows = [=](const Array<const C>& x, const double* radius, size_t radii, const Array<C>& out,
                                  size_t threads, const std::string& isa) {
        checked(x.size(), out.size(), radii);
        rows<T>(reinterpret_cast<const T*>(x.data()), x.size(), radii, 2, radius, true, reinterpret_cast<T*>(out.data()),
                threads, (chosen(isa).*kernels)(SimplexEntries::complex_modulus));
    };
    m.def("project_simplex", [=](Array<const C> x, Array<const double> radius, bool, Array<C> out, size_t threads,
                                 const std::string& isa) {
        complex_rows(x, radius.data(), radius.size(), out, threads, isa);
    });
    m.def("project_simplex", [=](Array<const C> x, double radius, bool, Array<C> out, size_t threads,
                                 const std::string& isa) { complex_rows(x, &radius, 1, out, threads, isa); });
}

}  // namespace

void bind_simplex(nb::module_& m) {
    bind<float>(m, &InstructionSet::simplex32);
    bind<double>(m, &InstructionSet::simplex64);
}

}  // namespace sparsepriors
