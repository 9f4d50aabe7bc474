// Masks of N:M patterns by counting: entry i is kept when fewer than n entries of its group come before it.
#pragma once
#include <cstddef>
#include <cstdint>

namespace {

template <class T>
inline int before(T a, T b) { return a > b; }       // a, of the higher index, precedes b
template <class T>
inline int before_or_tied(T a, T b) { return a >= b; }  // a, of the lower index, precedes b

// M > 0 is a group size known to the compiler, 0 one given by m.
template <class T, int M>
bool nm_groups(const T* scores, size_t groups, int n, int m, uint8_t* keep) {
    const int size = M > 0 ? M : m;
    int nan = 0;
    for (size_t g = 0; g < groups; ++g) {
        const T* s = scores + g * size;
        uint8_t* k = keep + g * size;
        for (int i = 0; i < size; ++i) {
            int rank = 0;
            for (int j = 0; j < i; ++j) rank += before_or_tied(s[j], s[i]);
            for (int j = i + 1; j < size; ++j) rank += before(s[j], s[i]);
            k[i] = rank < n;
            nan |= s[i] != s[i];
        }
    }
    return nan != 0;
}

template <class T>
bool nm_mask(const T* scores, size_t groups, int n, int m, uint8_t* keep) {
    switch (m) {
        case 2: return nm_groups<T, 2>(scores, groups, n, m, keep);
        case 4: return nm_groups<T, 4>(scores, groups, n, m, keep);
        case 8: return nm_groups<T, 8>(scores, groups, n, m, keep);
        case 16: return nm_groups<T, 16>(scores, groups, n, m, keep);
        default: return nm_groups<T, 0>(scores, groups, n, m, keep);
    }
}

}  // namespace
