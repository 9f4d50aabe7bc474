// Exponentials of scores, the way a softmax needs them.
#pragma once
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>

namespace {

// exp(x) for x <= 0, to two units in the last place; zero below the normal numbers, NaN for NaN.
inline float exp_nonpositive(float x) {
    constexpr float magic = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer, in the low bits
    const float clamped = x < -87.0f ? -87.0f : x;
    const float shifted = clamped * 1.44269504089f + magic;
    const float n = shifted - magic;
    const float r = (clamped - n * 0.693359375f) + n * 2.12194440e-4f;
    float p = 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    uint32_t bits;
    std::memcpy(&bits, &shifted, sizeof bits);
    bits = (bits << 23) + (uint32_t(127) << 23);
    float scale;
    std::memcpy(&scale, &bits, sizeof scale);
    return x < -87.0f ? 0.0f : p * scale;
}

void exponentials(float* scores, const float* mask, size_t count, float* largest, float* sum) {
    float top = -std::numeric_limits<float>::infinity(), total = 0.0f;
    if (mask != nullptr) {
#pragma omp simd
        for (size_t i = 0; i < count; ++i) scores[i] += mask[i];
    }
#pragma omp simd reduction(max : top)
    for (size_t i = 0; i < count; ++i) top = scores[i] > top ? scores[i] : top;
    const float shift = top == -std::numeric_limits<float>::infinity() ? 0.0f : top;
#pragma omp simd reduction(+ : total)
    for (size_t i = 0; i < count; ++i) {
        scores[i] = exp_nonpositive(scores[i] - shift);
        total += scores[i];
    }
    *largest = top;
    *sum = total;
}

}  // namespace
