// In place of cuda_driver.cc in the tests: "launches" kernels that g++ has compiled for the host.
#include "ops/cuda_on_host.h"

#include <dlfcn.h>  // kernels are found by name in the test program
#include <ucontext.h>

#include <memory>
#include <stdexcept>
#include <vector>

#include "ops/cuda_driver.h"

namespace lorry::ops {
namespace {

using Kernel = void (*)(const void* arguments);

constexpr size_t kStackBytes = 1 << 16;

/// A block of threads, each with a stack of its own.
class Block {
 public:
  Block(Kernel kernel, const void* arguments) : kernel_(kernel), arguments_(arguments) {}

  /// Runs all threads to the end, in turns that end at barriers.
  void run() {
    const size_t count = size_t{blockDim.x} * blockDim.y;
    threads_.resize(count);
    for (auto& thread : threads_) start(thread);
    running_ = this;
    for (size_t left = count; left > 0;) {
      for (current_ = 0; current_ < count; ++current_) {
        Thread& thread = threads_[current_];
        if (thread.done) continue;
        threadIdx = dim3(current_ % blockDim.x, current_ / blockDim.x);
        swapcontext(&scheduler_, &thread.context);
        left -= thread.done;
      }
    }
  }

  void barrier() { swapcontext(&threads_[current_].context, &scheduler_); }

  float exchange(float value, int offset) {
    // Two slots in turn: a thread may put down its next value before another has read this one.
    Thread& mine = threads_[current_];
    const int slot = mine.exchanges++ & 1;
    mine.values[slot] = value;
    const size_t partner = current_ ^ static_cast<size_t>(offset);
    barrier();
    return threads_.at(partner).values[slot];
  }

  static Block* running() { return running_; }

 private:
  struct Thread {
    ucontext_t context{};
    std::unique_ptr<char[]> stack;
    float values[2] = {};
    int exchanges = 0;
    bool done = false;
  };

  static void enter() {
    running_->kernel_(running_->arguments_);
    running_->threads_[running_->current_].done = true;
  }

  void start(Thread& thread) {
    thread.exchanges = 0;
    thread.done = false;
    if (thread.stack == nullptr) thread.stack.reset(new char[kStackBytes]);
    getcontext(&thread.context);
    thread.context.uc_stack = {thread.stack.get(), 0, kStackBytes};
    thread.context.uc_link = &scheduler_;
    makecontext(&thread.context, &Block::enter, 0);
  }

  inline static Block* running_ = nullptr;
  Kernel kernel_;
  const void* arguments_;
  std::vector<Thread> threads_;
  size_t current_ = 0;
  ucontext_t scheduler_{};
};

}  // namespace

namespace host {
void barrier() { Block::running()->barrier(); }
float exchange(float value, int offset) { return Block::running()->exchange(value, offset); }
}  // namespace host

CudaKernels::CudaKernels(const void* /*fatbin*/, const std::vector<std::string>& names) {
  for (const auto& name : names) {
    void* const kernel = dlsym(RTLD_DEFAULT, name.c_str());
    if (kernel == nullptr) throw std::runtime_error("no kernel " + name);
    kernels_.push_back(kernel);
  }
}

void CudaKernels::load(int /*device*/) const {}

void CudaKernels::launch(size_t kernel, int /*device*/, Shape shape, void* arguments) const {
  gridDim = dim3(shape.blocks);
  blockDim = dim3(shape.threads_x, shape.threads_y);
  Block block(reinterpret_cast<Kernel>(kernels_.at(kernel)), arguments);
  for (unsigned index = 0; index < shape.blocks; ++index) {
    blockIdx = dim3(index);
    block.run();
  }
}

/// Few, so that blocks of a backward pass walk over many rows.
int multiprocessors(int /*device*/) { return 2; }

}  // namespace lorry::ops
