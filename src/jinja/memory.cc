// Where the memory of values comes from, and what says that it is too much.
#include <array>
#include <vector>

#include "jinja/value.h"

namespace lorry::jinja {

// Off where every object is to be watched by itself.
#if defined(__SANITIZE_ADDRESS__)
constexpr bool kPooled = false;
#else
constexpr bool kPooled = true;
#endif

void Meter::fail() const {
  raise(work > max_work ? "the template does too much work; rendering was stopped"
                        : "the template needs too much memory; rendering was stopped");
}

namespace {

/// Values may outlive the pool of the thread that ends: those of static objects.
constinit thread_local bool pool_is_gone = false;

/// Freed memory of one thread, by size.
class Pool {
 public:
  Pool() = default;
  Pool(const Pool&) = delete;
  Pool& operator=(const Pool&) = delete;
  ~Pool() {
    pool_is_gone = true;
    for (auto& list : free_) {
      for (void* memory : list) ::operator delete(memory);
    }
  }

  void* take(size_t bytes) {
    auto* list = of_size(bytes);
    if (list == nullptr || list->empty()) return ::operator new(rounded(bytes));
    void* memory = list->back();
    list->pop_back();
    return memory;
  }

  void give(void* memory, size_t bytes) {
    auto* list = of_size(bytes);
    if (list == nullptr || list->size() >= kKept) return ::operator delete(memory);
    list->push_back(memory);
  }

 private:
  static constexpr size_t kStep = 16, kSizes = 12, kKept = 256;
  static size_t rounded(size_t bytes) { return (bytes + kStep - 1) / kStep * kStep; }
  std::vector<void*>* of_size(size_t bytes) {
    const size_t i = rounded(bytes) / kStep;
    return kPooled && i < kSizes ? &free_[i] : nullptr;
  }

  std::array<std::vector<void*>, kSizes> free_;
};

thread_local Pool pool;

}  // namespace

void* Obj::operator new(size_t bytes) {
  meter.bytes += static_cast<int64_t>(bytes);
  return pool_is_gone ? ::operator new(bytes) : pool.take(bytes);
}

void Obj::operator delete(void* memory, size_t bytes) {
  meter.bytes -= static_cast<int64_t>(bytes);
  if (pool_is_gone) return ::operator delete(memory);
  pool.give(memory, bytes);
}

}  // namespace lorry::jinja
