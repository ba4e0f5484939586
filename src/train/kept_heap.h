// The host's heap while a training runs.
#pragma once

namespace lorry::train {

/// While it lives, the C library keeps the memory of freed tensors for the next ones. By itself it
/// maps each large buffer anew, and the kernel then clears and faults in every page of it at every
/// use: a tenth of the processor time of a step whose activations are tens of megabytes. What it
/// kept is returned when it goes. One at a time; where the C library is not glibc it does nothing.
class KeptHeap {
 public:
  KeptHeap();
  ~KeptHeap();
  KeptHeap(const KeptHeap&) = delete;
  KeptHeap& operator=(const KeptHeap&) = delete;
};

}  // namespace lorry::train
