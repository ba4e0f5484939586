#include "stages/standardize.h"

#include <arrow/type.h>
#include <fmt/format.h>

#include <chrono>
#include <nlohmann/json.hpp>
#include <set>

#include "base/digest.h"
#include "base/json.h"
#include "base/log.h"
#include "base/version.h"
#include "data/shard.h"
#include "data/standard_batch.h"
#include "stages/pieces.h"
#include "stages/standard_shard.h"
#include "store/layout.h"

namespace lorry::stages {
namespace {

using data::OptionalColumns;

constexpr size_t kNamedPlaceholders = 10;

class Standardization {
 public:
  explicit Standardization(const StandardizeOptions& options)
      : options_(options),
        raw_(store::raw_dir(options.dataset)),
        dir_(store::standardized_dir(options.dataset)),
        limits_(PieceLimits::of(options, 1)) {}

  Result<StandardizeReport> run() {
    LORRY_TRY(check(options_));
    LORRY_ASSIGN(const auto claim, begin());
    if (!claim) return report_;
    options_.bucket = claim->bucket();
    log_memory("standardize", options_);
    LORRY_TRY(recognise());
    ShardWork work(options_, *claim, dir_, key(), shards_, rows_total_);
    LORRY_TRY(work.begin([this](int64_t, const Json& state) { return learn(state); }));
    rows_done_ = work.rows_done();
    LORRY_TRY(write_shards(work));
    LORRY_TRY(complete(work));
    return report_;
  }

 private:
  std::string key() const { return sha256_hex(dump_json(inputs_)); }

  /// The claim on the output; null if there is nothing to do. Who had it before may have done the
  /// work, or made other raw shards.
  Result<std::unique_ptr<store::Claim>> begin() {
    std::unique_ptr<store::Claim> claim;
    std::string claimed;
    while (true) {
      LORRY_TRY(read_raw_info());
      LORRY_ASSIGN(const bool done, is_up_to_date());
      if (done || report_.input_changed) return std::unique_ptr<store::Claim>();
      if (claim && claimed == key()) return claim;
      claim.reset();
      claimed = key();
      LORRY_ASSIGN(claim,
                   claim_output(options_, options_.bucket, "standardize", dir_, {raw_}, claimed));
    }
  }

  Result<> write_shards(ShardWork& work) {
    while (true) {
      LORRY_ASSIGN(const auto shard, work.next());
      if (!shard) return {};
      LORRY_TRY(write_shard(work, *shard));
    }
  }

  Result<> read_raw_info() {
    LORRY_ASSIGN(auto info, options_.bucket->read_info(raw_));
    const std::string& expected = options_.expected_input;
    report_.input_changed = !expected.empty() && (!info || digest_of_info(*info) != expected);
    if (report_.input_changed) return {};
    if (!info) {
      return not_found(
          fmt::format("{}: not imported, or not to the end; run lorry import-dataset", raw_));
    }
    shards_ = info->value("count", int64_t(-1)) + 1;
    rows_total_ = info->value("rows", int64_t(0));
    imported_on_ = info->value("imported_on", "");
    inputs_["lorry_version"] = kVersion;
    inputs_["format"] = kStandardFormat;
    inputs_["raw"] = digest_of_info(*info);
    inputs_["options"] = options_.to_json();
    return {};
  }

  Result<bool> is_up_to_date() {
    if (options_.fresh || report_.input_changed) return false;
    LORRY_ASSIGN(auto info, options_.bucket->read_info(dir_));
    if (!info || info->value("inputs", Json()) != inputs_) return false;
    LORRY_TRY(check_finished(options_, dir_, *info));
    report_.rows_in = info->value("rows_in", int64_t(0));
    report_.rows = info->value("rows", int64_t(0));
    report_.shards = info->value("count", int64_t(-1)) + 1;
    report_.format = info->value("format", "");
    report_.parts = info->value("parts", "");
    report_.unused_columns = info->value("dropped_columns", std::vector<std::string>());
    report_.dropped = info->value("dropped", std::map<std::string, int64_t>());
    report_.noted =
        info->value("ledger", Json::object()).value("noted", std::map<std::string, int64_t>());
    report_.digest = digest_of_info(*info);
    report_.complete = report_.up_to_date = true;
    return true;
  }

