// For cuda_module_test.cc: tables of other builds, that the loader must refuse. Built once for each
// field that is wrong.
#include <torch/headeronly/version.h>

#include "base/version.h"
#include "ops/cuda_module.h"

#ifndef WRONG_VERSION
#define WRONG_VERSION lorry::kVersion
#endif
#ifndef WRONG_TORCH
#define WRONG_TORCH TORCH_ABI_VERSION
#endif
#ifndef WRONG_SIZE
#define WRONG_SIZE sizeof(lorry::ops::CudaModule)
#endif

extern "C" const lorry::ops::CudaModule* lorry_cuda_module() {
  static const lorry::ops::CudaModule kModule = {WRONG_VERSION, WRONG_TORCH, WRONG_SIZE};
  return &kModule;
}
