#include "stages/model_copy.h"

#include <arrow/io/interfaces.h>
#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <mutex>
#include <nlohmann/json.hpp>
#include <numeric>
#include <optional>
#include <thread>

#include "base/cancel.h"
#include "base/digest.h"
#include "base/log.h"
#include "hub/git_blob.h"
#include "store/arrow_error.h"

namespace lorry::stages {
namespace {

constexpr int64_t kPieceBytes = 1 << 20;
constexpr size_t kFilesAtOnce = 4;
constexpr int kTries = 2;  // of a file whose bytes are not those that the source names

/// Reads a file from begin to end; `take` gets each piece. Returns the bytes.
Result<int64_t> read_pieces(const sources::ModelFile& file,
                            const std::function<Result<>(std::string_view)>& take) {
  LORRY_ASSIGN(const auto stream, file.open_stream());
  std::vector<char> buffer(static_cast<size_t>(kPieceBytes));
  int64_t total = 0;
  while (true) {
    LORRY_TRY(check_cancelled());
    LORRY_ASSIGN(const int64_t got,
                 store::from_arrow(stream->Read(kPieceBytes, buffer.data()), file.path));
    if (got == 0) return total;
    total += got;
    LORRY_TRY(take(std::string_view(buffer.data(), static_cast<size_t>(got))));
  }
}

class Copy {
 public:
  Copy(const store::Bucket& bucket, const std::string& dir,
       const std::vector<sources::ModelFile>& files,
       const std::function<void(int64_t, int64_t)>& progress)
      : bucket_(bucket), dir_(dir), files_(files), progress_(progress), records_(files.size()) {
    for (const auto& file : files) total_ += file.bytes;
  }

  /// Takes over what is there already.
  Result<> keep(const Json& known) {
    for (size_t i = 0; i < files_.size(); ++i) {
      const Json record = find_record(known, files_[i].name);
      if (record.is_null() || record.value("bytes", int64_t{-1}) != files_[i].bytes ||
          record.value("version", "") != files_[i].version || files_[i].version.empty())
        continue;
      LORRY_ASSIGN(const auto object, bucket_.stat(dir_ + "/" + files_[i].name));
      if (!object || object->is_directory || object->size != files_[i].bytes) continue;
      records_[i] = record;
      kept_ += files_[i].bytes;
    }
    if (kept_ > 0) log::info("{}: going on, {} of {} bytes are there", dir_, kept_, total_);
    done_ = kept_;
    return note();
  }

  Result<Json> run() {
    // The largest first, so that none is left alone at the end.
    for (size_t i = 0; i < files_.size(); ++i) {
      if (!records_[i]) order_.push_back(i);
    }
    std::stable_sort(order_.begin(), order_.end(),
                     [&](size_t a, size_t b) { return files_[a].bytes > files_[b].bytes; });
    std::vector<std::thread> workers;
    for (size_t i = 0; i < std::min(kFilesAtOnce, order_.size()); ++i) {
      workers.emplace_back([this] { work(); });
    }
    for (auto& worker : workers) worker.join();
    if (error_) return *error_;
    LORRY_TRY(check_cancelled());
    Json list = Json::array();
    for (auto& record : records_) list.push_back(*record);
    return list;
  }

 private:
  void work() {
    for (size_t at = next_++; at < order_.size() && !failed_; at = next_++) {
      auto done = copy(order_[at]);
      if (done.ok()) continue;
      const std::lock_guard lock(mutex_);
      failed_ = true;
      if (!error_) error_ = done.error();
    }
  }

  Result<> copy(size_t i) {
    const sources::ModelFile& file = files_[i];
    for (int attempt = 1;; ++attempt) {
      auto record = copy_once(file);
      if (record.ok()) {
        const std::lock_guard lock(mutex_);
        records_[i] = std::move(*record);
        return note();
      }
      if (record.error().kind != ErrorKind::kCorruptData || attempt == kTries || failed_) {
        return record.error();
      }
      log::warn("{}; trying once more", record.error().message);
    }
  }

