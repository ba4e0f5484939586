#include "inspect/doctor_gpu.h"

#include <dlfcn.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <fstream>
#include <map>
#include <sstream>

#include "base/progress.h"

namespace lorry::inspect {
namespace {

namespace fs = std::filesystem;

/// Kernels of libtorch's CUDA 13 builds begin here.
constexpr int kLeastCapabilityOfCuda13 = 75;

/// Where PyTorch keeps the newest of libtorch's CUDA 12 builds that a driver runs; as sky/setup.sh
/// chooses. The newer one knows newer GPUs.
const char* cuda12_index(int driver) {
  return driver >= 570 ? "https://download.pytorch.org/whl/cu128"
                       : "https://download.pytorch.org/whl/cu126";
}

// The part of NVML's stable interface that is needed (nvml.h).
constexpr int kNvmlSuccess = 0, kNvmlNotFound = 6, kNvmlDriverNotLoaded = 9;
struct NvmlMemory {
  unsigned long long total, free, used;
};
using NvmlDevice = void*;

class Nvml {
 public:
  explicit Nvml(void* library) : library_(library) {}

  template <typename... Args>
  int call(const char* name, Args... args) const {
    const auto function = reinterpret_cast<int (*)(Args...)>(dlsym(library_, name));
    return function == nullptr ? kMissing : function(args...);
  }
  std::string reason(int code) const {
    if (code == kMissing) return "it lacks functions that every driver since 450 has";
    const auto text = reinterpret_cast<const char* (*)(int)>(dlsym(library_, "nvmlErrorString"));
    const char* words = text == nullptr ? nullptr : text(code);
    return words == nullptr ? fmt::format("NVML error {}", code) : words;
  }

