// Parquet and Arrow (IPC stream or file) as batches in the types of shards: schemas are in the
// files, row groups are decoded in parallel, each a bounded piece at a time.
#include <arrow/record_batch.h>
#include <arrow/type.h>
#include <arrow/util/byte_size.h>

#include <algorithm>
#include <deque>
#include <new>  // bad_alloc
#include <nlohmann/json.hpp>

#include "base/cancel.h"
#include "data/column_types.h"
#include "data/columnar_file.h"
#include "data/ordered_work.h"
#include "data/text_format.h"

namespace lorry::data {
namespace {

/// A piece of a row group: batches that conform and are checked through.
struct Piece {
  arrow::RecordBatchVector batches;
  bool at_end = false;  ///< of the group
};

/// A row group, or another part of a file, decoded piece by piece by one thread at a time.
struct Group {
  std::shared_ptr<ColumnarFile> file;
  std::string path;
  int64_t file_index = 0;
  int64_t index = 0;  ///< in the file
  std::unique_ptr<GroupBatches> batches;
  std::future<Result<Piece>> piece;  ///< the one that is being decoded

  Result<Piece> decode(int64_t bytes, const std::shared_ptr<arrow::Schema>& schema) {
    if (!batches) {
      LORRY_ASSIGN(batches, file->read_group(index));
    }
    Piece piece;
    while (bytes > 0) {
      LORRY_ASSIGN(const auto rows, batches->next());
      if (!rows) {
        piece.at_end = true;
        batches.reset();
        return piece;
      }
      if (rows->num_rows() == 0) continue;
      LORRY_ASSIGN(auto conformed, conform(*rows, schema).with_context(path));
      bytes -= arrow::util::ReferencedBufferSize(*conformed).ValueOr(1 << 20);
      piece.batches.push_back(std::move(conformed));
    }
    return piece;
  }
};

class ColumnarReader final : public Reader {
 public:
  ColumnarReader(std::vector<SourceFile> files, ReadOptions options)
      : files_(std::move(files)),
        options_(std::move(options)),
        piece_bytes_(std::clamp<int64_t>(options_.memory / 8, 1 << 20, 64 << 20)) {
    done_before_.push_back(0);
    bool remote = false;
    for (const auto& file : files_) {
      done_before_.push_back(done_before_.back() + file.size);
      remote |= file.remote;
    }
    // Footers of remote files are waited for, not worked at.
    opening_ = std::make_unique<OrderedWork<Opened>>(remote ? 8 : options_.threads);
    decoding_ = std::make_unique<OrderedWork<Result<Piece>>>(options_.threads);
  }

  Result<> begin() override { return scan(); }

  /// Opens every file: one that is damaged, or has a column of another type, stops the import at
  /// once.
  Result<> scan() override {
    bool has_rows = false;
    size_t asked = 0;
    schema_.reset();
    for (size_t i = 0; i < files_.size(); ++i) {
      LORRY_TRY(check_cancelled());
      for (; asked < files_.size() && asked < i + 16; ++asked) {
        opening_->push([this, file = &files_[asked]] { return open(*file); });
      }
      LORRY_ASSIGN(const auto file, pop(*opening_));
      LORRY_TRY(take_schema(files_[i], *file));
      LORRY_ASSIGN(const auto rows, file->group_rows(options_.count_rows));
      for (size_t group = 0; group < rows.size(); ++group) {
        has_rows |= rows[group] > 0;
        if (options_.on_scan) {
          options_.on_scan(Place{int64_t(i), int64_t(group)}, rows[group], done_before_[i]);
        }
      }
    }
    if (!has_rows || schema_->num_fields() == 0) return no_rows(files_);
    return {};
  }

  std::shared_ptr<arrow::Schema> schema() const override { return schema_; }
  int64_t bad_rows() const override { return 0; }
  Json state() const override { return Json::object(); }
  Result<> restore(const Json&) override { return scan(); }

  Result<> seek(const Place& place) override {
    decoding_->clear();
    groups_.clear();
    ready_.clear();
    file_.reset();
    next_ = Place{place.file, place.offset};
    at_ = Place{-1};
    skip_group_ = next_;
    skip_ = place.row;
    return {};
  }

  Result<std::optional<Batch>> next() override {
    while (true) {
      if (!ready_.empty()) {
        auto rows = std::move(ready_.front());
        ready_.pop_front();
        row_ += rows->num_rows();
        const bool sought = at_.file == skip_group_.file && at_.offset == skip_group_.offset;
        if (sought && row_ <= skip_) continue;
        if (sought && row_ - rows->num_rows() < skip_)
          rows = rows->Slice(skip_ - (row_ - rows->num_rows()));
        const Place begin{at_.file, at_.offset, 1, row_ - rows->num_rows()};
        return std::optional<Batch>(Batch{std::move(rows), begin, bytes_done_});
      }
      LORRY_TRY(decode_ahead());
      if (groups_.empty()) return std::optional<Batch>();
      LORRY_TRY(take_piece());
    }
  }

