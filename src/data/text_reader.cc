#include <arrow/record_batch.h>
#include <arrow/type.h>
#include <fmt/format.h>

#include <algorithm>
#include <deque>
#include <new>  // bad_alloc
#include <nlohmann/json.hpp>

#include "base/cancel.h"
#include "data/ordered_work.h"
#include "data/text_format.h"

namespace lorry::data {

Error row_too_long(const std::string& path, int64_t line) {
  return unsupported(fmt::format("{}: line {}: a row of more than {} MB cannot be imported", path,
                                 line, kMaxRowBytes >> 20));
}

namespace {

/// A guess looks at this many blocks of this size, spread over the files.
constexpr int64_t kSampleBytes = 256 << 10;
constexpr int64_t kSamples = 8;
/// A row that does not fit the guess sends the reader back at once if it came before this part of
/// the source; later, the rest is looked at first, so that the source is read twice at most.
constexpr int64_t kEarlyPart = 8;
constexpr int kEarlyTries = 6;

/// A block and what was made of it.
template <typename T>
struct Work {
  std::shared_ptr<Block> block;
  Result<T> result;
};

class TextReader final : public Reader {
 public:
  TextReader(std::unique_ptr<TextFormat> format, std::vector<SourceFile> files, ReadOptions options)
      : seen_(std::move(format)),
        files_(std::move(files)),
        options_(std::move(options)),
        observing_(options_.threads),
        converting_(options_.threads) {
    done_before_.push_back(0);
    for (const auto& file : files_) done_before_.push_back(done_before_.back() + file.size);
  }

  Result<> scan() override {
    LORRY_TRY(restart());
    LORRY_TRY(observe_rest());
    return take_schema(seen_->fresh());
  }

  Result<> begin() override {
    auto guess = seen_->fresh();
    size_t begun = 0;  // files whose begin was looked at
    for (int64_t i = 0; i < kSamples; ++i) {
      LORRY_TRY(check_cancelled());
      LORRY_TRY(look_at(done_before_.back() / kSamples * i, *guess, begun));
    }
    LORRY_TRY(restart());
    const auto schema = guess->schema();
    if (!schema.ok() || (*schema)->num_fields() == 0)
      return scan();  // a file that begins with no rows
    guess_ = std::move(guess);
    schema_ = *schema;
    return {};
  }

  std::shared_ptr<arrow::Schema> schema() const override { return schema_; }
  int64_t bad_rows() const override { return bad_rows_; }

  Result<> seek(const Place& place) override {
    clear();
    place_ = place;
    return {};
  }

  Result<std::optional<Batch>> next() override {
    LORRY_TRY(take_in_last());
    if (misfit_) return std::optional<Batch>();
    while (true) {
      LORRY_ASSIGN(auto work, next_work(converting_, [this](const Block& block) {
                     return guess_->convert(block, schema_);
                   }));
      if (!work) return std::optional<Batch>();
      LORRY_ASSIGN(auto converted, std::move(work->result));
      if (!exact_) LORRY_TRY(account(*converted.seen, *work->block));
      work->block->buffer.reset();
      last_block_ = work->block;
      last_seen_ = std::move(converted.seen);
      bytes_done_ = work->block->bytes_done;
      if (!converted.rows) {
        LORRY_TRY(take_in_last());
        misfit_ = true;
        return std::optional<Batch>();
      }
      if (converted.rows->num_rows() == 0) {
        LORRY_TRY(take_in_last());
        continue;
      }
      return std::optional<Batch>(Batch{converted.rows, work->block->begin, bytes_done_});
    }
  }

  bool is_settled() const override {
    if (misfit_) return false;
    const auto all = seen_->schema();
    return exact_ || !all.ok() || (*all)->Equals(*schema_, /*check_metadata=*/false);
  }

  Result<> settle() override {
    const bool early =
        misfit_ && tries_ < kEarlyTries && bytes_done_ < done_before_.back() / kEarlyPart;
    if (early) {
      ++tries_;
      clear();
      auto wider = seen_->fresh();
      wider->merge(*seen_);
      wider->merge(*guess_);
      LORRY_ASSIGN(schema_, wider->schema().with_context(files_[0].path));
      guess_ = std::move(wider);
      LORRY_TRY(restart());
    } else {
      if (misfit_) LORRY_TRY(observe_waiting());
      if (misfit_) LORRY_TRY(observe_rest());
      LORRY_TRY(take_schema(seen_->fresh()));
    }
    return {};
  }

  Json state() const override {
    return Json{
        {"guess", guess_->to_json()},
        {"seen", seen_->to_json()},
        {"exact", exact_},
        {"bad_rows", bad_rows_ - (last_seen_ && !exact_ ? int64_t(last_seen_->bad.size()) : 0)},
        {"reported", reported_}};
  }

