// Uninitialised working memory that begins on a cache line.
#pragma once
#include <cstddef>
#include <new>

#include "kernels.hpp"

namespace sparsepriors {

template <class T>
class Scratch {
   public:
    explicit Scratch(size_t count)
        : data_(static_cast<T*>(::operator new(count * sizeof(T), std::align_val_t{kAlignment}))) {}
    ~Scratch() { ::operator delete(data_, std::align_val_t{kAlignment}); }
    Scratch(const Scratch&) = delete;
    Scratch& operator=(const Scratch&) = delete;
    T* data() const { return data_; }

   private:
    T* data_;
};

}  // namespace sparsepriors
