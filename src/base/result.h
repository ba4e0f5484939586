// Errors as values: `Result<T>` holds a value or an `Error` with a kind and a sentence.
//
// Library code returns errors and never prints or exits; cli/ and serve/ turn them into words.
// The text names the object, the place and the next step ("raw/ds/7: 812 rows in state.json, 640 in
// the data; import this shard again").
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <variant>

namespace lorry {

enum class ErrorKind {
  kUsage,         ///< the command line or an option's value is wrong; exit code 2
  kNotFound,      ///< a named object is not there
  kInvalidInput,  ///< the user's data or request is not what it must be
  kCorruptData,   ///< stored bytes contradict what was recorded of them
  kUnavailable,   ///< storage, network or a resource failed; a retry may help
  kUnsupported,   ///< understood, but not something lorry does
  kCancelled,     ///< a signal or the caller asked to stop
};

/// "not found", "invalid input", ...
std::string_view error_kind_name(ErrorKind kind);

struct Error {
  ErrorKind kind = ErrorKind::kInvalidInput;
  std::string message;

  /// The same error with "context: " in front; an empty context (the root of a bucket) adds
  /// nothing.
  Error with_context(std::string_view context) const {
    if (context.empty()) return *this;
    return {kind, std::string(context) + ": " + message};
  }
};

inline Error usage_error(std::string m) { return {ErrorKind::kUsage, std::move(m)}; }
inline Error not_found(std::string m) { return {ErrorKind::kNotFound, std::move(m)}; }
inline Error invalid_input(std::string m) { return {ErrorKind::kInvalidInput, std::move(m)}; }
inline Error corrupt_data(std::string m) { return {ErrorKind::kCorruptData, std::move(m)}; }
inline Error unavailable(std::string m) { return {ErrorKind::kUnavailable, std::move(m)}; }
inline Error unsupported(std::string m) { return {ErrorKind::kUnsupported, std::move(m)}; }
inline Error cancelled(std::string m) { return {ErrorKind::kCancelled, std::move(m)}; }

/// A value or an error. `Result<>` carries no value.
template <typename T = std::monostate>
class [[nodiscard]] Result {
 public:
  Result(T value) : state_(std::in_place_index<0>, std::move(value)) {}
  Result(Error error) : state_(std::in_place_index<1>, std::move(error)) {}
  template <typename U>
  requires(std::is_convertible_v<U&&, T> && !std::is_same_v<std::remove_cvref_t<U>, T> &&
           !std::is_same_v<std::remove_cvref_t<U>, Error> &&
           !std::is_same_v<std::remove_cvref_t<U>, Result>) Result(U&& value)
      : state_(std::in_place_index<0>, std::forward<U>(value)) {}

  bool ok() const { return state_.index() == 0; }
  explicit operator bool() const { return ok(); }

  const T& value() const& { return std::get<0>(state_); }
  T& value() & { return std::get<0>(state_); }
  T&& value() && { return std::get<0>(std::move(state_)); }
  const T& operator*() const& { return value(); }
  T& operator*() & { return value(); }
  T&& operator*() && { return std::move(*this).value(); }
  const T* operator->() const { return &value(); }
  T* operator->() { return &value(); }

  const Error& error() const& { return std::get<1>(state_); }
  Error&& error() && { return std::get<1>(std::move(state_)); }

  /// The same result, its error (if it is one) with "context: " in front.
  Result with_context(std::string_view context) && {
    if (ok()) return std::move(*this);
    return error().with_context(context);
  }

 private:
  std::variant<T, Error> state_;
};

template <>
class [[nodiscard]] Result<std::monostate> {
 public:
  Result() = default;
  Result(Error error) : error_(std::move(error)), ok_(false) {}

  bool ok() const { return ok_; }
  explicit operator bool() const { return ok_; }
  const Error& error() const& { return error_; }
  Error&& error() && { return std::move(error_); }
  Result with_context(std::string_view context) && {
    if (ok_) return {};
    return error_.with_context(context);
  }

 private:
  Error error_;
  bool ok_ = true;
};

}  // namespace lorry

#define LORRY_CONCAT_(a, b) a##b
#define LORRY_CONCAT(a, b) LORRY_CONCAT_(a, b)

/// Returns the error of `expr` from the enclosing function, if it is one.
#define LORRY_TRY(expr)                                                                            \
  do {                                                                                             \
    if (auto lorry_result_ = (expr); !lorry_result_.ok()) return std::move(lorry_result_).error(); \
  } while (false)

/// Binds the value of `expr` to `decl`, or returns its error.
#define LORRY_ASSIGN(decl, expr) LORRY_ASSIGN_(decl, (expr), LORRY_CONCAT(lorry_result_, __LINE__))
#define LORRY_ASSIGN_(decl, expr, tmp)          \
  auto tmp = expr;                              \
  if (!tmp.ok()) return std::move(tmp).error(); \
  decl = std::move(tmp).value()
