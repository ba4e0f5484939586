#include "data/columnar_file.h"

#include <arrow/io/caching.h>
#include <arrow/io/interfaces.h>
#include <arrow/ipc/reader.h>
#include <arrow/record_batch.h>
#include <arrow/type.h>
#include <arrow/util/byte_size.h>
#include <fmt/format.h>
#include <parquet/arrow/reader.h>
#include <parquet/exception.h>
#include <parquet/file_reader.h>
#include <parquet/metadata.h>
#include <parquet/properties.h>

#include <algorithm>
#include <mutex>

#include "store/arrow_error.h"

namespace lorry::data {
namespace {

constexpr int64_t kRowsPerBatch = 1000;
constexpr int64_t kBatchBytes = 4 << 20;  ///< fewer rows where they would take more

Error damaged(const SourceFile& file, const std::string& reason) {
  return corrupt_data(
      fmt::format("{}: not a whole {} file ({})", file.path, format_name(file.format), reason));
}

/// What reading gave. A network or a disk that failed says how (the detail), and is no damage.
Error failure(const SourceFile& file, const arrow::Status& status) {
  if (status.IsIOError() && status.detail()) return store::from_arrow(status, file.path);
  return damaged(file, store::arrow_reason(status));
}

/// `do_read` with Parquet's exceptions and Arrow's statuses as our errors.
template <typename T, typename Read>
Result<T> attempt(const SourceFile& file, Read do_read) {
  try {
    arrow::Result<T> got = do_read();
    if (!got.ok()) return failure(file, got.status());
    return std::move(got).ValueUnsafe();
  } catch (const parquet::ParquetStatusException& e) {
    return failure(file, e.status());
  } catch (const parquet::ParquetException& e) {
    return damaged(file, e.what());
  }
}

Result<std::shared_ptr<arrow::RecordBatch>> checked(const SourceFile& file,
                                                    std::shared_ptr<arrow::RecordBatch> rows) {
  if (!rows) return rows;
  const arrow::Status valid = rows->ValidateFull();
  if (valid.ok()) return rows;
  return corrupt_data(
      fmt::format("{}: damaged values ({})", file.path, store::arrow_reason(valid)));
}

using Batches = std::shared_ptr<arrow::RecordBatchReader>;

class ParquetGroup final : public GroupBatches {
 public:
  ParquetGroup(const SourceFile& file, std::unique_ptr<parquet::arrow::FileReader> reader,
               Batches batches)
      : file_(file), reader_(std::move(reader)), batches_(std::move(batches)) {}

  Result<std::shared_ptr<arrow::RecordBatch>> next() override {
    LORRY_ASSIGN(auto rows, attempt<std::shared_ptr<arrow::RecordBatch>>(
                                file_, [&]() -> arrow::Result<std::shared_ptr<arrow::RecordBatch>> {
                                  std::shared_ptr<arrow::RecordBatch> batch;
                                  ARROW_RETURN_NOT_OK(batches_->ReadNext(&batch));
                                  return batch;
                                }));
    return checked(file_, std::move(rows));
  }

 private:
  SourceFile file_;
  std::unique_ptr<parquet::arrow::FileReader> reader_;
  Batches batches_;
};

class ParquetFile final : public ColumnarFile {
 public:
  ParquetFile(const SourceFile& file, std::shared_ptr<arrow::io::RandomAccessFile> bytes,
              int64_t memory)
      : file_(file), bytes_(std::move(bytes)), memory_(memory) {}

  Result<> read_footer() {
    LORRY_ASSIGN(const auto reader, attempt<std::unique_ptr<parquet::arrow::FileReader>>(
                                        file_, [&] { return make_reader(kRowsPerBatch, 0); }));
    metadata_ = reader->parquet_reader()->metadata();
    LORRY_ASSIGN(schema_, attempt<std::shared_ptr<arrow::Schema>>(
                              file_, [&]() -> arrow::Result<std::shared_ptr<arrow::Schema>> {
                                std::shared_ptr<arrow::Schema> schema;
                                ARROW_RETURN_NOT_OK(reader->GetSchema(&schema));
                                return schema;
                              }));
    return {};
  }

  std::shared_ptr<arrow::Schema> schema() const override { return schema_; }
  int64_t groups() const override { return metadata_->num_row_groups(); }
  Result<std::vector<int64_t>> group_rows(bool) const override {
    std::vector<int64_t> rows;
    for (int g = 0; g < metadata_->num_row_groups(); ++g) {
      rows.push_back(metadata_->RowGroup(g)->num_rows());
    }
    return rows;
  }

