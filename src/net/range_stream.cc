// open_range_stream: a sequential reader with several ranges in flight.
#include <arrow/buffer.h>
#include <arrow/io/interfaces.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstring>
#include <deque>
#include <mutex>

#include "net/arrow_status.h"
#include "net/io_pool.h"
#include "net/ranges.h"

namespace lorry::net {
namespace {

constexpr int64_t kBlock = 4 << 20;
constexpr size_t kMostAhead = 8;
/// Pieces of at least this many bytes are handed out without a copy; smaller ones would keep a
/// whole block alive.
constexpr int64_t kNoCopy = 256 << 10;

/// Memory of blocks that were read, for the next ones: fresh pages cost as much as the network.
class BlockMemory {
 public:
  static std::unique_ptr<char[]> take() {
    {
      std::lock_guard lock(mutex());
      if (!free().empty()) {
        auto block = std::move(free().back());
        free().pop_back();
        return block;
      }
    }
    return std::unique_ptr<char[]>(new char[size_t(kBlock)]);
  }

  static void give(std::unique_ptr<char[]> block) {
    std::lock_guard lock(mutex());
    if (free().size() < 2 * kMostAhead) free().push_back(std::move(block));
  }

 private:
  static std::mutex& mutex() {
    static auto* const made = new std::mutex;
    return *made;
  }
  static std::vector<std::unique_ptr<char[]>>& free() {
    static auto* const made = new std::vector<std::unique_ptr<char[]>>;
    return *made;
  }
};

/// A block as an Arrow buffer; slices keep it, and its share of the memory, alive.
class Block final : public arrow::Buffer {
 public:
  Block(MemoryShare share, int64_t size) : Block(BlockMemory::take(), std::move(share), size) {}
  ~Block() override { BlockMemory::give(std::move(memory_)); }

  std::span<char> span() { return {memory_.get(), size_t(size_)}; }

 private:
  Block(std::unique_ptr<char[]> memory, MemoryShare share, int64_t size)
      : arrow::Buffer(reinterpret_cast<const uint8_t*>(memory.get()), size),
        memory_(std::move(memory)),
        share_(std::move(share)) {}

  std::unique_ptr<char[]> memory_;
  MemoryShare share_;
};

/// A block on its way; guarded by Flight::mutex.
struct Ahead {
  std::shared_ptr<Block> block;
  bool done = false;
  Result<> result;
};

/// What the reader and the transfers share.
struct Flight {
  std::shared_ptr<RangeSource> source;
  std::atomic<bool> stop{false};
  std::mutex mutex;
  std::condition_variable arrived;
};

class RangeStream final : public arrow::io::InputStream {
 public:
  RangeStream(std::shared_ptr<RangeSource> source, int64_t offset, std::string first)
      : flight_(std::make_shared<Flight>()),
        size_(source->size()),
        position_(offset),
        scheduled_(offset + int64_t(first.size())) {
    flight_->source = std::move(source);
    if (!first.empty()) current_ = arrow::Buffer::FromString(std::move(first));
    set_mode(arrow::io::FileMode::READ);
  }
  ~RangeStream() override { flight_->stop = true; }

  arrow::Result<int64_t> Read(int64_t size, void* out) override {
    int64_t done = 0;
    while (done < size) {
      ARROW_RETURN_NOT_OK(fill());
      if (!current_) break;
      const int64_t n = std::min(size - done, left_in_current());
      std::memcpy(static_cast<char*>(out) + done, current_->data() + at_, size_t(n));
      advance(n);
      done += n;
    }
    return done;
  }

  arrow::Result<std::shared_ptr<arrow::Buffer>> Read(int64_t size) override {
    ARROW_RETURN_NOT_OK(fill());
    if (!current_ || size <= 0) return arrow::Buffer::FromString("");
    if (size >= kNoCopy && (size <= left_in_current() || left_in_all() == left_in_current())) {
      const int64_t n = std::min(size, left_in_current());
      auto slice = arrow::SliceBuffer(current_, at_, n);
      advance(n);
      return slice;
    }
    ARROW_ASSIGN_OR_RAISE(auto buffer,
                          arrow::AllocateResizableBuffer(std::min(size, left_in_all())));
    ARROW_ASSIGN_OR_RAISE(const int64_t got, Read(buffer->size(), buffer->mutable_data()));
    ARROW_RETURN_NOT_OK(buffer->Resize(got, /*shrink_to_fit=*/false));
    return std::shared_ptr<arrow::Buffer>(std::move(buffer));
  }

  arrow::Result<int64_t> Tell() const override { return position_; }
  arrow::Status Close() override {
    flight_->stop = true;
    closed_ = true;
    ahead_.clear();
    current_.reset();
    return arrow::Status::OK();
  }
  bool closed() const override { return closed_; }

 private:
  int64_t left_in_current() const { return current_->size() - at_; }
  int64_t left_in_all() const { return size_ - position_; }

  void advance(int64_t n) {
    at_ += n;
    position_ += n;
    if (at_ < current_->size()) return;
    current_.reset();
    at_ = 0;
  }

  /// Makes `current_` the block at `position_`; it stays null at the end.
  arrow::Status fill() {
    if (closed_) return arrow::Status::Invalid("stream is closed");
    schedule();
    if (current_ || ahead_.empty()) return arrow::Status::OK();
    const std::shared_ptr<Ahead> next = ahead_.front();
    {
      std::unique_lock lock(flight_->mutex);
      flight_->arrived.wait(lock, [&] { return next->done; });
    }
    if (!next->result.ok()) return to_arrow(next->result.error());  // stays at the front
    ahead_.pop_front();
    current_ = next->block;
    // A reader that goes on gets more ahead each time; one that looks at the start costs little.
    depth_ = std::min(2 * depth_, kMostAhead);
    schedule();
    return arrow::Status::OK();
  }

  /// Starts transfers up to `depth_`; beyond the first only as far as there is memory.
  void schedule() {
    while (scheduled_ < size_ && ahead_.size() < depth_) {
      MemoryShare share;
      if (!share.try_take(kBlock)) {
        if (current_ || !ahead_.empty()) return;
        share.take(kBlock);
      }
      const int64_t n = std::min(kBlock, size_ - scheduled_);
      auto ahead = std::make_shared<Ahead>();
      ahead->block = std::make_shared<Block>(std::move(share), n);
      ahead_.push_back(ahead);
      run_in_background([flight = flight_, ahead, offset = scheduled_] {
        Result<> result = cancelled("the reader has gone");
        if (!flight->stop) result = flight->source->read(offset, ahead->block->span());
        std::lock_guard lock(flight->mutex);
        ahead->result = std::move(result);
        ahead->done = true;
        flight->arrived.notify_all();
      });
      scheduled_ += n;
    }
  }

  std::shared_ptr<Flight> flight_;
  const int64_t size_;
  int64_t position_;   ///< of the reader
  int64_t scheduled_;  ///< up to here bytes are in current_ or ahead_
  std::shared_ptr<arrow::Buffer> current_;
  int64_t at_ = 0;  ///< place in current_
  std::deque<std::shared_ptr<Ahead>> ahead_;
  size_t depth_ = 2;
  bool closed_ = false;
};

}  // namespace

std::shared_ptr<arrow::io::InputStream> open_range_stream(std::shared_ptr<RangeSource> source,
                                                          int64_t offset, std::string first) {
  return std::make_shared<RangeStream>(std::move(source), offset, std::move(first));
}

}  // namespace lorry::net
