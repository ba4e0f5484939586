// GPUs and their driver, asked through NVML (libnvidia-ml.so.1, which comes with the driver), so
// that no CUDA is linked and none need be there.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "inspect/doctor_checks.h"

namespace lorry::inspect {

struct Gpu {
  std::string name;
  int64_t memory = 0, free = 0;  ///< bytes
  int capability = 0;            ///< 90 is sm_90; 0: unknown
};

struct GpuFacts {
  bool library = false;    ///< libnvidia-ml.so.1 was found
  std::string error;       ///< why NVML does not answer; empty: it does
  bool no_device = false;  ///< `error` only says that there is no GPU here
  std::string driver;      ///< "580.95.05"
  std::vector<Gpu> gpus;
  std::string kernel_driver;  ///< the version in /proc/driver/nvidia, seen by containers too
  bool card = false;          ///< a PCI display device of NVIDIA's
  bool hidden = false;        ///< CUDA_VISIBLE_DEVICES names none
};

/// What the engine and its libtorch are; see doctor_libraries.h.
struct TorchFacts {
  std::string error;       ///< the engine does not load; empty: it does
  std::string engine;      ///< path
  std::string folder;      ///< of libtorch_cpu.so
  std::string version;     ///< "2.11.0+cu130"; empty: unknown
  std::string cuda;        ///< "13.0"; empty: built for the CPU alone
  std::string cuda_error;  ///< libtorch_cuda was tried and does not load
};

/// Asks NVML, then /proc and /sys below `root`. May hang or crash with the driver.
GpuFacts read_gpus(const std::filesystem::path& root = "/");

/// The findings about GPU and driver. What is there but does not work is a failure unless the
/// device is "cpu"; what is not there is one only if the device is "cuda": a CPU machine is a
/// machine too. `torch` is null when the libraries are of no interest (--data-only).
std::vector<Finding> judge_gpus(const GpuFacts& facts, const TorchFacts* torch,
                                const std::string& device);

/// The driver that a CUDA release needs at least: 580 for 13, 525 for 12; 0 for others.
/// Source: CUDA Toolkit release notes, table "CUDA Toolkit and Minimum Required Driver Version for
/// CUDA Minor Version Compatibility".
int least_driver(std::string_view cuda);

Json to_json(const GpuFacts& facts);
GpuFacts gpu_facts_from(const Json& json);

}  // namespace lorry::inspect