  Result<std::unique_ptr<GroupBatches>> read_group(int64_t group) const override {
    LORRY_ASSIGN(const int64_t rows, batch_rows(int(group)));
    return open_group(int(group), rows);
  }

 private:
  Result<std::unique_ptr<GroupBatches>> open_group(int group, int64_t rows) const {
    int64_t stored = 0;
    LORRY_ASSIGN(auto reader,
                 attempt<std::unique_ptr<parquet::arrow::FileReader>>(
                     file_, [&]() -> arrow::Result<std::unique_ptr<parquet::arrow::FileReader>> {
                       stored = metadata_->RowGroup(group)->total_compressed_size();
                       return make_reader(rows, stored);
                     }));
    LORRY_ASSIGN(auto batches, attempt<std::unique_ptr<arrow::RecordBatchReader>>(file_, [&] {
                   return reader->GetRecordBatchReader(std::vector<int>{group});
                 }));
    return std::unique_ptr<GroupBatches>(
        std::make_unique<ParquetGroup>(file_, std::move(reader), std::move(batches)));
  }

  /// `stored`: bytes of the group that will be read.
  arrow::Result<std::unique_ptr<parquet::arrow::FileReader>> make_reader(int64_t rows,
                                                                         int64_t stored) const {
    parquet::ReaderProperties properties;
    parquet::ArrowReaderProperties arrow_properties;
    // A group over a network comes as a few big ranges, if it is small; else, and from a disk, page
    // after page: whole column chunks may be gigabytes.
    const bool whole = file_.remote && stored > 0 && stored <= memory_ / 16;
    if (!whole) {
      const int64_t columns = metadata_ ? std::max(1, metadata_->num_columns()) : 1;
      const int64_t most = file_.remote ? 4 << 20 : 256 << 10;
      properties.enable_buffered_stream();
      properties.set_buffer_size(std::clamp<int64_t>(memory_ / 32 / columns, 16 << 10, most));
    }
    arrow_properties.set_pre_buffer(whole);
    arrow_properties.set_batch_size(rows);
    // Storage types only. It also keeps libparquet from parsing JSON (the reference systems of
    // geometry columns), which it would do through our simdjson; docs/dependencies.md.
    arrow_properties.set_arrow_extensions_enabled(false);
    parquet::arrow::FileReaderBuilder builder;
    ARROW_RETURN_NOT_OK(builder.Open(bytes_, properties, metadata_));
    builder.properties(arrow_properties);
    return builder.Build();
  }

  Result<int64_t> batch_rows(int group) const {
    try {
      const auto about = metadata_->RowGroup(group);
      const int64_t rows = std::max<int64_t>(1, about->num_rows());
      int64_t row_bytes = about->total_byte_size() / rows;
      if (dictionary_bytes(*about) * std::min(rows, rows_of(row_bytes)) > 32 * kBatchBytes) {
        LORRY_ASSIGN(const int64_t unpacked, measured_row_bytes(group));
        row_bytes = std::max(row_bytes, unpacked);
      }
      return rows_of(row_bytes);
    } catch (const parquet::ParquetException& e) {
      return damaged(file_, e.what());
    }
  }

  static int64_t rows_of(int64_t row_bytes) {
    return std::clamp<int64_t>(kBatchBytes / std::max<int64_t>(row_bytes, 1), 1, kRowsPerBatch);
  }

  /// About the bytes of the dictionaries of the group's texts: any row may be as long.
  static int64_t dictionary_bytes(const parquet::RowGroupMetaData& group) {
    int64_t bytes = 0;
    for (int c = 0; c < group.num_columns(); ++c) {
      const auto column = group.ColumnChunk(c);
      if (column->type() != parquet::Type::BYTE_ARRAY || !column->has_dictionary_page()) continue;
      const int64_t stored = column->data_page_offset() - column->dictionary_page_offset();
      const int64_t ratio =
          column->total_uncompressed_size() / std::max<int64_t>(1, column->total_compressed_size());
      bytes += std::max<int64_t>(0, stored) * std::max<int64_t>(1, ratio);
    }
    return bytes;
  }

  /// Bytes a row at the begin of the first group that asks, dictionaries unpacked. Once a file.
  Result<int64_t> measured_row_bytes(int group) const {
    std::lock_guard lock(measuring_);
    if (measured_ > 0) return measured_;
    constexpr int64_t kRows = 32;
    LORRY_ASSIGN(const auto batches, open_group(group, kRows));
    LORRY_ASSIGN(const auto rows, batches->next());
    const int64_t bytes = rows ? arrow::util::ReferencedBufferSize(*rows).ValueOr(0) : 0;
    measured_ = std::max<int64_t>(1, rows ? bytes / std::max<int64_t>(1, rows->num_rows()) : 1);
    return measured_;
  }

