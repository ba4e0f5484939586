// Sources that are no local files: reads that are short, that fail, that take several at a time.
#include <arrow/buffer.h>
#include <arrow/io/memory.h>
#include <arrow/json/from_string.h>
#include <arrow/record_batch.h>
#include <arrow/table.h>
#include <arrow/type.h>
#include <gtest/gtest.h>
#include <parquet/arrow/writer.h>

#include <cstring>
#include <nlohmann/json.hpp>

#include "data/read_ahead.h"
#include "data/reader.h"
#include "data/shard.h"
#include "net/arrow_status.h"

namespace lorry::data {
namespace {

/// Bytes in memory as a server gives them.
class FaultyFile final : public arrow::io::RandomAccessFile {
 public:
  struct Plan {
    int64_t fail_at = -1;   ///< reads that touch this byte fail
    int64_t short_at = -1;  ///< reads that touch this byte end before it
  };
  FaultyFile(std::string bytes, Plan plan) : bytes_(std::move(bytes)), plan_(plan) {}

  arrow::Result<int64_t> GetSize() override { return int64_t(bytes_.size()); }
  arrow::Result<int64_t> ReadAt(int64_t at, int64_t size, void* out) override {
    int64_t end = std::min<int64_t>(at + size, int64_t(bytes_.size()));
    if (at <= plan_.fail_at && plan_.fail_at < end) {
      return net::to_arrow(unavailable("s3://b/a.jsonl: connection reset"));
    }
    if (at <= plan_.short_at && plan_.short_at < end) end = plan_.short_at;
    std::memcpy(out, bytes_.data() + at, size_t(std::max<int64_t>(0, end - at)));
    return std::max<int64_t>(0, end - at);
  }
  arrow::Result<std::shared_ptr<arrow::Buffer>> ReadAt(int64_t at, int64_t size) override {
    ARROW_ASSIGN_OR_RAISE(auto buffer, arrow::AllocateResizableBuffer(size));
    ARROW_ASSIGN_OR_RAISE(const int64_t got, ReadAt(at, size, buffer->mutable_data()));
    ARROW_RETURN_NOT_OK(buffer->Resize(got));
    return std::shared_ptr<arrow::Buffer>(std::move(buffer));
  }
  arrow::Result<int64_t> Read(int64_t size, void* out) override {
    ARROW_ASSIGN_OR_RAISE(const int64_t got, ReadAt(at_, size, out));
    at_ += got;
    return got;
  }
  arrow::Result<std::shared_ptr<arrow::Buffer>> Read(int64_t size) override {
    ARROW_ASSIGN_OR_RAISE(auto buffer, ReadAt(at_, size));
    at_ += buffer->size();
    return buffer;
  }
  arrow::Status Seek(int64_t at) override {
    at_ = at;
    return arrow::Status::OK();
  }
  arrow::Result<int64_t> Tell() const override { return at_; }
  arrow::Status Close() override { return arrow::Status::OK(); }
  bool closed() const override { return false; }

