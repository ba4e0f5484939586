#include <arrow/record_batch.h>
#include <arrow/type.h>
#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <deque>
#include <future>

#include "base/cancel.h"
#include "data/text_format.h"

namespace lorry::data {

Result<> Window::fill(size_t size) {
  while (end_ - begin_ < size && !at_end_) {
    if (begin_ > 0) {
      std::memmove(buffer_.data(), buffer_.data() + begin_, end_ - begin_);
      end_ -= begin_;
      begin_ = 0;
    }
    if (buffer_.size() < size) buffer_.resize(size);
    LORRY_ASSIGN(const int64_t got,
                 source_->read(buffer_.data() + end_, int64_t(buffer_.size() - end_)));
    at_end_ = got == 0;
    end_ += size_t(got);
  }
  return {};
}

std::string Window::take(size_t size) {
  std::string out;
  out.reserve(size + kBlockPadding);
  out.assign(buffer_.data() + begin_, size);
  out.append(kBlockPadding, '\0');
  drop(size);
  return out;
}

void Window::drop(size_t size) {
  begin_ += size;
  offset_ += int64_t(size);
}

Error row_too_long(const std::string& path, int64_t line) {
  return unsupported(fmt::format("{}: line {}: a row of more than {} MB cannot be imported", path,
                                 line, kMaxRowBytes >> 20));
}

namespace {

class TextReader final : public Reader {
 public:
  TextReader(std::unique_ptr<TextFormat> format, std::vector<SourceFile> files, ReadOptions options)
      : format_(std::move(format)), files_(std::move(files)), options_(std::move(options)) {
    done_before_.push_back(0);
    for (const auto& file : files_) done_before_.push_back(done_before_.back() + file.size);
  }

  Result<> scan() override {
    LORRY_TRY(seek(Place()));
    using Task = std::pair<std::shared_ptr<Block>, std::future<std::unique_ptr<Observation>>>;
    std::deque<Task> tasks;
    int64_t rows = 0;
    while (true) {
      LORRY_TRY(check_cancelled());
      LORRY_ASSIGN(auto block, next_block());
      if (block) {
        auto shared = std::make_shared<Block>(std::move(*block));
        tasks.emplace_back(shared, std::async(std::launch::async, [this, shared] {
                             return format_->observe(*shared);
                           }));
      }
      if (tasks.empty()) break;
      if (block && tasks.size() <= size_t(options_.threads)) continue;
      auto observation = tasks.front().second.get();
      LORRY_TRY(account(*observation, *tasks.front().first));
      LORRY_TRY(format_->merge(*observation, *tasks.front().first));
      rows += observation->rows;
      if (options_.on_scan) options_.on_scan(rows, tasks.front().first->bytes_done);
      tasks.pop_front();
    }
    if (rows == 0) return no_rows(files_);
    LORRY_ASSIGN(schema_, format_->schema().with_context(files_[0].path));
    return seek(Place());
  }

  void set_schema(std::shared_ptr<arrow::Schema> schema) override { schema_ = std::move(schema); }
  std::shared_ptr<arrow::Schema> schema() const override { return schema_; }
  int64_t bad_rows() const override { return bad_rows_; }

  Result<> seek(const Place& place) override {
    converting_.clear();
    splitter_.reset();
    place_ = place;
    return {};
  }

  Result<std::optional<Batch>> next() override {
    while (true) {
      LORRY_ASSIGN(auto block, next_block());
      if (block) {
        auto shared = std::make_shared<Block>(std::move(*block));
        converting_.emplace_back(shared, std::async(std::launch::async, [this, shared] {
                                   return format_->convert(*shared, schema_);
                                 }));
        if (converting_.size() <= size_t(options_.threads)) continue;
      }
      if (converting_.empty()) return std::optional<Batch>();
      auto [source, future] = std::move(converting_.front());
      converting_.pop_front();
      LORRY_ASSIGN(auto converted, future.get());
      return std::optional<Batch>(Batch{converted.rows, source->begin, source->bytes_done});
    }
  }

 private:
  Result<> account(const Observation& observation, const Block& block) {
    for (const auto& bad : observation.bad) {
      const std::string message = fmt::format("{}: line {}: {}", *block.path, bad.line, bad.what);
      if (++bad_rows_ > options_.skip_bad_rows) {
        if (options_.skip_bad_rows == 0) return invalid_input(message);
        return invalid_input(fmt::format("{} (bad row {}, --skip-bad-rows tolerates {})", message,
                                         bad_rows_, options_.skip_bad_rows));
      }
      if (options_.on_bad_row) options_.on_bad_row(message);
    }
    return {};
  }

  Result<std::optional<Block>> next_block() {
    while (place_.file < int64_t(files_.size())) {
      const SourceFile& file = files_[size_t(place_.file)];
      if (!splitter_) {
        LORRY_ASSIGN(splitter_, format_->split(file, place_, options_.block_bytes));
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

  std::unique_ptr<TextFormat> format_;
  std::vector<SourceFile> files_;
  ReadOptions options_;
  std::vector<int64_t> done_before_;  ///< stored bytes of the files before each
  std::shared_ptr<arrow::Schema> schema_;
  int64_t bad_rows_ = 0;
  Place place_;
  std::unique_ptr<BlockSplitter> splitter_;
  std::deque<std::pair<std::shared_ptr<Block>, std::future<Result<Converted>>>> converting_;
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
  }
  return unsupported("unknown format");
}

}  // namespace lorry::data
