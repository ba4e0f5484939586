#include "store/s3_upload.h"

#include <arrow/buffer.h>
#include <arrow/io/interfaces.h>
#include <fmt/format.h>

#include <algorithm>
#include <condition_variable>
#include <map>
#include <mutex>

#include "base/crc32c.h"
#include "base/log.h"
#include "net/arrow_status.h"
#include "store/s3_checksum.h"
#include "store/s3_object.h"
#include "store/s3_parts.h"
#include "store/s3_xml.h"

namespace lorry::store {
namespace {

constexpr int kMostInFlight = 8;
/// Buffers of at least this many bytes are sent from where they are.
constexpr int64_t kNoCopy = 256 << 10;
/// Putting the parts together may take the server minutes, without a byte.
constexpr double kCompleteStallFactor = 10;

constexpr char kChecksum[] = "x-amz-checksum-crc32c";

std::string header_or_empty(const net::Response& response, std::string_view name) {
  return std::string(response.header(name).value_or(""));
}

/// After a put: the server's checksum says that it has what we sent; one that keeps none is asked
/// for the size.
Result<> check_stored(const S3Client& client, const std::string& key, int64_t size) {
  LORRY_ASSIGN(const auto head, head_object(client, key));
  if (head && head->size == size) return {};
  const std::string name = client.name_of(key);
  if (!head) return unavailable(name + ": was written, but is not there");
  return corrupt_data(
      fmt::format("{}: {} bytes were written, the store has {}", name, size, head->size));
}

}  // namespace

Result<> put_object(const S3Client& client, const std::string& key,
                    const std::vector<std::string_view>& body, int64_t size, uint32_t crc,
                    const Guard& guard) {
  S3Request request;
  request.method = "PUT";
  request.key = key;
  request.body = body;
  request.headers = {{"Content-Type", "application/octet-stream"}, {kChecksum, base64_crc(crc)}};
  request.guard = guard;
  LORRY_ASSIGN(const auto response, client.send(request));
  if (!response.ok()) return client.error_of(response, "PUT", key);
  if (header_or_empty(response, kChecksum) != base64_crc(crc)) {
    return check_stored(client, key, size);
  }
  return {};
}

namespace {

/// A multipart upload, shared by the writer and the transfers of its parts. Thread-safe.
class Multipart : public std::enable_shared_from_this<Multipart> {
 public:
  Multipart(std::shared_ptr<const S3Client> client, std::string key)
      : client_(std::move(client)), key_(std::move(key)) {}

  Result<> begin() {
    S3Request request;
    request.method = "POST";
    request.key = key_;
    request.query = {{"uploads", ""}};
    request.headers = {{"Content-Type", "application/octet-stream"},
                       {"x-amz-checksum-algorithm", "CRC32C"},
                       {"x-amz-checksum-type", "FULL_OBJECT"}};
    LORRY_ASSIGN(const auto response, client_->expect(request));
    upload_ = xml_text(response.body, "UploadId").value_or("");
    if (!upload_.empty()) return {};
    return unavailable(client_->name_of(key_) + ": the server names no multipart upload");
  }

  /// Sends a part in the background; waits while too many are on their way. The error is that of
  /// an earlier part.
  Result<> send(int number, std::shared_ptr<PartBytes> bytes) {
    std::unique_lock lock(mutex_);
    for (;;) {
      if (!failure_.ok()) return failure_;
      if (in_flight_ == 0) {
        bytes->share.take(bytes->size());
        break;
      }
      if (in_flight_ < kMostInFlight && bytes->share.try_take(bytes->size())) break;
      landed_.wait(lock);
    }
    ++in_flight_;
    net::run_in_background([self = shared_from_this(), number, bytes = std::move(bytes)]() mutable {
      Result<std::string> etag = cancelled("the upload was given up");
      if (!self->stop_) etag = self->send_part(number, *bytes);
      const uint32_t crc = bytes->crc();
      bytes.reset();  // gives its memory back before the writer is woken
      self->landed(number, std::move(etag), crc);
    });
    return {};
  }

