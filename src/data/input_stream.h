// What streams of bytes that are read forward have in common.
#pragma once

#include <arrow/buffer.h>
#include <arrow/io/interfaces.h>

#include <memory>
#include <utility>

namespace lorry::data {

/// An arrow::io::InputStream of which only `Read(int64_t, void*)` is left to write; that reports
/// what it gave by `advance`. Not thread-safe.
class ForwardStream : public arrow::io::InputStream {
 public:
  ForwardStream() { set_mode(arrow::io::FileMode::READ); }

  using arrow::io::InputStream::Read;
  arrow::Result<std::shared_ptr<arrow::Buffer>> Read(int64_t bytes) override {
    ARROW_ASSIGN_OR_RAISE(auto buffer, arrow::AllocateResizableBuffer(bytes));
    ARROW_ASSIGN_OR_RAISE(const int64_t got, Read(bytes, buffer->mutable_data()));
    ARROW_RETURN_NOT_OK(buffer->Resize(got));
    return std::shared_ptr<arrow::Buffer>(std::move(buffer));
  }
  arrow::Result<int64_t> Tell() const override { return position_; }
  arrow::Status Close() override {
    closed_ = true;
    return arrow::Status::OK();
  }
  bool closed() const override { return closed_; }
  int64_t position() const { return position_; }

 protected:
  void set_position(int64_t position) { position_ = position; }
  int64_t advance(int64_t bytes) {
    position_ += bytes;
    return bytes;
  }

 private:
  int64_t position_ = 0;
  bool closed_ = false;
};

}  // namespace lorry::data
