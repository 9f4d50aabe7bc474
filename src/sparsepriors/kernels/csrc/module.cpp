// The compiled kernels of sparsepriors, one nanobind module.
#include <nanobind/nanobind.h>

NB_MODULE(_native, m) {
    m.doc() = "Compiled CPU kernels; the PyTorch references are in sparsepriors.kernels.reference.";
}
