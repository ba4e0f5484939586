// A stream that counts and checksums what goes through it.
#pragma once

#include <arrow/buffer.h>
#include <arrow/io/interfaces.h>

#include <memory>

#include "base/crc32c.h"

namespace lorry::store {

/// Not thread-safe.
class HashingStream final : public arrow::io::OutputStream {
 public:
  explicit HashingStream(std::shared_ptr<arrow::io::OutputStream> inner)
      : inner_(std::move(inner)) {}

  using arrow::io::OutputStream::Write;
  arrow::Status Write(const void* data, int64_t size) override {
    count(data, size);
    return inner_->Write(data, size);
  }
  arrow::Status Write(const std::shared_ptr<arrow::Buffer>& data) override {
    count(data->data(), data->size());
    return inner_->Write(data);
  }
  arrow::Status Flush() override { return inner_->Flush(); }
  arrow::Status Close() override { return inner_->Close(); }
  bool closed() const override { return inner_->closed(); }
  arrow::Result<int64_t> Tell() const override { return inner_->Tell(); }

  int64_t size() const { return size_; }
  uint32_t crc32c() const { return crc_; }

 private:
  void count(const void* data, int64_t size) {
    crc_ = lorry::crc32c(crc_, data, size_t(size));
    size_ += size;
  }

  std::shared_ptr<arrow::io::OutputStream> inner_;
  int64_t size_ = 0;
  uint32_t crc_ = 0;
};

}  // namespace lorry::store