 private:
  static constexpr int kMissing = -1;
  void* library_;
};

Gpu read_gpu(const Nvml& nvml, unsigned index) {
  Gpu gpu;
  NvmlDevice device = nullptr;
  if (nvml.call("nvmlDeviceGetHandleByIndex_v2", index, &device) != kNvmlSuccess) return gpu;
  char name[96] = "";
  if (nvml.call("nvmlDeviceGetName", device, static_cast<char*>(name), 96u) == kNvmlSuccess)
    gpu.name = name;
  NvmlMemory memory{};
  if (nvml.call("nvmlDeviceGetMemoryInfo", device, &memory) == kNvmlSuccess) {
    gpu.memory = static_cast<int64_t>(memory.total);
    gpu.free = static_cast<int64_t>(memory.free);
  }
  int major = 0, minor = 0;
  if (nvml.call("nvmlDeviceGetCudaComputeCapability", device, &major, &minor) == kNvmlSuccess)
    gpu.capability = 10 * major + minor;
  return gpu;
}

void ask_nvml(GpuFacts& facts) {
  void* library = dlopen("libnvidia-ml.so.1", RTLD_NOW | RTLD_LOCAL);
  facts.library = library != nullptr;
  if (!facts.library) return;
  const Nvml nvml(library);
  if (const int code = nvml.call("nvmlInit_v2"); code != kNvmlSuccess) {
    facts.error = nvml.reason(code);
    facts.no_device = code == kNvmlDriverNotLoaded || code == kNvmlNotFound;
    return;
  }
  char version[96] = "";
  if (nvml.call("nvmlSystemGetDriverVersion", static_cast<char*>(version), 96u) == kNvmlSuccess)
    facts.driver = version;
  unsigned count = 0;
  if (const int code = nvml.call("nvmlDeviceGetCount_v2", &count); code != kNvmlSuccess)
    facts.error = nvml.reason(code);
  for (unsigned i = 0; i < count; ++i) facts.gpus.push_back(read_gpu(nvml, i));
  nvml.call("nvmlShutdown");
}

std::string first_line(const fs::path& path) {
  std::ifstream file(path);
  std::string line;
  std::getline(file, line);
  return line;
}

/// The first word that looks like a version: "NVRM version: NVIDIA UNIX x86_64 ...  580.95.05 ...".
std::string version_in(const std::string& line) {
  std::istringstream words(line);
  for (std::string word; words >> word;)
    if (word.size() > 3 && word.find('.') != std::string::npos &&
        word.find_first_not_of("0123456789.") == std::string::npos)
      return word;
  return {};
}

bool has_nvidia_card(const fs::path& root) {
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(root / "sys/bus/pci/devices", error))
    if (first_line(entry.path() / "vendor") == "0x10de" &&
        first_line(entry.path() / "class").starts_with("0x03"))
      return true;
  return false;
}

bool hides_all_devices() {
  const char* visible = std::getenv("CUDA_VISIBLE_DEVICES");
  return visible != nullptr && (*visible == '\0' || *visible == '-');
}

// ---- judging -----------------------------------------------------------------------------------

/// "8 x NVIDIA H200, 140 GiB each (139 free), sm_90", one part a kind.
std::string describe(const std::vector<Gpu>& gpus) {
  std::vector<std::string> parts;
  std::vector<bool> seen(gpus.size());
  for (size_t i = 0; i < gpus.size(); ++i) {
    if (seen[i]) continue;
    int count = 0;
    int64_t free = gpus[i].free;
    for (size_t j = i; j < gpus.size(); ++j) {
      if (gpus[j].name != gpus[i].name || gpus[j].memory != gpus[i].memory) continue;
      seen[j] = true;
      ++count;
      free = std::min(free, gpus[j].free);
    }
    parts.push_back(fmt::format(
        "{}{}, {}{} ({} free){}", count > 1 ? fmt::format("{} x ", count) : "",
        gpus[i].name.empty() ? "a GPU that does not say its name" : gpus[i].name,
        format_bytes(double(gpus[i].memory)), count > 1 ? " each" : "", format_bytes(double(free)),
        gpus[i].capability > 0 ? fmt::format(", sm_{}", gpus[i].capability) : ""));
  }
  return fmt::format("{}", fmt::join(parts, "; "));
}

Finding no_gpu(const GpuFacts& facts, const std::string& device) {
  const bool wanted = device.starts_with("cuda");
  const auto finding = [&](std::string text, std::string advice) {
    return wanted ? fail("gpu", std::move(text), std::move(advice))
                  : warn("gpu", std::move(text), std::move(advice));
  };
  if (facts.hidden && !facts.gpus.empty())
    return finding(fmt::format("CUDA_VISIBLE_DEVICES hides the {} of this machine",
                               facts.gpus.size() == 1 ? "GPU" : "GPUs"),
                   "unset it, or name GPUs in it");
  if (facts.library && !facts.error.empty() && !facts.no_device)
    return fail("gpu", fmt::format("NVIDIA's driver does not answer: {}", facts.error),
                "restart the machine; if that does not help, install the driver anew");
  if (!facts.library && !facts.kernel_driver.empty())
    return finding(
        fmt::format("the machine has NVIDIA's driver {}, but libnvidia-ml.so.1 is not here",
                    facts.kernel_driver),
        "start a container with --gpus all; on a bare machine install the driver's libraries");
  if (facts.card && facts.kernel_driver.empty())
    return finding("an NVIDIA card, but no driver for it", "install NVIDIA's driver, 580 or newer");
  return finding("no NVIDIA GPU: training and serving run on the CPU",
                 wanted ? "take a machine with one, or leave out --device cuda" : "");
}

int major_of(std::string_view version) {
  int major = 0;
  std::from_chars(version.data(), version.data() + version.size(), major);
  return major;
}

/// What libtorch's build and the driver are to each other.
Finding judge_driver(const GpuFacts& facts, const TorchFacts& torch, bool wanted) {
  const std::string driver = facts.driver.empty() ? "of unknown version" : facts.driver;
  const int major = major_of(facts.driver);
  if (!torch.error.empty())
    return ok("driver", fmt::format("{}; good for libtorch's build for CUDA {}", driver,
                                    major >= least_driver("13") ? "13" : "12"));
  if (torch.cuda.empty()) {
    const std::string text =
        fmt::format("{}, but libtorch {} is built for the CPU alone: the GPU would idle", driver,
                    torch.version);
    const std::string advice =
        major >= least_driver("13")
            ? "install the CUDA build: pip install 'torch==2.11.*'"
            : fmt::format("install the CUDA 12 build: pip install 'torch==2.11.*' --index-url {}",
                          cuda12_index(major));
    return wanted ? fail("driver", text, advice) : warn("driver", text, advice);
  }
  const int least = least_driver(torch.cuda);
  if (least > 0 && major > 0 && major < least) {
    std::string advice = fmt::format("install driver {} or newer", least);
    if (least == least_driver("13") && major >= least_driver("12"))
      advice += fmt::format(
          ", or libtorch's CUDA 12 build: pip install --force-reinstall 'torch==2.11.*' "
          "--index-url {}",
          cuda12_index(major));
    return fail("driver",
                fmt::format("{} is too old for libtorch {} (CUDA {} needs {} or newer)", driver,
                            torch.version, torch.cuda, least),
                advice);
  }
  const auto fits = [&](const Gpu& gpu) {
    return gpu.capability == 0 || gpu.capability >= kLeastCapabilityOfCuda13;
  };
  if (major_of(torch.cuda) >= 13 && !std::any_of(facts.gpus.begin(), facts.gpus.end(), fits))
    return fail("driver",
                fmt::format("libtorch {} has no kernels for GPUs older than sm_{}", torch.version,
                            kLeastCapabilityOfCuda13),
                fmt::format("install its CUDA 12 build: pip install --force-reinstall "
                            "'torch==2.11.*' --index-url {}",
                            cuda12_index(525)));
  if (!torch.cuda_error.empty())
    return fail(
        "driver",
        fmt::format("{} would do, but libtorch_cuda does not load: {}", driver, torch.cuda_error),
        "install torch with its dependencies: pip install --force-reinstall "
        "'torch==2.11.*', without --no-deps");
  return ok("driver", fmt::format("{}, as CUDA {} of libtorch {} needs ({} or newer)", driver,
                                  torch.cuda, torch.version, least));
}

/// "cuda:3" asks for a fourth GPU.
bool is_beyond(const std::string& device, size_t gpus) {
  if (!device.starts_with("cuda:")) return false;
  size_t index = 0;
  const auto parsed = std::from_chars(device.data() + 5, device.data() + device.size(), index);
  return parsed.ec == std::errc{} && index >= gpus;
}

}  // namespace