  /// From the first rows: which columns play which part, and which optional ones there will be.
  Result<> recognise() {
    LORRY_ASSIGN(rules_, find_standard_rules(*options_.bucket, options_.dataset, options_));
    columns_ = rules_.columns;
    report_.format = data::row_format_name(rules_.rules.format);
    report_.parts = data::describe_parts(rules_.rules);
    report_.unused_columns = rules_.unused_columns;
    return {};
  }

  /// What the rows of a shard that is done have told.
  Result<> learn(const Json& state) {
    columns_.add(OptionalColumns::from_json(state.value("needed", Json::array())));
    for (const auto& name : state.value("filled", Json::array())) filled_.insert(name);
    return {};
  }

  /// A column that few rows have is met late. The shard is then begun again with it, and shards
  /// that were written without it are at the end.
  Result<> write_shard(ShardWork& work, int64_t shard) {
    const int64_t before = rows_done_;
    LORRY_ASSIGN(bool done, adopt(work, shard));
    while (!done) {
      rows_done_ = before;
      LORRY_ASSIGN(done, try_shard(work, shard));
    }
    return {};
  }

  /// Takes over what the import has standardized (one_pass.h), if it was made of these raw rows
  /// with these options. False: there is nothing of the kind.
  Result<bool> adopt(ShardWork& work, int64_t shard) {
    const std::string dir = store::shard_dir(dir_, shard);
    LORRY_ASSIGN(const auto state, data::read_shard_state(*options_.bucket, dir));
    if (!state || !state->contains("ahead")) return false;
    LORRY_ASSIGN(const auto raw,
                 data::read_shard_state(*options_.bucket, store::shard_dir(raw_, shard)));
    if (!raw || !is_ahead_of(*state, options_, raw->value("key", ""))) return false;
    const Ledger ledger = Ledger::from_json(state->value("ledger", Json()));
    LORRY_ASSIGN(const bool known, refuse_again(work, ledger));
    if (!known) return false;
    warn_of_placeholders(ahead_placeholders(*state));
    LORRY_TRY(data::write_shard_state(*options_.bucket, dir,
                                      adopted_state(work.state(shard, ledger), *state)));
    LORRY_TRY(learn(*state));
    say_progress(ledger.read());
    LORRY_TRY(work.count_shard(ledger));
    return true;
  }

  /// Reports the malformed rows of an adopted shard, and fails if there are too many, as if this
  /// stage had read them. False: there are more than the ledger names.
  static Result<bool> refuse_again(ShardWork& work, const Ledger& ledger) {
    const auto malformed = ledger.reasons().find(data::kMalformed);
    if (malformed == ledger.reasons().end()) return true;
    if (malformed->second.rows != int64_t(malformed->second.named.size())) return false;
    Ledger again;
    for (const auto& row : malformed->second.named) LORRY_TRY(work.refuse(again, row));
    return true;
  }

  void say_progress(int64_t rows) {
    rows_done_ += rows;
    if (options_.progress) options_.progress(rows_done_, rows_total_);
  }

  /// False, and `columns_` wider, if rows of the shard need a column that it was begun without.
  Result<bool> try_shard(ShardWork& work, int64_t shard) {
    const OptionalColumns columns = columns_;
    LORRY_ASSIGN(const auto rows,
                 data::ShardStream::open(*options_.bucket, store::shard_dir(raw_, shard)));
    LORRY_ASSIGN(const auto made, StandardShard::create(options_.bucket, options_.dataset, shard,
                                                        rules_.rules, columns));
    const auto refuse = [&work](Ledger& ledger, Ledger::Named row) {
      return work.refuse(ledger, std::move(row));
    };
    const auto work_on = [&](const RowPiece& piece) { return made->standardize(piece); };
    const auto use = [&](StandardPiece piece) -> Result<bool> {
      const int64_t read = piece.rows;
      LORRY_ASSIGN(const bool whole, made->add(std::move(piece), refuse));
      columns_.add(made->needed());
      if (!whole) return false;
      warn_of_placeholders(made->placeholders());
      say_progress(read);
      return true;
    };
    LORRY_TRY(each_piece<StandardPiece>(*rows, limits_, work_on, use));
    if (columns_ != columns) return false;
    Json state = work.state(shard, made->ledger());
    state.update(made->state());
    auto writer = made->take_writer();
    writer->set_state(state);
    filled_.insert(made->filled().begin(), made->filled().end());
    LORRY_TRY(work.finish_shard(std::move(writer), made->ledger()));
    return true;
  }

