#include "inspect/prices.h"

#include <fmt/format.h>
#include <strings.h>  // strcasecmp

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <limits>
#include <map>
#include <nlohmann/json.hpp>
#include <string_view>

#include "base/progress.h"
#include "base/system_files.h"
#include "inspect/doctor_machine.h"

namespace lorry::inspect {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kMiB = int64_t{1} << 20;

constexpr GpuModel kGpus[] = {
    {"T4", 65, 15360 * kMiB},     {"L4", 121, 23034 * kMiB},        {"A10G", 70, 23028 * kMiB},
    {"A100", 312, 40960 * kMiB},  {"A100-80GB", 312, 81920 * kMiB}, {"H100", 989, 81559 * kMiB},
    {"H200", 989, 143771 * kMiB},
};

/// Operations a second of one core, measured with libtorch's bf16 products (AVX-512 bf16), and
/// float32 ones elsewhere.
constexpr double kCoreTflopsBf16 = 0.4, kCoreTflops = 0.1;

std::string known_names() {
  std::string names;
  for (const auto& gpu : kGpus) names += fmt::format("{}, ", gpu.name);
  return names + "cpu";
}

std::optional<double> parse_number(std::string_view text) {
  double value = 0;
  const auto parsed = std::from_chars(text.data(), text.data() + text.size(), value);
  if (parsed.ec != std::errc{} || parsed.ptr != text.data() + text.size() || !std::isfinite(value))
    return std::nullopt;
  return value;
}

// ---- SkyPilot's catalogue ----------------------------------------------------------------------

/// The fields of one line; quotes protect commas, a doubled quote is one. nullopt: a quote is open.
std::optional<std::vector<std::string>> split_csv(const std::string& line) {
  std::vector<std::string> fields(1);
  bool quoted = false;
  for (size_t i = 0; i < line.size(); ++i) {
    const char c = line[i];
    if (c == '"' && quoted && i + 1 < line.size() && line[i + 1] == '"') {
      fields.back() += line[++i];
    } else if (c == '"') {
      quoted = !quoted;
    } else if (c == ',' && !quoted) {
      fields.emplace_back();
    } else if (c != '\r') {
      fields.back() += c;
    }
  }
  if (quoted) return std::nullopt;
  return fields;
}

using Cheapest = std::map<std::string, PricedMachine>;  // by GPU

void keep_cheaper(std::optional<Offer>& best, double price, const std::string& where) {
  if (!best || price < best->usd_per_hour) best = Offer{price, where};
}

/// One cloud's vms.csv.
class VmFile {
 public:
  explicit VmFile(const fs::path& path)
      : path_(path), cloud_(path.parent_path().filename().string()) {}

  Result<> read(Cheapest& cheapest) {
    std::ifstream file(path_);
    std::string line;
    for (line_ = 1; std::getline(file, line); ++line_) {
      if (line.empty() || line == "\r") continue;
      auto fields = split_csv(line);
      if (!fields) return broken("a quote is not closed");
      if (line_ == 1) {
        header_ = std::move(*fields);
        LORRY_TRY(check_header());
        continue;
      }
      if (fields->size() != header_.size())
        return broken(
            fmt::format("{} fields, but the first line names {}", fields->size(), header_.size()));
      LORRY_TRY(take(*fields, cheapest));
    }
    if (!file.eof()) return unavailable(fmt::format("cannot read {}", path_.string()));
    return header_.empty() ? broken("the file is empty") : Result<>();
  }

 private:
  Error broken(const std::string& what) const {
    return corrupt_data(
        fmt::format("{} line {}: {}; remove the file and let SkyPilot fetch it again (sky gpus "
                    "list)",
                    path_.string(), line_, what));
  }

  Result<> check_header() const {
    for (const char* name :
         {"InstanceType", "AcceleratorName", "AcceleratorCount", "Price", "SpotPrice", "Region"})
      if (std::count(header_.begin(), header_.end(), name) == 0)
        return broken(fmt::format("there is no column {}", name));
    return {};
  }

  const std::string& field(const std::vector<std::string>& fields, const char* name) const {
    return fields[static_cast<size_t>(std::find(header_.begin(), header_.end(), name) -
                                      header_.begin())];
  }

  /// Empty: not offered so.
  Result<std::optional<double>> price(const std::vector<std::string>& fields,
                                      const char* name) const {
    const std::string& text = field(fields, name);
    if (text.empty()) return std::optional<double>();
    const auto value = parse_number(text);
    if (!value || *value < 0) return broken(fmt::format("{} '{}' is no price", name, text));
    if (*value == 0) return std::optional<double>();  // some clouds' way to say "none"
    return value;
  }