 private:
  std::string bytes_;
  Plan plan_;
  int64_t at_ = 0;
};

SourceFile remote(const std::string& name, const std::string& bytes, FaultyFile::Plan plan = {}) {
  SourceFile file;
  file.path = "s3://b/" + name;
  file.format = *format_of_name(name);
  file.size = int64_t(bytes.size());
  file.remote = true;
  file.open = [bytes, plan]() -> Result<std::shared_ptr<arrow::io::RandomAccessFile>> {
    return std::shared_ptr<arrow::io::RandomAccessFile>(std::make_shared<FaultyFile>(bytes, plan));
  };
  return file;
}

std::string numbered_lines(int rows) {
  std::string text;
  for (int i = 0; i < rows; ++i) text += "{\"a\": " + std::to_string(i) + "}\n";
  return text;
}

/// Values of column `a`, or the error's message.
Json read(const std::vector<SourceFile>& files) {
  auto reader = *open_reader(files, ReadOptions());
  if (const auto begun = reader->begin(); !begun.ok()) return begun.error().message;
  Json values = Json::array();
  while (true) {
    auto batch = reader->next();
    if (!batch.ok()) return batch.error().message;
    if (!*batch) return values;
    for (int64_t i = 0; i < (*batch)->rows->num_rows(); ++i) {
      values.push_back(row_to_json(*(*batch)->rows, i)["a"]);
    }
  }
}

TEST(ReadAhead, GivesEveryByteInOrderWithSeveralReadsInFlight) {
  std::string bytes;
  for (int i = 0; i < 300'000; ++i) bytes.push_back(char(i * 31 + i / 256));
  for (const int64_t from : {int64_t(0), int64_t(1), int64_t(77'777), int64_t(299'999)}) {
    auto stream = read_ahead(std::make_shared<FaultyFile>(bytes, FaultyFile::Plan()), from,
                             {.piece_bytes = 1000, .pieces = 5});
    std::string got(bytes.size(), '\0');
    int64_t size = 0;
    for (int64_t step = 1;; step = step * 7 % 4999 + 1) {
      const int64_t more = *stream->Read(step, got.data() + size);
      if (more == 0) break;
      size += more;
    }
    got.resize(size_t(size));
    EXPECT_TRUE(got == bytes.substr(size_t(from)));
  }
}

TEST(ReadAhead, AFailedOrShortReadIsAnErrorAtItsPlace) {
  for (const bool is_short : {false, true}) {
    FaultyFile::Plan plan;
    (is_short ? plan.short_at : plan.fail_at) = 2500;
    auto stream = read_ahead(std::make_shared<FaultyFile>(std::string(10'000, 'x'), plan), 0,
                             {.piece_bytes = 1000, .pieces = 3});
    std::string got(2000, '\0');
    EXPECT_EQ(*stream->Read(2000, got.data()), 2000);
    EXPECT_FALSE(stream->Read(1000, got.data()).ok());
    EXPECT_FALSE(stream->Read(1000, got.data()).ok()) << "it stays failed";
  }
}

TEST(ReadAhead, MayBeDroppedWhileReadsAreInFlight) {
  for (int i = 0; i < 20; ++i) {
    auto stream =
        read_ahead(std::make_shared<FaultyFile>(std::string(100'000, 'x'), FaultyFile::Plan()), 0,
                   {.piece_bytes = 1000, .pieces = 4});
    char byte = 0;
    EXPECT_EQ(*stream->Read(1, &byte), 1);
  }
}

TEST(RemoteSource, GivesTheRowsOfALocalOne) {
  const Json rows = read({remote("a.jsonl", numbered_lines(5000))});
  ASSERT_EQ(rows.size(), 5000u);
  EXPECT_EQ(rows[4999], 4999);
}

TEST(RemoteSource, AFailedReadNamesTheFileAndIsNoDamage) {
  FaultyFile::Plan plan;
  const std::string text = numbered_lines(100'000);
  plan.fail_at = int64_t(text.size()) - 5;
  auto reader = *open_reader({remote("a.jsonl", text, plan)}, ReadOptions());
  auto begun = reader->begin();
  Result<std::optional<Batch>> batch = std::optional<Batch>();
  if (begun.ok()) {
    do {
      batch = reader->next();
    } while (batch.ok() && *batch);
  }
  const Error error = begun.ok() ? batch.error() : begun.error();
  EXPECT_EQ(error.kind, ErrorKind::kUnavailable) << error.message;
  EXPECT_NE(error.message.find("s3://b/a.jsonl"), std::string::npos) << error.message;
}

std::string parquet_bytes(int rows, int group_rows) {
  Json json = Json::array();
  for (int i = 0; i < rows; ++i) json.push_back(Json{{"a", i}});
  const auto type = arrow::struct_({arrow::field("a", arrow::int64())});
  auto array = arrow::json::ArrayFromJSONString(type, json.dump()).ValueOrDie();
  auto batch = arrow::RecordBatch::FromStructArray(array).ValueOrDie();
  auto table = arrow::Table::FromRecordBatches({batch}).ValueOrDie();
  auto out = arrow::io::BufferOutputStream::Create().ValueOrDie();
  EXPECT_TRUE(
      parquet::arrow::WriteTable(*table, arrow::default_memory_pool(), out, group_rows).ok());
  return out->Finish().ValueOrDie()->ToString();
}

TEST(RemoteSource, ParquetIsReadByRangesInOrder) {
  const Json rows = read({remote("a.parquet", parquet_bytes(3000, 250)),
                          remote("b.parquet", parquet_bytes(100, 1000))});
  ASSERT_EQ(rows.size(), 3100u);
  for (int i = 0; i < 3000; ++i) ASSERT_EQ(rows[size_t(i)], i);
  EXPECT_EQ(rows[3099], 99);
}

TEST(RemoteSource, AFailedReadOfParquetIsNoDamage) {
  const std::string bytes = parquet_bytes(3000, 250);
  for (const int64_t at : {int64_t(bytes.size()) / 2, int64_t(bytes.size()) - 3}) {
    FaultyFile::Plan plan;
    plan.fail_at = at;
    auto reader = *open_reader({remote("a.parquet", bytes, plan)}, ReadOptions());
    auto failed = reader->begin();
    while (failed.ok()) {
      auto batch = reader->next();
      ASSERT_TRUE(!batch.ok() || *batch) << "the rows ended";
      if (!batch.ok()) failed = batch.error();
    }
    EXPECT_EQ(failed.error().kind, ErrorKind::kUnavailable) << failed.error().message;
  }
}

TEST(RemoteSource, ParquetCutShortIsNamed) {
  const std::string bytes = parquet_bytes(3000, 250);
  const Json message = read({remote("a.parquet", bytes.substr(0, bytes.size() - 100))});
  ASSERT_TRUE(message.is_string());
  EXPECT_NE(message.get<std::string>().find("s3://b/a.parquet"), std::string::npos) << message;
}

TEST(ColumnarReader, GoesOnFromAnyRowOfAnyGroup) {
  const std::vector<SourceFile> files = {remote("a.parquet", parquet_bytes(5000, 2300)),
                                         remote("b.parquet", parquet_bytes(10, 1000))};
  auto reader = *open_reader(files, ReadOptions());
  ASSERT_TRUE(reader->begin().ok());
  for (const Place& place : {Place{0, 0, 1, 1}, Place{0, 1, 1, 0}, Place{0, 1, 1, 1700},
                             Place{0, 2, 1, 399}, Place{1, 0, 1, 9}, Place{0, 0, 1, 0}}) {
    ASSERT_TRUE(reader->seek(place).ok());
    Json values = Json::array();
    while (true) {
      auto batch = *reader->next();
      if (!batch) break;
      if (values.empty()) {
        EXPECT_EQ(batch->begin.file, place.file);
        EXPECT_EQ(batch->begin.offset, place.offset);
        EXPECT_EQ(batch->begin.row, place.row);
      }
      for (int64_t i = 0; i < batch->rows->num_rows(); ++i) {
        values.push_back(row_to_json(*batch->rows, i)["a"]);
      }
    }
    const int64_t before = place.file * 5000 + place.offset * 2300 + place.row;
    ASSERT_EQ(int64_t(values.size()), 5010 - before);
    EXPECT_EQ(values[0], place.file == 1 ? place.row : before);
  }
}

}  // namespace
}  // namespace lorry::data
