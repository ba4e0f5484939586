// Pseudo-random numbers that are functions of a seed and a position.
#pragma once

#include <cstdint>

namespace lorry {

/// A well-mixed 64-bit value of two others: output b of splitmix64 from seed a (Steele et al. 2014,
/// "Fast Splittable Pseudorandom Number Generators").
inline uint64_t mix(uint64_t a, uint64_t b) {
  uint64_t z = a + 0x9e3779b97f4a7c15ULL * (b + 1);
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
  return z ^ (z >> 31);
}

}  // namespace lorry
