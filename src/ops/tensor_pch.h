// Precompiled for the rooms that hold tensor code: libtorch's headers are most of their compile
// time. Not to be included by hand.
#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/csrc/autograd/variable.h>