int least_driver(std::string_view cuda) {
  switch (major_of(cuda)) {
    case 13:
      return 580;
    case 12:
      return 525;
    default:
      return 0;
  }
}

GpuFacts read_gpus(const fs::path& root) {
  GpuFacts facts;
  facts.kernel_driver = version_in(first_line(root / "proc/driver/nvidia/version"));
  facts.card = has_nvidia_card(root);
  facts.hidden = hides_all_devices();
  ask_nvml(facts);
  return facts;
}

std::vector<Finding> judge_gpus(const GpuFacts& facts, const TorchFacts* torch,
                                const std::string& device) {
  const bool none = facts.gpus.empty() || facts.hidden;
  if (device == "cpu" || (none && torch == nullptr))
    return {ok("gpu", none ? "none is needed" : describe(facts.gpus) + "; not needed")};
  if (none) return {no_gpu(facts, device)};
  std::vector<Finding> findings = {ok("gpu", describe(facts.gpus))};
  if (is_beyond(device, facts.gpus.size()))
    findings.front() =
        fail("gpu",
             fmt::format("{} is asked for, there {} {}", device,
                         facts.gpus.size() == 1 ? "is" : "are", describe(facts.gpus)),
             "GPUs are counted from cuda:0");
  if (torch != nullptr) findings.push_back(judge_driver(facts, *torch, device.starts_with("cuda")));
  return findings;
}

Json to_json(const GpuFacts& facts) {
  Json gpus = Json::array();
  for (const auto& gpu : facts.gpus)
    gpus.push_back({{"name", gpu.name},
                    {"memory", gpu.memory},
                    {"free", gpu.free},
                    {"capability", gpu.capability}});
  return {{"library", facts.library},     {"error", facts.error},
          {"no_device", facts.no_device}, {"driver", facts.driver},
          {"gpus", std::move(gpus)},      {"kernel_driver", facts.kernel_driver},
          {"card", facts.card},           {"hidden", facts.hidden}};
}

GpuFacts gpu_facts_from(const Json& json) {
  GpuFacts facts;
  facts.library = json.value("library", false);
  facts.error = json.value("error", "");
  facts.no_device = json.value("no_device", false);
  facts.driver = json.value("driver", "");
  for (const auto& gpu : json.value("gpus", Json::array()))
    facts.gpus.push_back({gpu.value("name", ""), gpu.value("memory", int64_t{0}),
                          gpu.value("free", int64_t{0}), gpu.value("capability", 0)});
  facts.kernel_driver = json.value("kernel_driver", "");
  facts.card = json.value("card", false);
  facts.hidden = json.value("hidden", false);
  return facts;
}

}  // namespace lorry::inspect
