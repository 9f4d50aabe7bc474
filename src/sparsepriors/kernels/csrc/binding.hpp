// What the files that bind kernels share: arrays from Python, argument checks, and the choice of code path.
#pragma once
#include <nanobind/stl/string.h>

#include <chrono>
#include <stdexcept>
#include <string>
#include <thread>

#include "arrays.hpp"
#include "kernels.hpp"

namespace sparsepriors {

// The code path of this name; throws where the processor or the build lacks it.
const InstructionSet& chosen(const std::string& name);

inline void require(bool holds, const char* what) {
    if (!holds) throw std::invalid_argument(what);
}

// Lets other Python threads run while it lives. An interpreter that is shutting down ends a daemon thread that wants back
// in, by unwinding its stack, which no destructor survives: such a thread stays here until the process ends.
class Unlocked {
   public:
    Unlocked() : state_(PyEval_SaveThread()) {}
    ~Unlocked() {
        try {
            PyEval_RestoreThread(state_);
        } catch (...) {
            nb::set_leak_warnings(false);  // the thread still holds what it was called with
            for (;;) std::this_thread::sleep_for(std::chrono::hours(1));
        }
    }
    Unlocked(const Unlocked&) = delete;
    Unlocked& operator=(const Unlocked&) = delete;

   private:
    PyThreadState* state_;
};

// One per family of kernels: adds its functions to the module.
void bind_bitmap(nb::module_& m);
void bind_born(nb::module_& m);
void bind_codes(nb::module_& m);
void bind_csc(nb::module_& m);
void bind_dense(nb::module_& m);
void bind_descent(nb::module_& m);
void bind_ista(nb::module_& m);
void bind_masks(nb::module_& m);
void bind_modulus(nb::module_& m);
void bind_momentum(nb::module_& m);
void bind_nm_linear(nb::module_& m);
void bind_pursuit(nb::module_& m);
void bind_simplex(nb::module_& m);
void bind_sorted_l1(nb::module_& m);
void bind_spmm(nb::module_& m);
void bind_variation(nb::module_& m);

}  // namespace sparsepriors