  Result<> restore(const Json& state) override {
    const Error wrong = corrupt_data("not the state of a reader of text");
    if (!state.is_object() || !state.contains("guess") || !state.contains("seen")) return wrong;
    auto guess = seen_->fresh();
    LORRY_TRY(guess->from_json(state["guess"]));
    LORRY_ASSIGN(schema_, guess->schema());
    guess_ = std::move(guess);
    LORRY_TRY(seen_->from_json(state["seen"]));
    exact_ = state.value("exact", false);
    bad_rows_ = state.value("bad_rows", int64_t(0));
    reported_ = state.value("reported", int64_t(0));
    return {};
  }

 private:
  using Observed = Result<std::unique_ptr<Observation>>;

  Result<> restart() {
    clear();  // threads that are at work use what is replaced
    seen_ = seen_->fresh();
    bad_rows_ = rows_seen_ = 0;
    return seek(Place());
  }

  void clear() {
    observing_.clear();
    converting_.clear();
    waiting_.clear();
    splitter_.reset();
    last_seen_.reset();
    last_block_.reset();
    misfit_ = false;
    bytes_done_ = 0;
  }

  /// The block at about `offset` of all stored bytes, into `guess`.
  Result<> look_at(int64_t offset, TextFormat& guess, size_t& begun) {
    const auto after = std::upper_bound(done_before_.begin(), done_before_.end(), offset);
    const size_t at = std::min(size_t(after - done_before_.begin()) - 1, files_.size() - 1);
    const SourceFile& file = files_[at];
    LORRY_ASSIGN(auto block, guess.sample(file, offset - done_before_[at], kSampleBytes));
    if (!block && at >= begun) {
      LORRY_ASSIGN(block, guess.sample(file, 0, kSampleBytes));
    }
    begun = at + 1;
    if (!block) return {};
    block->path = &file.path;
    return guess.merge(*guess.observe(*block), *block);
  }

  /// All that `seen_` knows is the schema from now on.
  Result<> take_schema(std::unique_ptr<TextFormat> all) {
    if (rows_seen_ == 0) return no_rows(files_);
    all->merge(*seen_);
    clear();
    LORRY_ASSIGN(schema_, all->schema().with_context(files_[0].path));
    guess_ = std::move(all);
    exact_ = true;
    return seek(Place());
  }

  /// Looks at what is left of the source without converting it.
  Result<> observe_rest() {
    while (true) {
      LORRY_TRY(check_cancelled());
      LORRY_ASSIGN(auto work, next_work(observing_, [this](const Block& block) -> Observed {
                     return seen_->observe(block);
                   }));
      if (!work) return {};
      LORRY_ASSIGN(const auto seen, std::move(work->result));
      LORRY_TRY(account(*seen, *work->block));
      LORRY_TRY(seen_->merge(*seen, *work->block));
      rows_seen_ += seen->rows;
      if (options_.on_scan)
        options_.on_scan(work->block->begin, seen->rows, work->block->bytes_done);
    }
  }

  /// Blocks that were on their way when one did not fit: each tells what it saw, fit or not.
  Result<> observe_waiting() {
    while (!converting_.empty()) {
      LORRY_ASSIGN(auto converted, pop(converting_));
      const auto block = std::move(waiting_.front());
      waiting_.pop_front();
      LORRY_TRY(account(*converted.seen, *block));
      LORRY_TRY(seen_->merge(*converted.seen, *block));
      rows_seen_ += converted.seen->rows;
    }
    return {};
  }

  Result<> take_in_last() {
    if (!last_seen_) return {};
    const auto seen = std::move(last_seen_);
    if (!exact_) LORRY_TRY(seen_->merge(*seen, *last_block_));
    rows_seen_ += seen->rows;
    last_block_.reset();
    return {};
  }

  static Error out_of_memory() {
    return unavailable("out of memory while rows were read; give a smaller --memory");
  }

  template <typename T>
  static Result<T> pop(OrderedWork<Result<T>>& work) {
    try {
      return work.pop();
    } catch (const std::bad_alloc&) {
      return out_of_memory();
    }
  }

  /// Keeps the threads at work and gives the oldest block that is done.
  template <typename T, typename Do>
  Result<std::optional<Work<T>>> next_work(OrderedWork<Result<T>>& threads, Do what) {
    while (may_go_ahead()) {
      LORRY_ASSIGN(auto block, guarded_block());
      if (!block) break;
      auto shared = std::make_shared<Block>(std::move(*block));
      waiting_.push_back(shared);
      threads.push([shared, what]() -> Result<T> { return what(*shared); });
    }
    if (waiting_.empty()) return std::optional<Work<T>>();
    auto result = pop(threads);
    auto block = std::move(waiting_.front());
    waiting_.pop_front();
    return std::optional<Work<T>>(Work<T>{std::move(block), std::move(result)});
  }

