// What a training costs on which machine: `lorry plan` with prices.
//
// Prices are given (NAME=USD an hour) or read from SkyPilot's catalogue. Hours are the run's
// operations over the GPU's dense 16-bit peak times a share of it that is assumed, or, exact, its
// tokens over a rate that was measured.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "base/json.h"
#include "base/result.h"

namespace lorry::inspect {

struct GpuModel {
  const char* name;  ///< SkyPilot's: "A100-80GB"
  double tflops;     ///< dense bf16 with float32 sums (T4: fp16), 10^12 operations a second
  int64_t memory;    ///< bytes that nvidia-smi shows as its total
};

/// The ones that sky/*.yaml ask for. Sources: NVIDIA's data sheets of T4, L4, A10 (A10G as AWS
/// gives it), A100, H100 SXM and H200, without sparsity.
std::span<const GpuModel> gpu_models();
/// Case and SkyPilot's "-SXM" do not matter; nullptr for an unknown one.
const GpuModel* find_gpu(const std::string& name);

/// What one machine costs; nullopt where that is not known.
struct Offer {
  double usd_per_hour = 0;
  std::string where;  ///< "runpod 1x_L4_SECURE in US", or "--prices"
};
struct PricedMachine {
  std::string name;  ///< a GpuModel's, "CPU", or "measured" (a rate, whatever it ran on)
  std::optional<Offer> on_demand, spot;
};

constexpr char kMeasuredMachine[] = "measured";
constexpr char kCpuMachine[] = "CPU";

/// From --prices: NAME=USD pairs; "cpu" is the machine at hand. Usage errors for unknown names,
/// what is no number, and negative prices.
Result<std::vector<PricedMachine>> parse_prices(
    const std::vector<std::pair<std::string, std::string>>& prices);

/// The newest of SkyPilot's catalogues of this user (SKY_RUNTIME_DIR or HOME, .sky/catalogs/vN);
/// empty if there is none.
std::string find_catalog();

/// The cheapest machine with one GPU of each kind, on demand and spot, over all clouds:
/// {directory}/{cloud}/vms.csv. GPUs that no cloud offers are left out. Corrupt data names file and
/// line; not found if no cloud is there.
Result<std::vector<PricedMachine>> read_catalog(const std::string& directory);

/// The training whose costs are asked for.
struct Job {
  double flops = 0;  ///< 0: not known yet
  double tokens = 0;
  int64_t gpu_memory = 0;        ///< bytes on a GPU; 0: not known yet
  int64_t cpu_memory = 0;        ///< bytes on the machine at hand
  double utilization = 0.3;      ///< share of the peak that is assumed to be reached
  double tokens_per_second = 0;  ///< measured; 0: not
};

/// {utilization | tokens_per_second, flops, tokens, machines: [{name, memory, fits, hours,
/// on_demand: {usd_per_hour, cost, where}, spot: {...}}]}: what fits first, the cheapest first.
/// What is not known is left out.
Json estimate_costs(std::vector<PricedMachine> machines, const Job& job);
/// The same for people, as a table.
std::string format_costs(const Json& costs);

}  // namespace lorry::inspect