  Result<Json> copy_once(const sources::ModelFile& file) {
    LORRY_ASSIGN(auto writer, bucket_.create(dir_ + "/" + file.name));
    Sha256 sha256;
    hub::GitBlob blob(file.bytes);
    int64_t copied = 0;
    const auto take = [&](std::string_view piece) -> Result<> {
      if (failed_) return cancelled("another file failed");
      LORRY_TRY(writer->write(piece));
      sha256.update(piece);
      if (!file.git_blob.empty()) blob.update(piece);
      copied += int64_t(piece.size());
      say(int64_t(piece.size()));
      return {};
    };
    const auto finish = [&]() -> Result<Json> {
      LORRY_TRY(read_pieces(file, take));
      if (copied != file.bytes)
        return corrupt_data(
            fmt::format("{} changed while it was copied, {} bytes of {}; import "
                        "again",
                        file.path, copied, file.bytes));
      const std::string digest = sha256.hex();
      const bool same = file.sha256.empty() || file.sha256 == digest;
      if (!same || (!file.git_blob.empty() && file.git_blob != blob.hex()))
        return corrupt_data(
            fmt::format("{}: its bytes are not those that the source names "
                        "(SHA-256 {}); import again",
                        file.path, digest));
      LORRY_TRY(writer->commit());
      return file_record(file, digest, writer->crc32c());
    };
    auto record = finish();
    if (!record.ok()) say(-copied);
    return record;
  }

  void say(int64_t bytes) {
    const std::lock_guard lock(progress_mutex_);
    done_ += bytes;
    if (progress_) progress_(done_, total_);
  }

  /// Notes what is done. Called with the mutex held, or by one thread alone.
  Result<> note() const {
    Json list = Json::array();
    for (const auto& record : records_) {
      if (record) list.push_back(*record);
    }
    if (list.empty() || list.size() == files_.size()) return {};
    return bucket_.write(interrupted_copy_path(dir_), dump_json(Json{{"files", list}}, 1));
  }

  const store::Bucket& bucket_;
  const std::string& dir_;
  const std::vector<sources::ModelFile>& files_;
  const std::function<void(int64_t, int64_t)>& progress_;
  std::vector<size_t> order_;
  std::atomic<size_t> next_ = 0;
  std::atomic<bool> failed_ = false;
  std::mutex mutex_;
  std::vector<std::optional<Json>> records_;  ///< guarded by mutex_
  std::optional<Error> error_;                ///< guarded by mutex_
  std::mutex progress_mutex_;
  int64_t done_ = 0;  ///< guarded by progress_mutex_
  int64_t kept_ = 0;
  int64_t total_ = 0;
};

}  // namespace

Json file_record(const sources::ModelFile& file, const std::string& sha256, uint32_t crc32c) {
  return Json{{"name", file.name},
              {"bytes", file.bytes},
              {"sha256", sha256},
              {"crc32c", fmt::format("{:08x}", crc32c)},
              {"version", file.version}};
}

Json find_record(const Json& records, const std::string& name) {
  if (!records.is_array()) return nullptr;
  for (const auto& record : records) {
    if (!record.is_object()) continue;
    const Json value = record.value("name", Json());
    if (value.is_string() && value.get<std::string>() == name) return record;
  }
  return nullptr;
}

Result<Json> copy_model_files(const store::Bucket& bucket, const std::string& dir,
                              const std::vector<sources::ModelFile>& files, const Json& known,
                              const std::function<void(int64_t, int64_t)>& progress) {
  Copy copy(bucket, dir, files, progress);
  LORRY_TRY(copy.keep(known));
  return copy.run();
}

std::string interrupted_copy_path(const std::string& dir) { return dir + "/import.json"; }

Result<Json> interrupted_copy(const store::Bucket& bucket, const std::string& dir) {
  const auto path = interrupted_copy_path(dir);
  LORRY_ASSIGN(const bool there, bucket.exists(path));
  if (!there) return Json::array();
  LORRY_ASSIGN(const auto text, bucket.read(path));
  const Json json = Json::parse(text, nullptr, false);
  return json.is_object() ? json.value("files", Json::array()) : Json::array();
}

Result<std::string> digest_of(const sources::ModelFile& file) {
  Sha256 digest;
  LORRY_TRY(read_pieces(file, [&](std::string_view piece) -> Result<> {
    digest.update(piece);
    return {};
  }));
  return digest.hex();
}

}  // namespace lorry::stages
