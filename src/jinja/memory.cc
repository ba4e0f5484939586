// Where the memory of values comes from, and what says that it is too much.
#include <new>

#include "jinja/value.h"

namespace lorry::jinja {

void Meter::fail() const {
  raise(work > max_work ? "the template does too much work; rendering was stopped"
                        : "the template needs too much memory; rendering was stopped");
}

namespace {

/// Frees the lists when the thread ends. Values may outlive them, those of static objects: from
/// then on the lists are empty and take nothing.
struct Cleaner {
  void start() const {}
  ~Cleaner() {
    for (FreeList& list : free_lists) {
      while (list.first != nullptr) ::operator delete(list.take());
      list.count = FreeList::kKept;
    }
  }
};
thread_local const Cleaner cleaner;

}  // namespace

void* allocate_fresh(size_t bytes) {
  cleaner.start();  // made with the first object of the thread
  constexpr size_t kStep = FreeList::kStep;
  return ::operator new((bytes + kStep - 1) / kStep * kStep);
}

}  // namespace lorry::jinja