  SourceFile file_;
  std::shared_ptr<arrow::io::RandomAccessFile> bytes_;
  int64_t memory_;
  std::shared_ptr<parquet::FileMetaData> metadata_;
  std::shared_ptr<arrow::Schema> schema_;
  mutable std::mutex measuring_;
  mutable int64_t measured_ = 0;  // guarded by measuring_
};

/// An IPC stream, or the batches of an IPC file.
class ArrowGroup final : public GroupBatches {
 public:
  static arrow::Result<std::unique_ptr<ArrowGroup>> open(
      const SourceFile& file, std::shared_ptr<arrow::io::RandomAccessFile> bytes) {
    auto group = std::make_unique<ArrowGroup>();
    group->source_ = file;
    ARROW_ASSIGN_OR_RAISE(auto magic, bytes->ReadAt(0, 6));
    ARROW_RETURN_NOT_OK(bytes->Seek(0));
    if (magic->ToString() == "ARROW1") {
      ARROW_ASSIGN_OR_RAISE(group->file_, arrow::ipc::RecordBatchFileReader::Open(bytes));
    } else {
      ARROW_ASSIGN_OR_RAISE(group->stream_, arrow::ipc::RecordBatchStreamReader::Open(bytes));
    }
    return group;
  }
  std::shared_ptr<arrow::Schema> schema() const {
    return file_ ? file_->schema() : stream_->schema();
  }
  /// -1 if only reading tells.
  int64_t rows() const { return file_ ? file_->CountRows().ValueOr(-1) : -1; }

  Result<std::shared_ptr<arrow::RecordBatch>> next() override {
    LORRY_ASSIGN(auto rows,
                 attempt<std::shared_ptr<arrow::RecordBatch>>(
                     source_, [&]() -> arrow::Result<std::shared_ptr<arrow::RecordBatch>> {
                       if (file_) {
                         if (at_ == file_->num_record_batches()) return nullptr;
                         return file_->ReadRecordBatch(at_++);
                       }
                       std::shared_ptr<arrow::RecordBatch> batch;
                       ARROW_RETURN_NOT_OK(stream_->ReadNext(&batch));
                       return batch;
                     }));
    return checked(source_, std::move(rows));
  }

 private:
  SourceFile source_;
  std::shared_ptr<arrow::ipc::RecordBatchFileReader> file_;
  std::shared_ptr<arrow::ipc::RecordBatchStreamReader> stream_;
  int at_ = 0;
};

class ArrowFile final : public ColumnarFile {
 public:
  explicit ArrowFile(const SourceFile& file) : file_(file) {}

  Result<> read_schema() {
    LORRY_ASSIGN(const auto group, open_group());
    schema_ = group->schema();
    return {};
  }
  std::shared_ptr<arrow::Schema> schema() const override { return schema_; }
  int64_t groups() const override { return 1; }
  Result<std::vector<int64_t>> group_rows(bool exact) const override {
    LORRY_ASSIGN(const auto group, open_group());
    int64_t rows = group->rows();
    if (rows >= 0) return std::vector<int64_t>{rows};
    for (rows = 0; exact || rows == 0;) {
      LORRY_ASSIGN(const auto batch, group->next());
      if (!batch) break;
      rows += batch->num_rows();
    }
    return std::vector<int64_t>{rows};
  }
  Result<std::unique_ptr<GroupBatches>> read_group(int64_t) const override {
    LORRY_ASSIGN(auto group, open_group());
    return std::unique_ptr<GroupBatches>(std::move(group));
  }

 private:
  Result<std::unique_ptr<ArrowGroup>> open_group() const {
    LORRY_ASSIGN(auto bytes, open_ranged(file_));
    return attempt<std::unique_ptr<ArrowGroup>>(file_,
                                                [&] { return ArrowGroup::open(file_, bytes); });
  }

  SourceFile file_;
  std::shared_ptr<arrow::Schema> schema_;
};

}  // namespace

Result<std::shared_ptr<ColumnarFile>> ColumnarFile::open(const SourceFile& file, int64_t memory) {
  if (file.format == Format::kArrow) {
    auto opened = std::make_shared<ArrowFile>(file);
    LORRY_TRY(opened->read_schema());
    return std::shared_ptr<ColumnarFile>(std::move(opened));
  }
  LORRY_ASSIGN(auto bytes, open_ranged(file));
  auto opened = std::make_shared<ParquetFile>(file, std::move(bytes), memory);
  LORRY_TRY(opened->read_footer());
  return std::shared_ptr<ColumnarFile>(std::move(opened));
}

}  // namespace lorry::data
