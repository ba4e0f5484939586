#include "stages/ledger.h"

#include <fmt/format.h>

#include <charconv>
#include <cmath>
#include <nlohmann/json.hpp>

#include "base/progress.h"
#include "base/utf8.h"

namespace lorry::stages {
namespace {

using Reasons = std::map<std::string, Ledger::Reason>;

/// Bytes of a detail that are kept: it may quote a row.
constexpr size_t kDetailBytes = 300;
/// Places that a failed check names for each reason.
constexpr size_t kPlacesInMessage = 3;

void count(Ledger::Reason& reason, Ledger::Named row) {
  ++reason.rows;
  if (reason.named.size() >= Ledger::kNamedRows) return;
  if (row.detail.size() > kDetailBytes) {
    row.detail.resize(utf8_start(row.detail, kDetailBytes));
  }
  reason.named.push_back(std::move(row));
}

void add_all(Reasons& to, const Reasons& later) {
  for (const auto& [name, reason] : later) {
    auto& sum = to[name];
    sum.rows += reason.rows;
    for (const auto& row : reason.named) {
      if (sum.named.size() >= Ledger::kNamedRows) break;
      sum.named.push_back(row);
    }
  }
}

int64_t rows_of(const Reasons& reasons, const std::string& name) {
  const auto found = reasons.find(name);
  return found == reasons.end() ? 0 : found->second.rows;
}

Json counts(const Reasons& reasons) {
  Json json = Json::object();
  for (const auto& [name, reason] : reasons) json[name] = reason.rows;
  return json;
}

/// {reason: {"rows": N, "named": [[place, [row, detail], row, ...], ...]}}: a place once for the
/// rows that follow each other in it.
Json reasons_to_json(const Reasons& reasons) {
  Json json = Json::object();
  for (const auto& [name, reason] : reasons) {
    Json places = Json::array();
    for (const auto& row : reason.named) {
      if (places.empty() || places.back()[0] != row.place) places.push_back({row.place});
      places.back().push_back(row.detail.empty() ? Json(row.row) : Json{row.row, row.detail});
    }
    json[name] = {{"rows", reason.rows}, {"named", std::move(places)}};
  }
  return json;
}

Reasons reasons_from_json(const Json& json) {
  Reasons reasons;
  for (const auto& [name, stored] : json.items()) {
    auto& reason = reasons[name];
    reason.rows = stored.at("rows").get<int64_t>();
    for (const auto& place : stored.at("named")) {
      for (size_t i = 1; i < place.size(); ++i) {
        const bool detailed = place[i].is_array();
        reason.named.push_back({place[0].get<std::string>(),
                                (detailed ? place[i].at(0) : place[i]).get<int64_t>(),
                                detailed ? place[i].at(1).get<std::string>() : std::string()});
      }
    }
  }
  return reasons;
}

void add_lines(std::string& lines, const Reasons& reasons, bool dropped) {
  for (const auto& [name, reason] : reasons) {
    for (const auto& row : reason.named) {
      Json line = {{"reason", name}, {"dropped", dropped}, {"place", row.place}, {"row", row.row}};
      if (!row.detail.empty()) line["detail"] = row.detail;
      lines += dump_json(line) + "\n";
    }
  }
}

}  // namespace

Result<DropLimit> DropLimit::parse(std::string_view text) {
  DropLimit limit;
  limit.text_ = text;
  if (text.empty()) return limit;
  limit.percent_ = text.ends_with('%');
  if (limit.percent_) text.remove_suffix(1);
  const auto [end, error] =
      std::from_chars(text.data(), text.data() + text.size(), limit.number_,
                      limit.percent_ ? std::chars_format::fixed : std::chars_format::general);
  const bool whole = limit.percent_ || limit.number_ == std::floor(limit.number_);
  const double most = limit.percent_ ? 100 : 1e15;
  if (error != std::errc() || end != text.data() + text.size() || !whole ||
      !(limit.number_ >= 0 && limit.number_ <= most)) {
    return usage_error(
        fmt::format("--max-dropped: '{}' is neither a number of rows nor a part of them such as 1%",
                    limit.text_));
  }
  return limit;
}

int64_t DropLimit::rows(int64_t read) const {
  if (!is_set()) return read;
  return int64_t(percent_ ? std::floor(double(read) * number_ / 100) : number_);
}

void Ledger::drop(const std::string& reason, Named row) { count(dropped_[reason], std::move(row)); }
void Ledger::note(const std::string& reason, Named row) { count(noted_[reason], std::move(row)); }

void Ledger::add(const Ledger& later) {
  kept_ += later.kept_;
  add_all(dropped_, later.dropped_);
  add_all(noted_, later.noted_);
}

int64_t Ledger::dropped() const {
  int64_t rows = 0;
  for (const auto& [name, reason] : dropped_) rows += reason.rows;
  return rows;
}

int64_t Ledger::dropped(const std::string& reason) const { return rows_of(dropped_, reason); }
int64_t Ledger::noted(const std::string& reason) const { return rows_of(noted_, reason); }

Json Ledger::summary() const {
  return {
      {"read", read()}, {"kept", kept_}, {"dropped", counts(dropped_)}, {"noted", counts(noted_)}};
}

Json Ledger::to_json() const {
  return {
      {"kept", kept_}, {"dropped", reasons_to_json(dropped_)}, {"noted", reasons_to_json(noted_)}};
}

Ledger Ledger::from_json(const Json& json) {
  Ledger ledger;
  try {
    ledger.kept_ = json.at("kept").get<int64_t>();
    ledger.dropped_ = reasons_from_json(json.at("dropped"));
    ledger.noted_ = reasons_from_json(json.at("noted"));
  } catch (const nlohmann::json::exception&) {
    return {};
  }
  return ledger;
}

Result<> Ledger::check(const DropLimit& limit, std::string_view stage, int64_t of) const {
  if (!limit.is_set() || dropped() <= limit.rows(of)) return {};
  std::string what;
  for (const auto& [name, reason] : dropped_) {
    what += fmt::format("{}{} {} (", what.empty() ? "" : "; ", format_count(reason.rows), name);
    for (size_t i = 0; i < std::min(kPlacesInMessage, reason.named.size()); ++i) {
      const auto& row = reason.named[i];
      what += fmt::format("{}{} row {}{}{}", i ? ", " : "", row.place, row.row,
                          row.detail.empty() ? "" : ": ", row.detail);
    }
    what += reason.rows > int64_t(kPlacesInMessage) ? ", ...)" : ")";
  }
  return invalid_input(fmt::format(
      "{}: {} of {} rows left out, more than --max-dropped {}: {}; mend the data or allow more",
      stage, format_count(dropped()), format_count(of), limit.text(), what));
}

Result<> Ledger::write(const store::Bucket& bucket, const std::string& dir) const {
  std::string lines = dump_json(summary()) + "\n";
  add_lines(lines, dropped_, true);
  add_lines(lines, noted_, false);
  return bucket.write(store::join_path(dir, "ledger.jsonl"), lines);
}

}  // namespace lorry::stages