  /// A block is held as text, as columns, and for a while as a parsed document.
  bool may_go_ahead() const {
    if (waiting_.size() > size_t(options_.threads) * 2) return false;
    int64_t held = 0;
    for (const auto& block : waiting_) held += int64_t(block->size);
    return held + options_.block_bytes <= std::max(options_.memory / 8, options_.block_bytes);
  }

  Result<> account(const Observation& observation, const Block& block) {
    for (const auto& bad : observation.bad) {
      const std::string message = fmt::format("{}: line {}: {}", *block.path, bad.line, bad.what);
      if (++bad_rows_ > options_.skip_bad_rows) {
        if (options_.skip_bad_rows == 0) return invalid_input(message);
        return invalid_input(fmt::format("{} (bad row {}, --skip-bad-rows tolerates {})", message,
                                         bad_rows_, options_.skip_bad_rows));
      }
      // Not again when rows are read again.
      if (bad_rows_ <= reported_) continue;
      reported_ = bad_rows_;
      if (options_.on_bad_row) options_.on_bad_row(BadRow{*block.path, bad.line, bad.what});
    }
    return {};
  }

  Result<std::optional<Block>> guarded_block() {
    try {
      return next_block();
    } catch (const std::bad_alloc&) {
      return out_of_memory();
    }
  }

  Result<std::optional<Block>> next_block() {
    while (place_.file < int64_t(files_.size())) {
      const SourceFile& file = files_[size_t(place_.file)];
      if (!splitter_) {
        LORRY_ASSIGN(splitter_, seen_->split(file, place_, options_.block_bytes));
      }
      LORRY_ASSIGN(auto block, splitter_->next());
      if (block) {
        block->begin.file = place_.file;
        block->path = &file.path;
        block->bytes_done += done_before_[size_t(place_.file)];
        return block;
      }
      splitter_.reset();
      place_ = Place{place_.file + 1};
    }
    return std::optional<Block>();
  }

  std::unique_ptr<TextFormat> seen_;   ///< the rows before those of `last_seen_`
  std::unique_ptr<TextFormat> guess_;  ///< what `schema_` was made of; fixed while threads convert
  std::vector<SourceFile> files_;
  ReadOptions options_;
  std::vector<int64_t> done_before_;  ///< stored bytes of the files before each
  std::shared_ptr<arrow::Schema> schema_;
  bool exact_ = false;   ///< `schema_` is that of all rows
  bool misfit_ = false;  ///< `next` met a row that does not fit
  int tries_ = 0;
  int64_t bad_rows_ = 0;
  int64_t reported_ = 0;  ///< of the bad rows, by on_bad_row
  int64_t rows_seen_ = 0;
  int64_t bytes_done_ = 0;
  Place place_;
  std::unique_ptr<BlockSplitter> splitter_;
  std::deque<std::shared_ptr<Block>> waiting_;  ///< blocks of the tasks, in order
  std::shared_ptr<Block> last_block_;
  std::unique_ptr<Observation> last_seen_;
  OrderedWork<Observed> observing_;
  OrderedWork<Result<Converted>> converting_;
};

}  // namespace

std::unique_ptr<Reader> make_text_reader(std::unique_ptr<TextFormat> format,
                                         std::vector<SourceFile> files, ReadOptions options) {
  return std::make_unique<TextReader>(std::move(format), std::move(files), std::move(options));
}

Error no_rows(const std::vector<SourceFile>& files) {
  std::string names = files[0].path;
  if (files.size() > 1) names += fmt::format(" and {} more files", files.size() - 1);
  return invalid_input(fmt::format("{}: no rows; the data set is empty", names));
}

Result<std::unique_ptr<Reader>> open_reader(std::vector<SourceFile> files, ReadOptions options) {
  if (files.empty()) return invalid_input("no files to read");
  options.threads = std::max(1, options.threads);
  switch (files[0].format) {
    case Format::kJson:
      return make_text_reader(make_json_format(), std::move(files), std::move(options));
    case Format::kCsv:
      return make_text_reader(make_csv_format(','), std::move(files), std::move(options));
    case Format::kTsv:
      return make_text_reader(make_csv_format('\t'), std::move(files), std::move(options));
    case Format::kParquet:
    case Format::kArrow:
      return make_columnar_reader(std::move(files), std::move(options));
    case Format::kArchive:
      break;  // its members are read
  }
  return unsupported("unknown format");
}

}  // namespace lorry::data