 private:
  using Opened = Result<std::shared_ptr<ColumnarFile>>;

  Opened open(const SourceFile& file) const { return ColumnarFile::open(file, options_.memory); }

  template <typename T>
  static T pop(OrderedWork<T>& work) {
    try {
      return work.pop();
    } catch (const std::bad_alloc&) {
      return unavailable("out of memory while rows were read; give a smaller --memory");
    }
  }

  /// The data set has the columns of all its files.
  Result<> take_schema(const SourceFile& file, const ColumnarFile& opened) {
    LORRY_ASSIGN(auto schema, shard_schema(*opened.schema()).with_context(file.path));
    if (!schema_) {
      schema_ = std::move(schema);
    } else if (!schema_->Equals(*schema)) {
      LORRY_ASSIGN(schema_, merge_schemas(*schema_, *schema).with_context(file.path));
    }
    return {};
  }

  /// The group after the last one that was begun; null at the end.
  Result<std::shared_ptr<Group>> next_group() {
    while (next_.file < int64_t(files_.size())) {
      if (!file_) {
        LORRY_ASSIGN(file_, open(files_[size_t(next_.file)]));
      }
      if (next_.offset < file_->groups()) {
        auto group = std::make_shared<Group>();
        group->file = file_;
        group->path = files_[size_t(next_.file)].path;
        group->file_index = next_.file;
        group->index = next_.offset++;
        return group;
      }
      file_.reset();
      next_ = Place{next_.file + 1};
    }
    return std::shared_ptr<Group>();
  }

  /// Begins the next piece of `group`.
  void decode_more(const std::shared_ptr<Group>& group, bool first_in_line) {
    group->piece = decoding_->submit(
        [group, bytes = piece_bytes_, schema = schema_] { return group->decode(bytes, schema); },
        first_in_line);
  }

  /// Keeps a piece of each of some groups on its way: those after the first wait for their turn
  /// with one piece, which is all of most groups.
  Result<> decode_ahead() {
    while (groups_.size() < size_t(options_.threads) + 1) {
      LORRY_ASSIGN(auto group, next_group());
      if (!group) return {};
      decode_more(group, false);
      groups_.push_back(std::move(group));
    }
    return {};
  }

  /// The next piece of the first group, into `ready_`.
  Result<> take_piece() {
    const auto group = groups_.front();
    if (group->file_index != at_.file || group->index != at_.offset) {
      at_ = Place{group->file_index, group->index};
      row_ = 0;
    }
    LORRY_ASSIGN(auto piece, settled(group->piece));
    if (piece.at_end) {
      groups_.pop_front();
    } else {
      decode_more(group, true);
    }
    const auto file = size_t(group->file_index);
    bytes_done_ = done_before_[file] + files_[file].size * group->index / group->file->groups();
    for (auto& batch : piece.batches) ready_.push_back(std::move(batch));
    return {};
  }

  static Result<Piece> settled(std::future<Result<Piece>>& piece) {
    try {
      return piece.get();
    } catch (const std::bad_alloc&) {
      return unavailable("out of memory while rows were read; give a smaller --memory");
    }
  }

  std::vector<SourceFile> files_;
  ReadOptions options_;
  const int64_t piece_bytes_;
  std::vector<int64_t> done_before_;
  std::shared_ptr<arrow::Schema> schema_;

  Place next_;  ///< the group to begin next
  std::shared_ptr<ColumnarFile> file_;
  std::deque<std::shared_ptr<Group>> groups_;  ///< begun, in order
  std::deque<std::shared_ptr<arrow::RecordBatch>> ready_;
  Place at_{-1};      ///< the group of `ready_`
  int64_t row_ = 0;   ///< of that group, after the batches that were given
  Place skip_group_;  ///< the group that was sought
  int64_t skip_ = 0;  ///< its rows before the place
  int64_t bytes_done_ = 0;
  // Last, so that their threads end first.
  std::unique_ptr<OrderedWork<Opened>> opening_;
  std::unique_ptr<OrderedWork<Result<Piece>>> decoding_;
};

}  // namespace

std::unique_ptr<Reader> make_columnar_reader(std::vector<SourceFile> files, ReadOptions options) {
  return std::make_unique<ColumnarReader>(std::move(files), std::move(options));
}

}  // namespace lorry::data
