// Attention over keys and values packed as bitmaps. Work is cut into pieces that do not depend on the number of threads,
// and what several pieces give is summed in their order.
#include <algorithm>
#include <atomic>
#include <cmath>
#include <limits>
#include <optional>

#include <nanobind/stl/optional.h>

#include "binding.hpp"
#include "scratch.hpp"
#include "threads.hpp"

namespace nanobind::detail {

template <>
struct dtype_traits<sparsepriors::Float16> {
    static constexpr dlpack::dtype value{static_cast<uint8_t>(dlpack::dtype_code::Float), 16, 1};
    static constexpr auto name = const_name("float16");
};

template <>
struct dtype_traits<sparsepriors::BFloat16> {
    static constexpr dlpack::dtype value{static_cast<uint8_t>(dlpack::dtype_code::Bfloat), 16, 1};
    static constexpr auto name = const_name("bfloat16");
};

}  // namespace nanobind::detail

namespace sparsepriors {
namespace {

constexpr size_t kBlock = 64;                        // tokens
constexpr size_t kPieceBlocks = 8;                   // of scores, attention and packing
constexpr size_t kMixBlocks = 32;                    // of a mix: each piece has a sum of its own
constexpr size_t kThreadTiles = size_t(1) << 13;     // tiles that repay the start of one more thread
constexpr size_t kLine = kAlignment / sizeof(float);
constexpr float kNothing = -std::numeric_limits<float>::infinity();

// Rows that lie apart, each contiguous: a cache has room to grow after the tokens of every head.
template <class T>
using Rows = nb::ndarray<T, nb::device::cpu>;

inline size_t pieces_of(size_t total, size_t each) { return (total + each - 1) / each; }

template <class T>
void require_rows(const Rows<T>& a, size_t first_contiguous, const char* what) {
    int64_t step = 1;
    for (size_t i = a.ndim(); i-- > first_contiguous;) {
        require(a.shape(i) <= 1 || a.size() == 0 || a.stride(i) == step, what);
        step *= static_cast<int64_t>(a.shape(i));
    }
}

// All heads of a packed tensor, whose arrays are kept alive. Python makes it once for many calls: taking an array over
// costs several microseconds.
template <class V>
class Packed {
    Rows<const int64_t> bitmap_;
    Rows<const int32_t> offsets_;
    Rows<const V> values_;
    size_t words_apart_, offsets_apart_, values_apart_;

   public:
    size_t heads, blocks, tiles, pad;

    Packed(const Rows<const int64_t>& bitmap, const Rows<const int32_t>& offsets, const Rows<const V>& values,
           size_t pad_)
        : bitmap_(bitmap), offsets_(offsets), values_(values), pad(pad_) {
        require(bitmap.ndim() == 3 && offsets.ndim() == 2 && values.ndim() == 2, "bitmap must have 3 axes");
        require_rows(bitmap, 1, "the words of a head must be contiguous");
        require_rows(offsets, 1, "the offsets of a head must be contiguous");
        require_rows(values, 1, "the values of a head must be contiguous");
        heads = bitmap.shape(0), blocks = bitmap.shape(1), tiles = bitmap.shape(2);
        require(offsets.shape(0) == heads && offsets.shape(1) == blocks + 1 && values.shape(0) == heads,
                "bitmap, offsets and values must fit each other");
        require(pad == 1 || pad == 8, "pad must be 1 or 8");
        words_apart_ = heads > 1 ? bitmap.stride(0) : 0;
        offsets_apart_ = heads > 1 ? offsets.stride(0) : 0;
        values_apart_ = heads > 1 ? values.stride(0) : 0;
    }

