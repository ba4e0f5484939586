// Parquet and Arrow (IPC stream or file): schemas are in the files, batches are passed on.
#include <arrow/array.h>
#include <arrow/compute/cast.h>
#include <arrow/io/interfaces.h>
#include <arrow/ipc/reader.h>
#include <arrow/record_batch.h>
#include <arrow/type.h>
#include <fmt/format.h>
#include <parquet/arrow/reader.h>
#include <parquet/exception.h>
#include <parquet/properties.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/cancel.h"
#include "data/text_format.h"
#include "store/arrow_error.h"

namespace lorry::data {
namespace {

constexpr int64_t kRowsPerBatch = 1000;

/// The batches of one file. Not thread-safe.
class FileBatches {
 public:
  virtual ~FileBatches() = default;
  virtual std::shared_ptr<arrow::Schema> schema() const = 0;
  virtual arrow::Result<std::shared_ptr<arrow::RecordBatch>> next() = 0;  ///< null at the end
};

class ParquetBatches final : public FileBatches {
 public:
  static arrow::Result<std::unique_ptr<FileBatches>> open(
      std::shared_ptr<arrow::io::RandomAccessFile> file) {
    auto batches = std::make_unique<ParquetBatches>();
    parquet::ReaderProperties properties;
    properties.enable_buffered_stream();  // pages as they come, not whole column chunks
    properties.set_buffer_size(256 << 10);
    parquet::ArrowReaderProperties arrow_properties;
    arrow_properties.set_batch_size(kRowsPerBatch);
    arrow_properties.set_pre_buffer(false);
    // Storage types only. It also keeps libparquet from parsing JSON (the reference systems of
    // geometry columns), which it would do through our simdjson; docs/dependencies.md.
    arrow_properties.set_arrow_extensions_enabled(false);
    parquet::arrow::FileReaderBuilder builder;
    ARROW_RETURN_NOT_OK(builder.Open(std::move(file), properties));
    builder.properties(arrow_properties);
    ARROW_RETURN_NOT_OK(builder.Build(&batches->reader_));
    ARROW_ASSIGN_OR_RAISE(batches->batches_, batches->reader_->GetRecordBatchReader());
    return batches;
  }
  std::shared_ptr<arrow::Schema> schema() const override { return batches_->schema(); }
  arrow::Result<std::shared_ptr<arrow::RecordBatch>> next() override {
    std::shared_ptr<arrow::RecordBatch> batch;
    ARROW_RETURN_NOT_OK(batches_->ReadNext(&batch));
    return batch;
  }

 private:
  std::unique_ptr<parquet::arrow::FileReader> reader_;
  std::shared_ptr<arrow::RecordBatchReader> batches_;
};

class ArrowBatches final : public FileBatches {
 public:
  static arrow::Result<std::unique_ptr<FileBatches>> open(
      std::shared_ptr<arrow::io::RandomAccessFile> file) {
    auto batches = std::make_unique<ArrowBatches>();
    ARROW_ASSIGN_OR_RAISE(auto magic, file->ReadAt(0, 6));
    ARROW_RETURN_NOT_OK(file->Seek(0));
    if (magic->ToString() == "ARROW1") {
      ARROW_ASSIGN_OR_RAISE(batches->file_, arrow::ipc::RecordBatchFileReader::Open(file));
    } else {
      ARROW_ASSIGN_OR_RAISE(batches->stream_, arrow::ipc::RecordBatchStreamReader::Open(file));
    }
    return batches;
  }
  std::shared_ptr<arrow::Schema> schema() const override {
    return file_ ? file_->schema() : stream_->schema();
  }
  arrow::Result<std::shared_ptr<arrow::RecordBatch>> next() override {
    if (file_) {
      if (at_ == file_->num_record_batches()) return nullptr;
      return file_->ReadRecordBatch(at_++);
    }
    std::shared_ptr<arrow::RecordBatch> batch;
    ARROW_RETURN_NOT_OK(stream_->ReadNext(&batch));
    return batch;
  }

