// Sparse 1 x 1 convolutions: images cut into strips of pixels, strips and blocks of output channels shared out.
#include <algorithm>
#include <vector>

#include "binding.hpp"
#include "scratch.hpp"
#include "threads.hpp"

namespace sparsepriors {
namespace {

constexpr size_t kStripBytes = 48 << 10;      // a strip of all channels, about what the nearest cache holds
constexpr size_t kThreadWork = size_t(1) << 19;  // multiply-adds for each thread that repay the waking of one
constexpr size_t kLine = 64 / sizeof(float);
// Threads that share the pixels of an image write to the same cache lines where their parts of an output channel meet;
// threads that share its output channels all read every pixel. One such output channel costs as much as so many pixels of
// input channels.
constexpr size_t kPixelsPerOutput = 1024;
constexpr size_t kBlockCost = 4;  // of a block of output channels beside its kept input channels, in these

size_t divided_up(size_t a, size_t b) { return (a + b - 1) / b; }
size_t bound(size_t count, size_t piece, size_t pieces) { return count * piece / pieces; }

// Packed weights as the kernels see them; the arrays are kept alive.
struct SpmmWeights {
    Kept<const float> values, bias;
    Kept<const int32_t> columns, starts, rows;
    size_t channels, outputs;
    int nr;
    Spmm plain;

    SpmmWeights(Kept<const float> v, Kept<const int32_t> c, Kept<const int32_t> s, Kept<const int32_t> r,
                Kept<const float> b, size_t channels, int nr)
        : values(std::move(v)), bias(std::move(b)), columns(std::move(c)), starts(std::move(s)), rows(std::move(r)),
          channels(channels), outputs(bias.size()), nr(nr) {
        const size_t full = outputs / nr, blocks = full + outputs % nr;
        require(starts.size() == blocks + 1 && rows.size() == blocks, "there must be one start and row for each block");
        plain = {values.data(), columns.data(), starts.data(), rows.data(), bias.data(), full, blocks, 0, 0};
    }

    // Where the blocks of a group begin, when all groups cost the same.
    size_t bound(size_t group, size_t groups) const {
        const auto before = [&](size_t b) { return static_cast<size_t>(plain.starts[b]) + b * kBlockCost; };
        const size_t wanted = before(plain.blocks) * group / groups;
        size_t low = 0, high = plain.blocks;
        while (low < high) {
            const size_t middle = (low + high) / 2;
            if (before(middle) < wanted) low = middle + 1;
            else high = middle;
        }
        return low;
    }
};

// How `pixels` of each of `images` are cut into pieces of work. Which pieces there are changes nothing in the results:
// every output sums its products in the order of the weights.
struct Cut {
    size_t images, pixels, strips, groups, most;  // strips per image, groups of blocks, vectors of the widest strip
    size_t width;
    bool by_outputs;  // threads share an image by its output channels, not by its pixels

    Cut(const SpmmKernels& kernels, const SpmmWeights& w, size_t images, size_t pixels, size_t threads)
        : images(images), pixels(pixels), width(kernels.width),
          by_outputs(w.channels * pixels < kPixelsPerOutput * w.outputs) {
        const size_t fits = kStripBytes / (std::max<size_t>(w.channels, 1) * width * sizeof(float));
        const size_t limit = std::min<size_t>(kernels.limit(w.nr), 8);
        most = std::clamp(fits, std::min<size_t>(w.nr == 1 ? 4 : 5, limit), limit);
        strips = divided_up(vectors(), most);
        most = divided_up(vectors(), strips);
        // Whole images or strips go round evenly, or are many; else every one is cut for all threads.
        const size_t whole = images * (by_outputs ? 1 : strips);
        const bool even = whole % threads == 0 || whole >= 16 * threads;
        groups = even ? 1 : std::clamp<size_t>(threads, 1, std::max<size_t>(1, w.plain.blocks / 8));
    }

    size_t vectors() const { return divided_up(pixels, width); }