    BitmapHead<V> head(size_t i) const {
        return {reinterpret_cast<const uint64_t*>(bitmap_.data()) + i * words_apart_,
                offsets_.data() + i * offsets_apart_, values_.data() + i * values_apart_, tiles, pad};
    }
    size_t tokens() const { return blocks * kBlock; }
    size_t threads(size_t most) const {
        return std::clamp<size_t>(heads * blocks * tiles / kThreadTiles, 1, std::max<size_t>(1, most));
    }
};

// Query heads that share each head of a packed tensor, from arrays (batch, query heads, ...).
template <class V, class T>
size_t group_of(const Packed<V>& p, const Array<T>& x, size_t last) {
    require(x.ndim() == 3 && x.shape(2) == last, "queries and packed tensor must fit each other");
    const size_t rows = x.shape(0) * x.shape(1);
    require(p.heads ? rows % p.heads == 0 : rows == 0, "query heads must be a multiple of the heads");
    return p.heads ? rows / p.heads : 0;
}

template <class V>
void scores(const Array<const float>& q, const Packed<V>& keys, const Array<float>& out, size_t threads,
            const BitmapKernels<V>& kernels) {
    const size_t group = group_of(keys, q, keys.tiles), tokens = keys.tokens();
    require(group_of(keys, out, tokens) == group, "out must be (batch, query heads, tokens)");
    const float* from = q.data();
    float* to = out.data();
    const Unlocked unlocked;
    const size_t each = pieces_of(keys.blocks, kPieceBlocks);
    share(keys.heads * each, keys.threads(threads), [&](size_t piece, size_t) {
        const size_t head = piece / each, first = piece % each * kPieceBlocks;
        kernels.scores(keys.head(head), first, std::min(first + kPieceBlocks, keys.blocks), group,
                       from + head * group * keys.tiles, keys.tiles, to + head * group * tokens + first * kBlock, tokens);
    });
}

template <class V>
void mix(const Array<const float>& weights, const Packed<V>& packed, const Array<float>& out, size_t threads,
         const BitmapKernels<V>& kernels) {
    const size_t tokens = packed.tokens(), group = group_of(packed, weights, tokens), channels = out.shape(2);
    require(group_of(packed, out, channels) == group && channels <= packed.tiles,
            "out must be (batch, query heads, channels)");
    const float* from = weights.data();
    float* to = out.data();
    const Unlocked unlocked;
    const size_t each = pieces_of(packed.blocks, kMixBlocks), room = group * packed.tiles;
    const Scratch<float> sums(packed.heads * each * room);
    share(packed.heads * each, packed.threads(threads), [&](size_t piece, size_t) {
        const size_t head = piece / each, first = piece % each * kMixBlocks;
        float* sum = sums.data() + piece * room;
        std::fill_n(sum, room, 0.0f);
        kernels.mix(packed.head(head), first, std::min(first + kMixBlocks, packed.blocks), group,
                    from + head * group * tokens + first * kBlock, tokens, sum);
    });
    for (size_t head = 0; head < packed.heads; ++head)
        for (size_t g = 0; g < group; ++g) {
            float* row = to + (head * group + g) * channels;
            std::fill_n(row, channels, 0.0f);
            for (size_t p = 0; p < each; ++p) {
                const float* sum = sums.data() + (head * each + p) * room + g * packed.tiles;
                for (size_t c = 0; c < channels; ++c) row[c] += sum[c];
            }
        }
}

// What a piece of the tokens gives to the attention of one query: the largest score, the sum of exponentials under it,
// and the values mixed by these.
struct Part {
    float largest, sum;
    const float* mixed;
};

// The attention over all tokens from that over pieces of them.
template <class Parts>
void combine(size_t pieces, size_t channels, const Parts& part, float* out) {
    float top = kNothing, total = 0.0f;
    for (size_t p = 0; p < pieces; ++p) top = std::max(top, part(p).largest);
    const float shift = top == kNothing ? 0.0f : top;
    std::fill_n(out, channels, 0.0f);
    for (size_t p = 0; p < pieces; ++p) {
        const Part here = part(p);
        const float factor = std::exp(here.largest - shift);
        total += factor * here.sum;
        for (size_t c = 0; c < channels; ++c) out[c] += factor * here.mixed[c];
    }
    for (size_t c = 0; c < channels; ++c) out[c] /= total == 0.0f ? 1.0f : total;
}

// mask: (batch, 1 or query heads, all tokens), added to the scores.
template <class V>
void attention(const Array<const float>& q, const Packed<V>& keys, const Packed<V>& values,
               const Array<const V>& recent_keys, const Array<const V>& recent_values,
               const std::optional<Array<const float>>& mask, const Array<float>& out, size_t threads,
               const BitmapKernels<V>& kernels, const SoftmaxKernels& softmax) {
    require(keys.heads == values.heads && keys.blocks == values.blocks, "keys and values must be of the same tokens");
    const size_t group = group_of(keys, q, keys.tiles), channels = out.shape(2), batch = q.shape(0);
    require(group_of(keys, out, channels) == group && channels <= values.tiles,
            "out must be (batch, query heads, channels)");
    require(recent_keys.ndim() == 3 && recent_values.ndim() == 3 && recent_keys.shape(0) == keys.heads &&
                recent_values.shape(0) == keys.heads && recent_keys.shape(1) == recent_values.shape(1) &&
                recent_keys.shape(2) == keys.tiles && recent_values.shape(2) == channels,
            "recent keys and values must be (heads, recent, channels)");
    const size_t recent = recent_keys.shape(1), tokens = keys.tokens(), all = tokens + recent;
    const size_t query_heads = q.shape(1);
    require(!mask || (mask->ndim() == 3 && mask->shape(0) == batch && mask->shape(2) == all &&
                      (mask->shape(1) == 1 || mask->shape(1) == query_heads)),
            "mask must be (batch, 1 or query heads, all tokens)");
    const bool shared_mask = mask && mask->shape(1) == 1;
    const float *from = q.data(), *add = mask ? mask->data() : nullptr;
    const V *new_keys = recent_keys.data(), *new_values = recent_values.data();
    float* to = out.data();
    const Unlocked unlocked;

    // The dense tokens are one more piece of every head, after those of the packed ones.
    const size_t each = pieces_of(keys.blocks, kPieceBlocks) + (recent > 0);
    const size_t longest = std::max(std::min(kPieceBlocks, keys.blocks) * kBlock, recent);
    const size_t wide = (longest + kLine - 1) / kLine * kLine, room = group * (values.tiles + 2);
    threads = keys.threads(threads);
    const Scratch<float> memory(keys.heads * each * room + kLine + threads * group * wide);
    float* parts = memory.data();
    float* scores = parts + (keys.heads * each * room + kLine - 1) / kLine * kLine;
    share(keys.heads * each, threads, [&](size_t piece, size_t thread) {
        const size_t head = piece / each, first = piece % each * kPieceBlocks, start = first * kBlock;
        float *mixed = parts + piece * room, *largest = mixed + group * values.tiles, *sum = largest + group;
        float* s = scores + thread * group * wide;
        const float* queries = from + head * group * keys.tiles;
        std::fill_n(mixed, group * values.tiles, 0.0f);
        const bool packed = first < keys.blocks;
        const size_t last = std::min(first + kPieceBlocks, keys.blocks), at = packed ? start : tokens;
        const size_t count = packed ? (last - first) * kBlock : recent;
        const DenseHead<V> dense_keys = {new_keys + head * recent * keys.tiles, recent, keys.tiles};
        const DenseHead<V> dense_values = {new_values + head * recent * channels, recent, channels};
        if (packed) kernels.scores(keys.head(head), first, last, group, queries, keys.tiles, s, wide);
        else kernels.dense_scores(dense_keys, group, queries, keys.tiles, s, wide);
        for (size_t g = 0; g < group; ++g) {
            const size_t row = head * group + g;
            const float* added = add ? add + (shared_mask ? row / query_heads : row) * all + at : nullptr;
            softmax.exponentials(s + g * wide, added, count, largest + g, sum + g);
        }
        if (packed) kernels.mix(values.head(head), first, last, group, s, wide, mixed);
        else kernels.dense_mix(dense_values, group, s, wide, mixed, values.tiles);
    });
    for (size_t head = 0; head < keys.heads; ++head)
        for (size_t g = 0; g < group; ++g)
            combine(each, channels, [&](size_t p) -> Part {
                const float* mixed = parts + (head * each + p) * room;
                const float* largest = mixed + group * values.tiles;
                return {largest[g], largest[group + g], mixed + g * values.tiles};
            }, to + (head * group + g) * channels);
}

// x: (heads, tokens, channels).
template <class V>
bool mark(const Array<const V>& x, size_t keep, size_t pad, bool by_channel, const Array<int64_t>& bitmap,
          const Array<int32_t>& counts, size_t threads, const BitmapKernels<V>& kernels) {
    require(x.ndim() == 3 && bitmap.ndim() == 3 && counts.ndim() == 2 && x.shape(1) % kBlock == 0, "x has 3 axes");
    const size_t heads = x.shape(0), blocks = x.shape(1) / kBlock, channels = x.shape(2), tiles = bitmap.shape(2);
    const size_t filled = (channels + 63) / 64 * 64;
    require(bitmap.shape(0) == heads && bitmap.shape(1) == blocks && tiles == (by_channel ? channels : filled) &&
                counts.shape(0) == heads && counts.shape(1) == blocks && (pad == 1 || pad == 8),
            "bitmap and counts must fit x");
    const V* from = x.data();
    uint64_t* words = reinterpret_cast<uint64_t*>(bitmap.data());
    int32_t* count = counts.data();
    const Unlocked unlocked;
    threads = std::clamp<size_t>(heads * blocks * tiles / kThreadTiles, 1, std::max<size_t>(1, threads));
    const Scratch<uint64_t> scratch(threads * 2 * filled);
    std::atomic<bool> nan{false};
    share(pieces_of(heads * blocks, kPieceBlocks), threads, [&](size_t piece, size_t thread) {
        const size_t first = piece * kPieceBlocks, last = std::min(first + kPieceBlocks, heads * blocks);
        for (size_t b = first; b < last && !nan; ++b)
            if (kernels.mark(from + b * kBlock * channels, channels, keep, pad, by_channel, words + b * tiles, count + b,
                             scratch.data() + thread * 2 * filled))
                nan = true;
    });
    return nan;
}

template <class V>
void fill(const Array<const V>& x, size_t pad, bool by_channel, const Array<const int64_t>& bitmap,
          const Array<const int32_t>& offsets, const Array<V>& values, size_t threads,
          const BitmapKernels<V>& kernels) {
    require(x.ndim() == 3 && bitmap.ndim() == 3 && offsets.ndim() == 2 && values.ndim() == 2, "x has 3 axes");
    const size_t heads = x.shape(0), blocks = bitmap.shape(1), channels = x.shape(2), tiles = bitmap.shape(2);
    require(bitmap.shape(0) == heads && x.shape(1) == blocks * kBlock && offsets.shape(0) == heads &&
                offsets.shape(1) == blocks + 1 && values.shape(0) == heads,
            "bitmap, offsets and values must fit x");
    const size_t width = values.shape(1);
    const V* from = x.data();
    const uint64_t* words = reinterpret_cast<const uint64_t*>(bitmap.data());
    const int32_t* at = offsets.data();
    V* to = values.data();
    for (size_t h = 0; h < heads; ++h)
        require(at[h * (blocks + 1)] == 0 && static_cast<size_t>(at[h * (blocks + 1) + blocks]) <= width,
                "values must have room for every head");
    const Unlocked unlocked;
    threads = std::clamp<size_t>(heads * blocks * tiles / kThreadTiles, 1, std::max<size_t>(1, threads));
    share(pieces_of(heads * blocks, kPieceBlocks), threads, [&](size_t piece, size_t) {
        for (size_t b = piece * kPieceBlocks; b < std::min((piece + 1) * kPieceBlocks, heads * blocks); ++b)
            kernels.fill(from + b * kBlock * channels, channels, pad, by_channel, words + b * tiles,
                         to + b / blocks * width + at[b / blocks * (blocks + 1) + b % blocks]);
    });
}

// x: (heads, tokens, channels).
template <class V>
void unpack(const Packed<V>& packed, bool by_channel, const Array<V>& x, size_t threads,
            const BitmapKernels<V>& kernels) {
    require(x.ndim() == 3 && x.shape(0) == packed.heads && x.shape(1) == packed.tokens(), "x must fit what is packed");
    const size_t channels = x.shape(2);
    require(packed.tiles == (by_channel ? channels : (channels + 63) / 64 * 64), "x must fit what is packed");
    V* to = x.data();
    const Unlocked unlocked;
    share(pieces_of(packed.heads * packed.blocks, kPieceBlocks), packed.threads(threads), [&](size_t piece, size_t) {
        for (size_t b = piece * kPieceBlocks; b < std::min((piece + 1) * kPieceBlocks, packed.heads * packed.blocks); ++b)
            kernels.unpack(packed.head(b / packed.blocks), b % packed.blocks, channels, by_channel,
                           to + b * kBlock * channels);
    });
}

template <class V>
void bind(nb::module_& m, const char* name, BitmapKernels<V> InstructionSet::*kernels) {
    nb::class_<Packed<V>>(m, name);
    m.def("bitmap_view", [](Rows<const int64_t> bitmap, Rows<const int32_t> offsets, Rows<const V> values, size_t pad) {
        return Packed<V>(bitmap, offsets, values, pad);
    });
    m.def("bitmap_scores", [kernels](Array<const float> q, const Packed<V>& keys, Array<float> out, size_t threads,
                                     const std::string& isa) {
        scores<V>(q, keys, out, threads, chosen(isa).*kernels);
    });
    m.def("bitmap_mix", [kernels](Array<const float> weights, const Packed<V>& values, Array<float> out, size_t threads,
                                  const std::string& isa) {
        mix<V>(weights, values, out, threads, chosen(isa).*kernels);
    });
    m.def("bitmap_attention",
          [kernels](Array<const float> q, const Packed<V>& keys, const Packed<V>& values, Array<const V> recent_keys,
                    Array<const V> recent_values, std::optional<Array<const float>> mask, Array<float> out,
                    size_t threads, const std::string& isa) {
              const InstructionSet& set = chosen(isa);
              attention<V>(q, keys, values, recent_keys, recent_values, mask, out, threads, set.*kernels, set.softmax);
          },
          nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg().none(), nb::arg(), nb::arg(), nb::arg());
    m.def("bitmap_mark", [kernels](Array<const V> x, size_t keep, size_t pad, bool by_channel, Array<int64_t> bitmap,
                                   Array<int32_t> counts, size_t threads, const std::string& isa) {
        return mark<V>(x, keep, pad, by_channel, bitmap, counts, threads, chosen(isa).*kernels);
    });
    m.def("bitmap_fill", [kernels](Array<const V> x, size_t pad, bool by_channel, Array<const int64_t> bitmap,
                                   Array<const int32_t> offsets, Array<V> values, size_t threads,
                                   const std::string& isa) {
        fill<V>(x, pad, by_channel, bitmap, offsets, values, threads, chosen(isa).*kernels);
    });
    m.def("bitmap_unpack", [kernels](const Packed<V>& packed, bool by_channel, Array<V> x, size_t threads,
                                     const std::string& isa) {
        unpack<V>(packed, by_channel, x, threads, chosen(isa).*kernels);
    });
}

}  // namespace

void bind_bitmap(nb::module_& m) {
    bind<float>(m, "BitmapFloat32", &InstructionSet::bitmap32);
    bind<Float16>(m, "BitmapFloat16", &InstructionSet::bitmap16);
    bind<BFloat16>(m, "BitmapBFloat16", &InstructionSet::bitmap_brain);
}

}  // namespace sparsepriors
