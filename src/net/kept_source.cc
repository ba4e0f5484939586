// keep_small: one request for a small object, however often it is looked at.
#include <atomic>
#include <cstring>
#include <mutex>

#include "net/ranges.h"

namespace lorry::net {
namespace {

constexpr int64_t kSmall = 64 << 10;

/// Bytes that all kept objects hold.
std::atomic<int64_t>& kept_bytes() {
  static std::atomic<int64_t> bytes{0};
  return bytes;
}

class KeptSource final : public RangeSource {
 public:
  explicit KeptSource(std::shared_ptr<RangeSource> source) : source_(std::move(source)) {}
  ~KeptSource() override { kept_bytes() -= int64_t(bytes_.size()); }

  int64_t size() const override { return source_->size(); }
  const std::string& name() const override { return source_->name(); }

  Result<> read(int64_t offset, std::span<char> into) override {
    if (into.empty()) return {};
    std::unique_lock lock(mutex_);
    if (bytes_.empty() && !take_room()) {
      lock.unlock();
      return source_->read(offset, into);
    }
    if (!read_) {
      LORRY_TRY(source_->read(0, bytes_));
      read_ = true;
    }
    std::memcpy(into.data(), bytes_.data() + offset, into.size());
    return {};
  }

 private:
  /// Room for all of it, if there is any left.
  bool take_room() {
    if (kept_bytes().fetch_add(size()) + size() > transfer_memory() / 4) {
      kept_bytes() -= size();
      return false;
    }
    bytes_.resize(size_t(size()));
    return true;
  }

  const std::shared_ptr<RangeSource> source_;
  std::mutex mutex_;
  std::string bytes_;  ///< guarded by mutex_, as is read_
  bool read_ = false;
};

}  // namespace

std::shared_ptr<RangeSource> keep_small(std::shared_ptr<RangeSource> source) {
  if (source->size() > kSmall || source->size() == 0) return source;
  return std::make_shared<KeptSource>(std::move(source));
}

}  // namespace lorry::net
