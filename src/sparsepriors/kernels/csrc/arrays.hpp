// Arrays that Python calls kernels with.
#pragma once
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <cstddef>
#include <cstdint>
#include <type_traits>
#include <utility>

namespace sparsepriors {

namespace nb = nanobind;

// A contiguous array in main memory that is kept alive.
template <class T>
using Kept = nb::ndarray<T, nb::c_contig, nb::device::cpu>;

// How a type of arrays lends one: fills in what the array is and returns 0, or sets a Python error.
using Lend = int (*)(void* array, nb::dlpack::dltensor* view);

// Null where the type lends nothing. Asks for the interpreter's lock.
Lend lender(PyTypeObject* type);

// Whether an array has memory that can be taken: a tensor that torch.func follows, or a fake one, has none.
bool in_memory(nb::handle array);

// A contiguous array in main memory that the caller of a kernel holds until the kernel returns.
//
// A tensor of PyTorch is lent through DLPack's C functions (DLPack 1.3, "C Exchange API"): no Python object is made, as
// for an array that is kept, which takes a microsecond each, and tens of them for the first in a process. Whatever else
// nanobind takes for an array, NumPy's among it, is kept.
template <class T>
class Array {
   public:
    T* data() const { return data_; }
    size_t size() const { return size_; }
    size_t ndim() const { return ndim_; }
    size_t shape(size_t i) const { return static_cast<size_t>(shape_[i]); }

    // Whether the array is one of this type, contiguous, and in main memory.
    bool borrow(const nb::dlpack::dltensor& view) {
        if (view.device.device_type != nb::device::cpu::value || view.dtype != nb::dtype<std::remove_const_t<T>>())
            return false;
        int64_t step = 1;
        bool contiguous = true;
        for (int32_t i = view.ndim; i-- > 0;) {
            contiguous &= !view.strides || view.shape[i] == 1 || view.strides[i] == step;
            step *= view.shape[i];
        }
        size_ = static_cast<size_t>(step), ndim_ = static_cast<size_t>(view.ndim), shape_ = view.shape;
        data_ = reinterpret_cast<T*>(static_cast<char*>(view.data) + view.byte_offset);
        return size_ == 0 || (contiguous && view.data);
    }

    // Whether the array has memory (a fake tensor has none).
    bool keep(Kept<T> array) {
        kept_ = std::move(array);
        data_ = kept_.data(), size_ = kept_.size(), ndim_ = kept_.ndim(), shape_ = kept_.shape_ptr();
        return size_ == 0 || data_;
    }

   private:
    T* data_ = nullptr;
    size_t size_ = 0, ndim_ = 0;
    const int64_t* shape_ = nullptr;
    Kept<T> kept_;
};

}  // namespace sparsepriors

namespace nanobind::detail {

template <class T>
struct type_caster<sparsepriors::Array<T>> {
    using Keeper = make_caster<sparsepriors::Kept<T>>;
    NB_TYPE_CASTER(sparsepriors::Array<T>, Keeper::Name)

    bool from_python(handle source, uint32_t flags, cleanup_list* cleanup) noexcept {
        if (const sparsepriors::Lend lend = sparsepriors::lender(Py_TYPE(source.ptr()))) {
            dlpack::dltensor view;
            if (lend(source.ptr(), &view) == 0) return value.borrow(view);
            PyErr_Clear();
            return false;
        }
        Keeper keeper;
        // Never converted: what a kernel writes to a copy would be lost.
        return keeper.from_python(source, flags & ~uint32_t(cast_flags::convert), cleanup) &&
               value.keep(std::move(keeper.value));
    }
};

}  // namespace nanobind::detail