  void warn_of_placeholders(const std::set<std::string>& names) {
    for (const auto& name : names) {
      if (warned_.size() >= kNamedPlaceholders || !warned_.insert(name).second) continue;
      log::warn("the rows hold {{{{{}}}}}, which stays as it is; --set {}=VALUE fills it", name,
                name);
    }
  }

  /// If every shard is there: those without a column that others need are written again (by their
  /// nodes, or without `wait` by whoever comes last), and info.json is written.
  Result<> complete(ShardWork& work) {
    report_.shards = shards_;
    while (true) {
      std::vector<int64_t> shard_rows, todo;
      std::vector<std::pair<int64_t, OptionalColumns>> written;
      LORRY_ASSIGN(const auto missing, work.collect([&](int64_t shard, const Json& state) {
        shard_rows.push_back(state.value("rows", int64_t(0)));
        written.emplace_back(shard,
                             OptionalColumns::from_json(state.value("columns", Json::array())));
        return learn(state);
      }));
      report_.rows_in = work.ledger().read();
      report_.rows = work.ledger().kept();
      report_.dropped = work.ledger().summary()["dropped"].get<std::map<std::string, int64_t>>();
      report_.noted = work.ledger().summary()["noted"].get<std::map<std::string, int64_t>>();
      report_.missing = int64_t(missing.size());
      const bool others_are_at_it = options_.wait && options_.world_size > 1;
      if (!missing.empty() && !others_are_at_it) return {};
      for (const auto& [shard, columns] : written) {
        if (columns != columns_) todo.push_back(shard);
      }
      if (!todo.empty()) {
        log::info("{}: {} shards again, with the column{} that later rows have", dir_, todo.size(),
                  columns_.to_json().size() == 1 ? "" : "s");
      }
      // Those that another node is just widening are missing for a moment.
      todo.insert(todo.end(), missing.begin(), missing.end());
      if (todo.empty()) return finish(work, shard_rows);
      work.again(todo, [this](const Json& state) {
        return OptionalColumns::from_json(state.value("columns", Json::array())) == columns_;
      });
      LORRY_TRY(write_shards(work));
    }
  }

  Result<> finish(ShardWork& work, const std::vector<int64_t>& shard_rows) {
    for (const auto& [name, value] : options_.placeholders) {
      if (!filled_.contains(name)) log::warn("--set {}: no row holds {{{{{}}}}}", name, name);
    }
    if (report_.rows == 0) {
      std::string reasons;
      for (const auto& [reason, n] : report_.dropped) {
        reasons += fmt::format("{}{}: {}", reasons.empty() ? "" : ", ", reason, n);
      }
      return invalid_input(fmt::format("{}: no row is left to train on ({})", dir_, reasons));
    }
    Json info;
    if (!imported_on_.empty()) info["imported_on"] = imported_on_;
    info["count"] = shards_ - 1;
    info["rows"] = report_.rows;
    info["rows_in"] = report_.rows_in;
    info["shard_rows"] = shard_rows;
    info["dropped"] = report_.dropped;
    info["format"] = report_.format;
    info["parts"] = report_.parts;
    info["dropped_columns"] = report_.unused_columns;
    info["columns"] =
        data::features_from_schema(*data::standard_schema(rules_.rules.format, columns_));
    info["inputs"] = inputs_;
    info["lorry_version"] = kVersion;
    LORRY_ASSIGN(report_.digest, work.finish(std::move(info)));
    report_.complete = true;
    return {};
  }

  StandardizeOptions options_;  ///< `bucket` becomes the claim's
  const std::string raw_, dir_;
  const PieceLimits limits_;
  int64_t shards_ = 0, rows_total_ = 0, rows_done_ = 0;
  Json inputs_;
  std::string imported_on_;
  StandardRules rules_;
  OptionalColumns columns_;  ///< as far as is known
  std::set<std::string> filled_, warned_;
  StandardizeReport report_;
};

}  // namespace

Result<StandardizeReport> standardize(const StandardizeOptions& options) {
  const auto start = std::chrono::steady_clock::now();
  LORRY_ASSIGN(auto report, Standardization(options).run());
  report.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return report;
}

}  // namespace lorry::stages