  Result<> take(const std::vector<std::string>& fields, Cheapest& cheapest) const {
    const GpuModel* gpu = find_gpu(field(fields, "AcceleratorName"));
    if (gpu == nullptr) return {};
    const auto count = parse_number(field(fields, "AcceleratorCount"));
    if (!count)
      return broken(
          fmt::format("AcceleratorCount '{}' is no number", field(fields, "AcceleratorCount")));
    LORRY_ASSIGN(const auto on_demand, price(fields, "Price"));
    LORRY_ASSIGN(const auto spot, price(fields, "SpotPrice"));
    if (*count != 1) return {};
    const std::string where =
        fmt::format("{} {} in {}", cloud_, field(fields, "InstanceType"), field(fields, "Region"));
    PricedMachine& machine = cheapest[gpu->name];
    machine.name = gpu->name;
    if (on_demand) keep_cheaper(machine.on_demand, *on_demand, where);
    if (spot) keep_cheaper(machine.spot, *spot, where);
    return {};
  }

  const fs::path path_;
  const std::string cloud_;
  int64_t line_ = 0;
  std::vector<std::string> header_;
};

// ---- costs -------------------------------------------------------------------------------------

/// Operations a second of the machine at hand, at its best.
double cpu_flops() {
  const MachineFacts machine = read_machine();
  const bool bf16 = std::count(machine.flags.begin(), machine.flags.end(), "avx512_bf16") > 0;
  const double cores = machine.quota > 0 ? std::min<double>(machine.quota, machine.allowed_cores)
                                         : machine.allowed_cores;
  return 1e12 * cores * (bf16 ? kCoreTflopsBf16 : kCoreTflops);
}

/// nullopt: not known.
std::optional<double> hours(const PricedMachine& machine, const Job& job) {
  if (job.tokens_per_second > 0) return job.tokens / job.tokens_per_second / 3600;
  const GpuModel* gpu = find_gpu(machine.name);
  const double peak = gpu != nullptr                ? gpu->tflops * 1e12
                      : machine.name == kCpuMachine ? cpu_flops()
                                                    : 0;
  if (peak == 0 || job.flops == 0) return std::nullopt;
  return job.flops / (peak * job.utilization) / 3600;
}

void put_offer(Json& row, const char* name, const std::optional<Offer>& offer,
               const std::optional<double>& hours) {
  if (!offer) return;
  Json json = {{"usd_per_hour", offer->usd_per_hour}};
  if (hours) json["cost"] = offer->usd_per_hour * *hours;
  json["where"] = offer->where;
  row[name] = std::move(json);
}

Json machine_json(const PricedMachine& machine, const Job& job) {
  Json row = {{"name", machine.name}};
  if (const GpuModel* gpu = find_gpu(machine.name)) {
    row["memory"] = gpu->memory;
    if (job.gpu_memory > 0) row["fits"] = job.gpu_memory <= gpu->memory;
  } else if (machine.name == kCpuMachine) {
    row["memory"] = read_memory().size();
    if (job.cpu_memory > 0) row["fits"] = job.cpu_memory <= row["memory"].get<int64_t>();
  }
  const auto time = hours(machine, job);
  if (time) row["hours"] = *time;
  put_offer(row, "on_demand", machine.on_demand, time);
  put_offer(row, "spot", machine.spot, time);
  return row;
}

/// What a row is sorted by: its cheapest offer, in dollars for the run, or else an hour.
double cheapest_of(const Json& row) {
  double least = std::numeric_limits<double>::infinity();
  for (const char* kind : {"on_demand", "spot"})
    if (const auto offer = row.find(kind); offer != row.end())
      least = std::min(least, offer->value("cost", offer->value("usd_per_hour", 0.0)));
  return least;
}

std::string dollars(const Json& row, const char* kind) {
  const auto offer = row.find(kind);
  if (offer == row.end()) return "-";
  if (!offer->contains("cost"))
    return fmt::format("${:.2f}/h", (*offer)["usd_per_hour"].get<double>());
  const auto cost = (*offer)["cost"].get<double>();
  return cost < 0.01 ? fmt::format("${:.4f}", cost) : fmt::format("${:.2f}", cost);
}

std::string places(const Json& row) {
  std::string text;
  for (const char* kind : {"on_demand", "spot"}) {
    const auto offer = row.find(kind);
    if (offer == row.end()) continue;
    const auto where = (*offer)["where"].get<std::string>();
    if (!text.empty() && text.find(where) != std::string::npos) continue;
    text += fmt::format("{}{}", text.empty() ? "" : "; spot: ", where);
  }
  return text;
}

}  // namespace

std::span<const GpuModel> gpu_models() { return kGpus; }

const GpuModel* find_gpu(const std::string& name) {
  std::string plain = name;
  if (plain.size() > 4 && ::strcasecmp(plain.c_str() + plain.size() - 4, "-SXM") == 0)
    plain.resize(plain.size() - 4);
  for (const auto& gpu : kGpus)
    if (::strcasecmp(gpu.name, plain.c_str()) == 0) return &gpu;
  return nullptr;
}

