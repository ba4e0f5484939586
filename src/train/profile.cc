#include "train/profile.h"

#include <c10/core/impl/VirtualGuardImpl.h>
#include <fmt/format.h>
#include <torch/csrc/autograd/profiler_kineto.h>

#include <algorithm>
#include <filesystem>
#include <map>
#include <set>
#include <tuple>
#include <unordered_set>

namespace lorry::train {
namespace {

namespace profiler = torch::autograd::profiler;
using torch::profiler::impl::ActivityType;
using torch::profiler::impl::ProfilerConfig;
using torch::profiler::impl::ProfilerState;

std::set<ActivityType> activities(at::Device device) {
  if (device.is_cpu()) return {ActivityType::CPU};
  return {ActivityType::CPU, ActivityType::CUDA};
}

ProfilerConfig config() { return ProfilerConfig(ProfilerState::KINETO); }

void wait_for(at::Device device) {
  if (device.is_cpu()) return;
  c10::impl::VirtualGuardImpl(device.type()).synchronizeDevice(device.index());
}

double seconds(uint64_t ns) { return 1e-9 * static_cast<double>(ns); }

/// Of each event on a CPU: its time less that of the events in it, by thread.
void subtract_inner(const std::vector<const profiler::KinetoEvent*>& events,
                    std::vector<double>& own) {
  std::vector<size_t> order(events.size());
  for (size_t i = 0; i < order.size(); ++i) order[i] = i;
  std::sort(order.begin(), order.end(), [&](size_t a, size_t b) {
    const auto key = [&](size_t i) {
      return std::tuple(events[i]->startThreadId(), events[i]->startNs(), ~events[i]->endNs());
    };
    return key(a) < key(b);
  });
  std::vector<size_t> open;  // the events that the next one may be in
  for (const size_t i : order) {
    const auto holds = [&](const profiler::KinetoEvent& outer) {
      return outer.startThreadId() == events[i]->startThreadId() &&
             outer.endNs() >= events[i]->endNs();
    };
    while (!open.empty() && !holds(*events[open.back()])) open.pop_back();
    own[i] = seconds(events[i]->durationNs());
    if (!open.empty()) own[open.back()] -= own[i];
    open.push_back(i);
  }
}

std::vector<ProfileRow> rows_of(const std::vector<profiler::KinetoEvent>& all, at::Device device) {
  std::vector<const profiler::KinetoEvent*> events;
  for (const auto& event : all) {
    if (event.deviceType() == device.type()) events.push_back(&event);
  }
  std::vector<double> own(events.size());
  for (size_t i = 0; i < events.size(); ++i) own[i] = seconds(events[i]->durationNs());
  if (device.is_cpu()) subtract_inner(events, own);
  std::map<std::string, ProfileRow> by_name;
  for (size_t i = 0; i < events.size(); ++i) {
    ProfileRow& row = by_name[events[i]->name()];
    row.name = events[i]->name();
    row.seconds += own[i];
    ++row.calls;
  }
  std::vector<ProfileRow> rows;
  for (auto& [name, row] : by_name) rows.push_back(std::move(row));
  return rows;
}

std::string line(const ProfileRow& row, double wall_seconds) {
  constexpr size_t kNameLength = 100;  // names of templates are longer than a screen is wide
  return fmt::format("{:6.2f} % {:10.3f} ms {:6} x {:9.1f} us  {}\n",
                     100 * row.seconds / wall_seconds, 1e3 * row.seconds, row.calls,
                     1e6 * row.seconds / static_cast<double>(std::max<int64_t>(1, row.calls)),
                     row.name.substr(0, kNameLength));
}

}  // namespace

std::string profile_table(std::vector<ProfileRow> rows, double wall_seconds, size_t most) {
  std::sort(rows.begin(), rows.end(), [](const ProfileRow& a, const ProfileRow& b) {
    return std::tie(b.seconds, a.name) < std::tie(a.seconds, b.name);
  });
  ProfileRow all{"all"}, others{"others"};
  std::string text;
  for (size_t i = 0; i < rows.size(); ++i) {
    for (ProfileRow* const sum : {&all, &others}) {
      if (sum == &others && i < most) continue;
      sum->seconds += rows[i].seconds;
      sum->calls += rows[i].calls;
    }
    if (i < most) text += line(rows[i], wall_seconds);
  }
  if (others.calls > 0) text += line(others, wall_seconds);
  return text + line(all, wall_seconds);
}

StepProfile::StepProfile(at::Device device) : device_(device) {
  wait_for(device);
  profiler::prepareProfiler(config(), activities(device));
  profiler::enableProfiler(config(), activities(device), {at::RecordScope::FUNCTION});
  begin_ = std::chrono::steady_clock::now();
}

Result<std::string> StepProfile::finish(const std::string& path) {
  wait_for(device_);
  const std::chrono::duration<double> wall = std::chrono::steady_clock::now() - begin_;
  const auto result = profiler::disableProfiler();
  std::error_code error;
  std::filesystem::remove(path, error);
  result->save(path);
  if (!std::filesystem::exists(path, error)) {
    return unavailable(fmt::format("the profile could not be written to {}", path));
  }
  return fmt::format("one step in {:.2f} ms, by {}:\n", 1e3 * wall.count(),
                     device_.is_cpu() ? "operator" : "kernel") +
         profile_table(rows_of(result->events(), device_), wall.count());
}

}  // namespace lorry::train