    // Calls work(image, strip, its first pixel, its vectors, first block, last block, thread) for every piece.
    template <class Work>
    void run(const SpmmWeights& w, size_t threads, const Work& work) const {
        std::vector<size_t> bounds(groups + 1);
        for (size_t g = 0; g <= groups; ++g) bounds[g] = w.bound(g, groups);
        share(images * strips * groups, threads, [&](size_t piece, size_t thread) {
            const size_t image = piece / (strips * groups), of_image = piece % (strips * groups);
            const size_t strip = by_outputs ? of_image % strips : of_image / groups;
            const size_t group = by_outputs ? of_image / strips : of_image % groups;
            const size_t first = bound(vectors(), strip, strips);
            work(image, strip, first * width, bound(vectors(), strip + 1, strips) - first, bounds[group],
                 bounds[group + 1], thread);
        });
    }
};

// Images of at least as many pixels as a vector has.
void wide(const SpmmKernels& kernels, const SpmmWeights& w, const Spmm& s, const float* x, size_t images, size_t pixels,
          float* y, size_t threads) {
    const Cut cut(kernels, w, images, pixels, threads);
    const size_t left = pixels % cut.width;
    const bool shortened = left > 0 && left <= kSpmmShort && kSpmmShort < cut.width;
    // A copy without gaps costs once; loads that straddle cache lines cost for every kept block.
    const size_t uses = w.columns.size() / std::max<size_t>(w.channels, 1);
    const bool copied = uses >= (pixels % kLine ? 8 : 24) * static_cast<size_t>(w.nr);
    const size_t room = copied ? divided_up(w.channels * cut.most * cut.width + kSpmmShort, kLine) * kLine : 0;
    const Scratch<float> panels(threads * room);
    std::vector<size_t> held(threads, images * cut.strips);  // the strip that a thread's panel holds
    cut.run(w, threads, [&](size_t image, size_t strip, size_t begin, size_t vectors, size_t first, size_t end,
                            size_t thread) {
        const bool tail = shortened && strip + 1 == cut.strips;
        const size_t count = std::min(pixels - begin, vectors * cut.width), whole = vectors - tail;
        const size_t last = count - (tail ? kSpmmShort : cut.width);
        const float* from = x + image * w.channels * pixels + begin;
        float* to = y + image * w.outputs * pixels + begin;
        SpmmPixels at{from, pixels, last, to, pixels, last, from + last, pixels, kSpmmShort};
        if (copied) {
            float* panel = panels.data() + thread * room;
            at.x = panel, at.stride = whole * cut.width, at.last = (whole - 1) * cut.width;
            if (tail) {
                // Tails lie close together, so that they stay in the nearest cache; what is read behind one, the next
                // tail or what was there before, does not reach the output.
                at.tail = panel + w.channels * at.stride;
                at.tail_stride = at.tail_pixels = left;
                at.out_last = count - left;
            }
            if (held[thread] != image * cut.strips + strip) {
                kernels.panel(from, w.channels, pixels, whole, tail ? at.last : last, tail ? left : 0, panel);
                held[thread] = image * cut.strips + strip;
            }
        }
        kernels.strip(w.nr, vectors, tail)(s, first, end, at);
    });
}

// Rows [0, rows) of `count` pixels from pixel `begin` of all images on, between x [images][rows][pixels] and a strip
// [rows][pitch]; to_strip says in which direction.
template <bool to_strip, class X, class Strip>
void regroup(X* x, size_t rows, size_t pixels, size_t begin, size_t count, Strip* strip, size_t pitch) {
    constexpr size_t block = 16;
    for (size_t first = 0; first < rows; first += block) {
        const size_t end = std::min(rows, first + block);
        for (size_t j = 0; j < count; ++j) {
            X* at = x + (begin + j) / pixels * rows * pixels + (begin + j) % pixels;
            for (size_t r = first; r < end; ++r) {
                if constexpr (to_strip) strip[r * pitch + j] = at[r * pixels];
                else at[r * pixels] = strip[r * pitch + j];
            }
        }
    }
}

// Images of fewer pixels: those of many images make one strip. A linear layer has images of one pixel.
void narrow(const SpmmKernels& kernels, const SpmmWeights& w, const Spmm& s, const float* x, size_t images,
            size_t pixels, float* y, size_t threads) {
    const size_t all = images * pixels;
    const Cut cut(kernels, w, 1, all, 1);
    const size_t pitch = cut.most * cut.width, in_room = w.channels * pitch, out_room = w.outputs * pitch;
    const Scratch<float> room(threads * (in_room + out_room));
    cut.run(w, threads, [&](size_t, size_t, size_t begin, size_t vectors, size_t first, size_t end, size_t thread) {
        float* panel = room.data() + thread * (in_room + out_room);
        float* result = panel + in_room;
        const size_t count = std::min(all - begin, vectors * cut.width), last = (vectors - 1) * cut.width;
        regroup<true>(x, w.channels, pixels, begin, count, panel, pitch);
        for (size_t c = 0; c < w.channels; ++c)
            std::fill(panel + c * pitch + count, panel + c * pitch + vectors * cut.width, 0.0f);
        const SpmmPixels at{panel, pitch, last, result, pitch, last, nullptr, 0, 0};
        kernels.strip(w.nr, vectors, false)(s, first, end, at);
        regroup<false>(y, w.outputs, pixels, begin, count, result, pitch);
    });
}

// x (images, channels, *pixels) and y (images, outputs, *pixels).
void spmm_chw(const SpmmWeights& w, const Array<const float>& x, float lo, float hi, const Array<float>& y,
              size_t threads, const std::string& isa) {
    const SpmmKernels& kernels = chosen(isa).spmm;
    Spmm s = w.plain;
    s.lo = lo, s.hi = hi;
    const float* from = x.data();
    float* to = y.data();
    if (!y.size()) return;
    const size_t images = y.shape(0), pixels = y.size() / (images * w.outputs);
    require(y.size() == images * w.outputs * pixels && x.size() == images * w.channels * pixels,
            "x must be (images, channels, *pixels) and y (images, outputs, *pixels)");
    threads = std::clamp<size_t>(w.values.size() * images * pixels / kThreadWork, 1, std::max<size_t>(threads, 1));
    const Unlocked unlocked;
    (pixels < kernels.width ? narrow : wide)(kernels, w, s, from, images, pixels, to, threads);
}

}  // namespace

void bind_spmm(nb::module_& m) {
    nb::class_<SpmmWeights>(m, "SpmmWeights", "Packed weights of a sparse 1 x 1 convolution, for `spmm_chw`.")
        .def(nb::init<Kept<const float>, Kept<const int32_t>, Kept<const int32_t>, Kept<const int32_t>,
                      Kept<const float>, size_t, int>());
    m.def("spmm_chw", &spmm_chw);
}

}  // namespace sparsepriors
