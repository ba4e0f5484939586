#include "train/metrics_parts.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdio>

#include "base/parallel.h"

namespace lorry::train {
namespace {

/// Parts that are read at the same time: each may be a request to a remote bucket.
constexpr size_t kReadAtOnce = 16;

}  // namespace

Result<> MetricsParts::write(int64_t begin, int64_t end, std::string_view lines) const {
  if (begin == end) return {};
  return bucket_->write(fmt::format("{}/{:09}-{:09}.jsonl", dir_, begin, end), lines);
}

Result<std::vector<MetricsParts::Part>> MetricsParts::list() const {
  LORRY_ASSIGN(const auto objects, bucket_->list(dir_));
  std::vector<Part> parts;
  for (const store::ObjectInfo& object : objects) {
    Part part{0, 0, object.path};
    const std::string name = object.path.substr(object.path.rfind('/') + 1);
    long long begin = 0, end = 0;
    if (std::sscanf(name.c_str(), "%lld-%lld.jsonl", &begin, &end) != 2) continue;
    part.begin = begin;
    part.end = end;
    parts.push_back(std::move(part));
  }
  std::sort(parts.begin(), parts.end(),
            [](const Part& a, const Part& b) { return a.begin < b.begin; });
  return parts;
}

Result<> MetricsParts::remove_after(int64_t step) const {
  LORRY_ASSIGN(const auto parts, list());
  for (const Part& part : parts) {
    if (part.end > step) LORRY_TRY(bucket_->remove(part.path));
  }
  return {};
}

Result<> MetricsParts::for_each(int64_t last_step,
                                const std::function<Result<>(std::string_view)>& use) const {
  LORRY_ASSIGN(const auto parts, list());
  int64_t step = 0;
  for (size_t first = 0; first < parts.size() && step < last_step; first += kReadAtOnce) {
    const size_t count = std::min(kReadAtOnce, parts.size() - first);
    std::vector<std::string> lines(count);
    LORRY_TRY(in_parallel(static_cast<int64_t>(count), kReadAtOnce, [&](int64_t i) -> Result<> {
      LORRY_ASSIGN(lines[i], bucket_->read(parts[first + i].path));
      return {};
    }));
    for (size_t i = 0; i < count && step < last_step; ++i) {
      if (parts[first + i].begin != step) break;
      LORRY_TRY(use(lines[i]));
      step = parts[first + i].end;
    }
  }
  if (step == last_step) return {};
  return corrupt_data(fmt::format("{}: the lines after step {} are missing", dir_, step));
}

}  // namespace lorry::train
