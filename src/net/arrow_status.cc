#include "net/arrow_status.h"

#include <memory>
#include <string>

namespace lorry::net {
namespace {

class ErrorDetail final : public arrow::StatusDetail {
 public:
  explicit ErrorDetail(Error error) : error_(std::move(error)) {}
  const char* type_id() const override { return kTypeId; }
  std::string ToString() const override { return std::string(error_kind_name(error_.kind)); }
  const Error& error() const { return error_; }
  static constexpr char kTypeId[] = "lorry::Error";

 private:
  Error error_;
};

}  // namespace

arrow::Status to_arrow(const Error& error) {
  return arrow::Status(arrow::StatusCode::IOError, error.message,
                       std::make_shared<ErrorDetail>(error));
}

const Error* error_in(const arrow::Status& status) {
  const auto& detail = status.detail();
  if (!detail || std::string_view(detail->type_id()) != ErrorDetail::kTypeId) return nullptr;
  return &static_cast<const ErrorDetail&>(*detail).error();
}

}  // namespace lorry::net
