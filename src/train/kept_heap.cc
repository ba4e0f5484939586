#include "train/kept_heap.h"

#include <malloc.h>  // mallopt

namespace lorry::train {

#ifdef __GLIBC__

namespace {

// glibc's defaults (mallopt(3)).
constexpr int kMappings = 65536, kTrimThreshold = 128 << 10;
constexpr int kNeverTrim = -1;

}  // namespace

KeptHeap::KeptHeap() {
  mallopt(M_MMAP_MAX, 0);
  mallopt(M_TRIM_THRESHOLD, kNeverTrim);
}

KeptHeap::~KeptHeap() {
  mallopt(M_MMAP_MAX, kMappings);
  mallopt(M_TRIM_THRESHOLD, kTrimThreshold);
  malloc_trim(0);
}

#else

KeptHeap::KeptHeap() = default;
KeptHeap::~KeptHeap() = default;

#endif

}  // namespace lorry::train