 private:
  std::shared_ptr<arrow::ipc::RecordBatchFileReader> file_;
  std::shared_ptr<arrow::ipc::RecordBatchStreamReader> stream_;
  int at_ = 0;
};

std::shared_ptr<arrow::DataType> shard_type(const std::shared_ptr<arrow::DataType>& type);

std::shared_ptr<arrow::Field> inner_field(const std::shared_ptr<arrow::Field>& field) {
  return field->WithType(shard_type(field->type()));
}

/// Types that shards do not hold (`datasets` has no feature for them) as those that stand for them.
std::shared_ptr<arrow::DataType> shard_type(const std::shared_ptr<arrow::DataType>& type) {
  switch (type->id()) {
    case arrow::Type::DICTIONARY:
      return shard_type(static_cast<const arrow::DictionaryType&>(*type).value_type());
    case arrow::Type::STRING_VIEW:
      return arrow::utf8();
    case arrow::Type::BINARY_VIEW:
      return arrow::binary();
    case arrow::Type::LIST:
      return arrow::list(inner_field(type->field(0)));
    case arrow::Type::LARGE_LIST:
      return arrow::large_list(inner_field(type->field(0)));
    case arrow::Type::STRUCT: {
      arrow::FieldVector fields;
      for (const auto& field : type->fields()) fields.push_back(inner_field(field));
      return arrow::struct_(std::move(fields));
    }
    default:
      return type;
  }
}

std::shared_ptr<arrow::Schema> shard_schema(const arrow::Schema& schema) {
  arrow::FieldVector fields;
  for (const auto& field : schema.fields()) {
    fields.push_back(arrow::field(field->name(), shard_type(field->type())));
  }
  return arrow::schema(std::move(fields));
}

class ColumnarReader final : public Reader {
 public:
  ColumnarReader(std::vector<SourceFile> files, ReadOptions options)
      : files_(std::move(files)), options_(std::move(options)) {
    done_before_.push_back(0);
    for (const auto& file : files_) done_before_.push_back(done_before_.back() + file.size);
  }

  /// Opens every file: one that is damaged or has other columns stops the import at once.
  Result<> scan() override {
    bool has_rows = false;
    for (const auto& file : files_) {
      LORRY_TRY(check_cancelled());
      LORRY_ASSIGN(auto batches, open(file));
      const auto schema = shard_schema(*batches->schema());
      if (!schema_) schema_ = schema;
      for (const auto& field : schema_->fields()) {
        if (schema->GetFieldIndex(field->name()) >= 0) continue;
        return invalid_input(fmt::format("{}: column {}, which {} has, is missing (or twice there)",
                                         file.path, field->name(), files_[0].path));
      }
      for (const auto& field : schema->fields()) {
        if (schema_->GetFieldIndex(field->name()) >= 0) continue;
        return invalid_input(fmt::format("{}: column {}, which {} does not have", file.path,
                                         field->name(), files_[0].path));
      }
      if (!has_rows) {
        LORRY_ASSIGN(has_rows, any_rows(file, *batches));
      }
    }
    if (!has_rows || schema_->num_fields() == 0) return no_rows(files_);
    return {};
  }

  Result<> begin() override { return scan(); }
  Json state() const override { return Json::object(); }
  Result<> restore(const Json&) override { return scan(); }
  std::shared_ptr<arrow::Schema> schema() const override { return schema_; }
  int64_t bad_rows() const override { return 0; }

  Result<> seek(const Place& place) override {
    place_ = Place{place.file};
    batches_.reset();
    skip_ = place.row;
    return {};
  }