  Result<> complete(int64_t size, uint32_t crc, const Guard& guard) {
    wait();
    LORRY_TRY(failure_);
    const std::string body = part_list();
    S3Request request;
    request.method = "POST";
    request.key = key_;
    request.query = {{"uploadId", upload_}};
    request.headers = {{"Content-Type", "application/xml"},
                       {kChecksum, base64_crc(crc)},
                       {"x-amz-checksum-type", "FULL_OBJECT"}};
    request.body = {body};
    request.guard = guard;
    request.stall_seconds = kCompleteStallFactor * net::Client::shared().policy().stall_seconds;
    // A 200 may bring an error in its body, after spaces that kept the connection open.
    request.retry_because = [](const net::Response& response) -> std::optional<std::string> {
      if (!response.ok() || xml_elements(response.body, "Error").empty()) return std::nullopt;
      return fmt::format("{} while its parts were put together",
                         xml_text(response.body, "Code").value_or("an error"));
    };
    LORRY_ASSIGN(const auto response, client_->send(request));
    // The answer to an earlier try may have been lost: the object is there, the upload is not.
    const bool lost_answer = response.attempts > 1 && response.status == 404;
    if (!response.ok() && !lost_answer) return client_->error_of(response, "POST", key_);
    done_ = true;
    return check_stored(*client_, key_, size);
  }

  /// Removes what was sent. Never fails: what cannot be removed is invisible.
  void abort() {
    stop_ = true;
    wait();
    if (upload_.empty() || done_) return;
    S3Request request;
    request.method = "DELETE";
    request.key = key_;
    request.query = {{"uploadId", upload_}};
    auto response = client_->expect(request);
    if (!response.ok()) log::debug("abandoned upload stays: {}", response.error().message);
  }

 private:
  struct Sent {
    std::string etag;
    uint32_t crc = 0;
  };

  Result<std::string> send_part(int number, const PartBytes& bytes) const {
    S3Request request;
    request.method = "PUT";
    request.key = key_;
    request.query = {{"partNumber", std::to_string(number)}, {"uploadId", upload_}};
    request.headers = {{kChecksum, base64_crc(bytes.crc())}};
    request.body = bytes.spans();
    request.stop = &stop_;
    LORRY_ASSIGN(const auto response, client_->expect(request));
    return header_or_empty(response, "etag");
  }

  void landed(int number, Result<std::string> etag, uint32_t crc) {
    std::lock_guard lock(mutex_);
    if (etag.ok()) {
      sent_[number] = {std::move(etag).value(), crc};
    } else if (failure_.ok()) {
      failure_ = std::move(etag).error();
    }
    --in_flight_;
    landed_.notify_all();
  }

  void wait() {
    std::unique_lock lock(mutex_);
    landed_.wait(lock, [this] { return in_flight_ == 0; });
  }

  std::string part_list() const {
    std::string xml = "<CompleteMultipartUpload xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">";
    for (const auto& [number, sent] : sent_) {
      xml += fmt::format("<Part><PartNumber>{}</PartNumber><ETag>{}</ETag>", number,
                         xml_escape(sent.etag));
      if (client_->sends_checksums()) {
        xml += fmt::format("<ChecksumCRC32C>{}</ChecksumCRC32C>", base64_crc(sent.crc));
      }
      xml += "</Part>";
    }
    return xml + "</CompleteMultipartUpload>";
  }

  const std::shared_ptr<const S3Client> client_;
  const std::string key_;
  std::string upload_;  ///< set by begin
  bool done_ = false;
  std::atomic<bool> stop_{false};
  std::mutex mutex_;
  std::condition_variable landed_;
  int in_flight_ = 0;         ///< guarded by mutex_, as are the two below
  Result<> failure_;          ///< the first
  std::map<int, Sent> sent_;  ///< by part number
};

class UploadStream final : public arrow::io::OutputStream {
 public:
  UploadStream(std::shared_ptr<const S3Client> client, std::string key)
      : client_(std::move(client)), key_(std::move(key)) {
    set_mode(arrow::io::FileMode::WRITE);
    next_part();
  }

