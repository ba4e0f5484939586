// For the wheel alone: what this compiler's headers take from a newer glibc or libstdc++ than
// manylinux_2_28 has. Linked into program and engine, each its own.
#include <dlfcn.h>
#include <pthread.h>
#include <time.h>

#include <sstream>

#pragma GCC visibility push(hidden)

extern "C" {

/// glibc 2.32. Never one thread alone: shared_ptr counts with atomic instructions.
char __libc_single_threaded = 0;  // NOLINT(bugprone-reserved-identifier)

/// glibc 2.30. Waits until a time of the given clock. An older glibc knows the real-time clock
/// alone; the caller, std::condition_variable, looks at its own clock again after a timeout.
int pthread_cond_clockwait(pthread_cond_t* condition, pthread_mutex_t* mutex, clockid_t clock,
                           const timespec* deadline) {
  using Function = int (*)(pthread_cond_t*, pthread_mutex_t*, clockid_t, const timespec*);
  static const auto kGlibc =
      reinterpret_cast<Function>(dlsym(RTLD_DEFAULT, "pthread_cond_clockwait"));
  if (kGlibc != nullptr) return kGlibc(condition, mutex, clock, deadline);
  constexpr long kSecond = 1'000'000'000;
  timespec now{}, real{};
  clock_gettime(clock, &now);
  clock_gettime(CLOCK_REALTIME, &real);
  long nanoseconds = real.tv_nsec + deadline->tv_nsec - now.tv_nsec;
  real.tv_sec += deadline->tv_sec - now.tv_sec + (nanoseconds < 0 ? -1 : nanoseconds / kSecond);
  real.tv_nsec = (nanoseconds + kSecond) % kSecond;
  return pthread_cond_timedwait(condition, mutex, &real);
}

}  // extern "C"

#pragma GCC visibility pop

// Members of libstdc++'s templates that came after GCC 8, here alone instead of with all their
// class from libstdc++.a.
template std::string std::stringbuf::str() const&;
template std::stringstream::basic_stringstream();
template std::ostringstream::basic_ostringstream();
template std::istringstream::basic_istringstream();