Result<std::vector<PricedMachine>> parse_prices(
    const std::vector<std::pair<std::string, std::string>>& prices) {
  std::vector<PricedMachine> machines;
  for (const auto& [name, text] : prices) {
    const GpuModel* gpu = find_gpu(name);
    const bool cpu = ::strcasecmp(name.c_str(), kCpuMachine) == 0;
    if (gpu == nullptr && !cpu)
      return usage_error(fmt::format("--prices: '{}' is not one of {}", name, known_names()));
    const auto price = parse_number(text);
    if (!price)
      return usage_error(fmt::format("--prices: {}={}: not a number of dollars", name, text));
    if (*price < 0)
      return usage_error(fmt::format("--prices: {}={}: a price is not below 0", name, text));
    const std::string known = cpu ? kCpuMachine : gpu->name;
    for (const auto& machine : machines)
      if (machine.name == known)
        return usage_error(fmt::format("--prices: {} is given twice", known));
    machines.push_back({known, Offer{*price, "as given"}, std::nullopt});
  }
  return machines;
}

std::string find_catalog() {
  const char* home = std::getenv("SKY_RUNTIME_DIR");
  if (home == nullptr || *home == '\0') home = std::getenv("HOME");
  if (home == nullptr) return {};
  int newest = -1;
  std::string found;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(fs::path(home) / ".sky/catalogs", error)) {
    const std::string name = entry.path().filename().string();
    const auto version = name.starts_with('v') ? parse_number(name.substr(1)) : std::nullopt;
    if (!version || *version <= newest) continue;
    newest = static_cast<int>(*version);
    found = entry.path().string();
  }
  return found;
}

Result<std::vector<PricedMachine>> read_catalog(const std::string& directory) {
  std::error_code error;
  std::vector<fs::path> files;
  for (const auto& entry : fs::directory_iterator(directory, error))
    if (const auto path = entry.path() / "vms.csv"; fs::exists(path, error)) files.push_back(path);
  if (files.empty())
    return not_found(
        fmt::format("{} is no catalogue of SkyPilot: there is no CLOUD/vms.csv in it", directory));
  std::sort(files.begin(), files.end());
  Cheapest cheapest;
  for (const auto& path : files) LORRY_TRY(VmFile(path).read(cheapest));
  std::vector<PricedMachine> machines;
  for (auto& [name, machine] : cheapest)
    if (machine.on_demand || machine.spot) machines.push_back(std::move(machine));
  return machines;
}

Json estimate_costs(std::vector<PricedMachine> machines, const Job& job) {
  Json rows = Json::array();
  for (const auto& machine : machines) rows.push_back(machine_json(machine, job));
  std::stable_sort(rows.begin(), rows.end(), [](const Json& a, const Json& b) {
    const bool a_fits = a.value("fits", true), b_fits = b.value("fits", true);
    if (a_fits != b_fits) return a_fits;
    return cheapest_of(a) < cheapest_of(b);
  });
  Json costs = Json::object();
  if (job.tokens_per_second > 0) {
    costs["tokens_per_second"] = job.tokens_per_second;
  } else {
    costs["utilization"] = job.utilization;
    if (job.flops > 0) costs["flops"] = job.flops;
  }
  costs["tokens"] = job.tokens;
  costs["machines"] = std::move(rows);
  return costs;
}

std::string format_costs(const Json& costs) {
  std::string out;
  if (costs.contains("tokens_per_second"))
    out = fmt::format("\nhours and costs of the training at {:g} tokens/s as measured:\n",
                      costs["tokens_per_second"].get<double>());
  else if (costs.contains("flops"))
    out = fmt::format(
        "\nhours and costs of the training alone, an estimate: {:.3g} operations at {:.0f} % of "
        "each "
        "machine's\n16-bit peak (assumed: --utilization; exact: --tokens-per-second as 10 steps on "
        "it "
        "report):\n",
        costs["flops"].get<double>(), 100 * costs["utilization"].get<double>());
  else
    out = "\nprices an hour; lorry pretokenize makes the tokens, and with them hours and costs:\n";
  out += fmt::format("  {:<10} {:>9} {:>5} {:>12} {:>10} {:>10}  {}\n", "machine", "memory", "fits",
                     "time", "on demand", "spot", "cheapest at");
  bool with_cpu = false;
  for (const auto& row : costs["machines"]) {
    out += fmt::format(
        "  {:<10} {:>9} {:>5} {:>12} {:>10} {:>10}  {}\n", row["name"].get<std::string>(),
        row.contains("memory") ? format_bytes(row["memory"].get<double>()) : "-",
        row.contains("fits") ? (row["fits"].get<bool>() ? "yes" : "no") : "-",
        row.contains("hours") ? format_duration(3600 * row["hours"].get<double>()) : "-",
        dollars(row, "on_demand"), dollars(row, "spot"), places(row));
    while (out.ends_with(" \n")) out.erase(out.size() - 2, 1);
    with_cpu |= row["name"] == kCpuMachine;
  }
  if (with_cpu && costs.contains("flops"))
    out += fmt::format("  CPU: {} TFLOP/s a core of this machine with AVX-512 bf16, else {}\n",
                       kCoreTflopsBf16, kCoreTflops);
  return out;
}

}  // namespace lorry::inspect