  arrow::Status Write(const void* data, int64_t size) override {
    const auto* bytes = static_cast<const char*>(data);
    while (size > 0) {
      ARROW_RETURN_NOT_OK(make_room());
      const int64_t n = std::min(size, part_->room());
      part_->copy(bytes, n);
      bytes += n;
      size -= n;
    }
    return arrow::Status::OK();
  }

  arrow::Status Write(const std::shared_ptr<arrow::Buffer>& data) override {
    if (data->size() < kNoCopy) return Write(data->data(), data->size());
    for (int64_t at = 0; at < data->size();) {
      ARROW_RETURN_NOT_OK(make_room());
      const int64_t n = std::min(data->size() - at, part_->room());
      part_->keep(arrow::SliceBuffer(data, at, n));
      at += n;
    }
    return arrow::Status::OK();
  }

  arrow::Result<int64_t> Tell() const override { return sent_ + part_->size(); }
  arrow::Status Close() override { return arrow::Status::OK(); }
  bool closed() const override { return closed_; }

  Result<> finish(const Guard& guard) {
    closed_ = true;
    if (!upload_) {
      size_ = part_->size();
      crc_ = part_->crc();
      LORRY_TRY(put_object(*client_, key_, part_->spans(), size_, crc_, guard));
      part_.reset();
      return {};
    }
    if (part_->size() > 0) LORRY_TRY(send_part());
    size_ = sent_;
    return upload_->complete(size_, crc_, guard);
  }

  void abandon() {
    closed_ = true;
    if (upload_) upload_->abort();
  }

  int64_t size() const { return size_; }
  uint32_t crc32c() const { return crc_; }

 private:
  void next_part() { part_ = std::make_shared<PartBytes>(part_size(++number_)); }

  /// Sends the part if it is full.
  arrow::Status make_room() {
    if (closed_) return arrow::Status::Invalid("object is closed");
    if (part_->room() > 0) return arrow::Status::OK();
    auto sent = send_part();
    return sent.ok() ? arrow::Status::OK() : net::to_arrow(sent.error());
  }

  Result<> send_part() {
    if (!upload_) {
      auto upload = std::make_shared<Multipart>(client_, key_);
      LORRY_TRY(upload->begin());
      upload_ = std::move(upload);
    }
    if (number_ > kMostParts) {
      return unsupported(client_->name_of(key_) + ": larger than S3 takes in 10,000 parts");
    }
    crc_ = crc32c_combine(crc_, part_->crc(), uint64_t(part_->size()));
    sent_ += part_->size();
    const int number = number_;
    auto part = std::move(part_);
    next_part();
    return upload_->send(number, std::move(part));
  }

  const std::shared_ptr<const S3Client> client_;
  const std::string key_;
  std::shared_ptr<PartBytes> part_;
  std::shared_ptr<Multipart> upload_;  ///< null until the first part is full
  int number_ = 0;
  int64_t sent_ = 0, size_ = 0;
  uint32_t crc_ = 0;
  bool closed_ = false;
};

class S3Pending final : public PendingObject {
 public:
  S3Pending(std::shared_ptr<const S3Client> client, std::string key)
      : stream_(std::make_shared<UploadStream>(std::move(client), std::move(key))) {}
  ~S3Pending() override { abandon(); }

  arrow::io::OutputStream& stream() override { return *stream_; }
  Result<> commit(const Guard& guard) override {
    auto finished = stream_->finish(guard);
    if (!finished.ok()) abandon();
    done_ = true;
    return finished;
  }
  void abandon() override {
    if (!done_) stream_->abandon();
    done_ = true;
  }
  int64_t size() const override { return stream_->size(); }
  uint32_t crc32c() const override { return stream_->crc32c(); }

 private:
  std::shared_ptr<UploadStream> stream_;
  bool done_ = false;
};

}  // namespace

std::unique_ptr<PendingObject> start_upload(std::shared_ptr<const S3Client> client,
                                            std::string key) {
  return std::make_unique<S3Pending>(std::move(client), std::move(key));
}

}  // namespace lorry::store