  Result<std::optional<Batch>> next() override {
    while (place_.file < int64_t(files_.size())) {
      const SourceFile& file = files_[size_t(place_.file)];
      if (!batches_) {
        LORRY_ASSIGN(batches_, open(file));
      }
      LORRY_ASSIGN(auto rows, read(file, *batches_));
      if (!rows) {
        batches_.reset();
        place_ = Place{place_.file + 1};
        continue;
      }
      if (rows->num_rows() == 0) continue;
      const Place begin = place_;
      place_.row += rows->num_rows();
      // Batches before the place that was sought; `skip_` is where it begins, always at one.
      if (begin.row < skip_) continue;
      skip_ = 0;
      LORRY_ASSIGN(auto conformed, conform(file, *rows));
      return std::optional<Batch>(
          Batch{std::move(conformed), begin, done_before_[size_t(place_.file)] + file.size / 2});
    }
    return std::optional<Batch>();
  }

 private:
  static Error damaged(const SourceFile& file, const std::string& reason) {
    return corrupt_data(
        fmt::format("{}: not a whole {} file ({})", file.path, format_name(file.format), reason));
  }

  static Result<std::unique_ptr<FileBatches>> open(const SourceFile& file) {
    LORRY_ASSIGN(auto input, open_ranged(file));
    try {
      auto batches = file.format == Format::kParquet ? ParquetBatches::open(std::move(input))
                                                     : ArrowBatches::open(std::move(input));
      if (!batches.ok()) return damaged(file, store::arrow_reason(batches.status()));
      return std::move(batches).ValueUnsafe();
    } catch (const parquet::ParquetException& e) {
      return damaged(file, e.what());
    }
  }

  static Result<bool> any_rows(const SourceFile& file, FileBatches& batches) {
    while (true) {
      LORRY_ASSIGN(const auto rows, read(file, batches));
      if (!rows) return false;
      if (rows->num_rows() > 0) return true;
    }
  }

  /// The next batch, checked through: offsets inside the buffers, strings that are UTF-8.
  static Result<std::shared_ptr<arrow::RecordBatch>> read(const SourceFile& file,
                                                          FileBatches& batches) {
    try {
      auto rows = batches.next();
      if (!rows.ok()) return damaged(file, store::arrow_reason(rows.status()));
      if (!*rows) return std::shared_ptr<arrow::RecordBatch>();
      const arrow::Status valid = (*rows)->ValidateFull();
      if (!valid.ok()) {
        return corrupt_data(
            fmt::format("{}: damaged values ({})", file.path, store::arrow_reason(valid)));
      }
      return std::move(rows).ValueUnsafe();
    } catch (const parquet::ParquetException& e) {
      return damaged(file, e.what());
    }
  }

  /// The columns of `schema_`, in its order and types.
  Result<std::shared_ptr<arrow::RecordBatch>> conform(const SourceFile& file,
                                                      const arrow::RecordBatch& rows) const {
    arrow::ArrayVector columns;
    for (const auto& field : schema_->fields()) {
      auto column = rows.GetColumnByName(field->name());
      if (!column) {
        return invalid_input(fmt::format("{}: column {} is missing", file.path, field->name()));
      }
      if (!column->type()->Equals(*field->type())) {
        auto cast = arrow::compute::Cast(*column, field->type());
        if (!cast.ok()) {
          return invalid_input(fmt::format("{}: column {} is {}, not {} as in {}", file.path,
                                           field->name(), column->type()->ToString(),
                                           field->type()->ToString(), files_[0].path));
        }
        column = *cast;
      }
      columns.push_back(std::move(column));
    }
    return arrow::RecordBatch::Make(schema_, rows.num_rows(), std::move(columns));
  }

  std::vector<SourceFile> files_;
  ReadOptions options_;
  std::vector<int64_t> done_before_;
  std::shared_ptr<arrow::Schema> schema_;
  Place place_;
  int64_t skip_ = 0;
  std::unique_ptr<FileBatches> batches_;
};

}  // namespace

std::unique_ptr<Reader> make_columnar_reader(std::vector<SourceFile> files, ReadOptions options) {
  return std::make_unique<ColumnarReader>(std::move(files), std::move(options));
}

}  // namespace lorry::data
