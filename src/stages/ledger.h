// What became of the rows of a stage: how many were read, kept and left out, why, and which.
//
// A shard's ledger lies in its state.json; a stage's is their sum in shard order, as "ledger" in
// info.json (counts) and as ledger.jsonl beside it (counts, then a line for each named row).
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "base/result.h"
#include "store/bucket.h"

namespace lorry::stages {

/// How many rows a stage may leave out: a number, or a part of the rows read. Without a text there
/// is no limit.
class DropLimit {
 public:
  DropLimit() = default;
  /// "250" or "1%" or "0.5%"; empty is no limit. Fails with wrong usage.
  static Result<DropLimit> parse(std::string_view text);

  bool is_set() const { return !text_.empty(); }
  const std::string& text() const { return text_; }  ///< as it was given
  /// The most rows of `read` that may be left out.
  int64_t rows(int64_t read) const;

 private:
  std::string text_;
  double number_ = 0;
  bool percent_ = false;
};

/// Not thread-safe.
class Ledger {
 public:
  /// Rows named one by one for each reason; more are only counted.
  static constexpr size_t kNamedRows = 1000;

  /// One row: `place` is the file or shard, `row` its number there (what a reader calls it: rows
  /// from 0, lines from 1), `detail` what was wrong beyond the reason; may be empty.
  struct Named {
    std::string place;
    int64_t row = 0;
    std::string detail;
    bool operator==(const Named&) const = default;
  };
  struct Reason {
    int64_t rows = 0;
    std::vector<Named> named;
    bool operator==(const Reason&) const = default;
  };

  /// Rows that were read and kept.
  void keep(int64_t rows) { kept_ += rows; }
  /// A row that was read and left out.
  void drop(const std::string& reason, Named row);
  /// Something to know about a row that was kept ("nothing to train on").
  void note(const std::string& reason, Named row);
  /// What came after this, in order.
  void add(const Ledger& later);

  int64_t read() const { return kept_ + dropped(); }
  int64_t kept() const { return kept_; }
  int64_t dropped() const;
  int64_t dropped(const std::string& reason) const;
  int64_t noted(const std::string& reason) const;
  const std::map<std::string, Reason>& reasons() const { return dropped_; }

  /// Counts alone: {"read", "kept", "dropped": {reason: rows}, "noted": {reason: rows}}.
  Json summary() const;
  /// All of it, and back; what is no ledger gives an empty one.
  Json to_json() const;
  static Ledger from_json(const Json& json);

  /// Invalid input if more rows were left out than `limit` allows of `of` rows (all that there are
  /// to read, for a look before the end): counts by reason, the first places, what to do.
  Result<> check(const DropLimit& limit, std::string_view stage, int64_t of) const;

  /// Writes {dir}/ledger.jsonl.
  Result<> write(const store::Bucket& bucket, const std::string& dir) const;

  bool operator==(const Ledger&) const = default;

 private:
  int64_t kept_ = 0;
  std::map<std::string, Reason> dropped_, noted_;
};

}  // namespace lorry::stages
