#include "base/crc32c.h"

#include <array>
#include <cstring>

#if defined(__x86_64__)
#include <nmmintrin.h>
#elif defined(__aarch64__) && defined(__ARM_FEATURE_CRC32)
#include <arm_acle.h>
#endif

namespace lorry {
namespace {

constexpr uint32_t kPolynomial = 0x82f63b78;  // reflected

/// tables[k][b]: the register after byte b and k zero bytes.
constexpr std::array<std::array<uint32_t, 256>, 8> make_tables() {
  std::array<std::array<uint32_t, 256>, 8> tables{};
  for (uint32_t b = 0; b < 256; ++b) {
    uint32_t crc = b;
    for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ (crc & 1 ? kPolynomial : 0);
    tables[0][b] = crc;
  }
  for (uint32_t b = 0; b < 256; ++b) {
    for (int k = 1; k < 8; ++k) {
      tables[k][b] = (tables[k - 1][b] >> 8) ^ tables[0][tables[k - 1][b] & 0xff];
    }
  }
  return tables;
}
constexpr auto kTables = make_tables();

/// a * b modulo the polynomial; bit 31 is the coefficient of x^0.
constexpr uint32_t multiply(uint32_t a, uint32_t b) {
  uint32_t product = 0;
  for (int bit = 31; bit >= 0; --bit) {
    if (a >> bit & 1) product ^= b;
    b = (b >> 1) ^ (b & 1 ? kPolynomial : 0);
  }
  return product;
}

/// x^(8 n): what n zero bytes multiply a register by.
constexpr uint32_t shift_by_bytes(uint64_t n) {
  uint32_t result = 0x80000000, power = 0x00800000;  // 1 and x^8
  for (; n; n >>= 1) {
    if (n & 1) result = multiply(power, result);
    power = multiply(power, power);
  }
  return result;
}

uint32_t run_portable(uint32_t crc, const uint8_t* data, size_t size) {
  while (size >= 8) {
    uint64_t word;
    std::memcpy(&word, data, 8);
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    word = __builtin_bswap64(word);
#endif
    word ^= crc;
    crc = 0;
    for (int k = 0; k < 8; ++k) crc ^= kTables[7 - k][word >> (8 * k) & 0xff];
    data += 8;
    size -= 8;
  }
  while (size--) crc = (crc >> 8) ^ kTables[0][(crc ^ *data++) & 0xff];
  return crc;
}

#if defined(__x86_64__)
/// Multiplying by a constant that shifts by `Bytes`, by four table lookups.
template <size_t Bytes>
uint32_t shift(uint32_t crc) {
  static constexpr auto tables = [] {
    std::array<std::array<uint32_t, 256>, 4> made{};
    const uint32_t factor = shift_by_bytes(Bytes);
    for (uint32_t k = 0; k < 4; ++k) {
      for (uint32_t b = 0; b < 256; ++b) made[k][b] = multiply(b << (8 * k), factor);
    }
    return made;
  }();
  return tables[0][crc & 0xff] ^ tables[1][crc >> 8 & 0xff] ^ tables[2][crc >> 16 & 0xff] ^
         tables[3][crc >> 24];
}

/// The instruction takes three cycles and one can start each cycle: three streams side by side.
template <size_t Block>
__attribute__((target("sse4.2"))) uint64_t run_three(uint64_t crc, const uint8_t*& data,
                                                     size_t& size) {
  while (size >= 3 * Block) {
    uint64_t a = crc, b = 0, c = 0;
    for (size_t i = 0; i < Block; i += 8) {
      uint64_t x, y, z;
      std::memcpy(&x, data + i, 8);
      std::memcpy(&y, data + Block + i, 8);
      std::memcpy(&z, data + 2 * Block + i, 8);
      a = _mm_crc32_u64(a, x);
      b = _mm_crc32_u64(b, y);
      c = _mm_crc32_u64(c, z);
    }
    crc = shift<2 * Block>(uint32_t(a)) ^ shift<Block>(uint32_t(b)) ^ uint32_t(c);
    data += 3 * Block;
    size -= 3 * Block;
  }
  return crc;
}

__attribute__((target("sse4.2"))) uint32_t run_hardware(uint32_t start, const uint8_t* data,
                                                        size_t size) {
  uint64_t crc = start;
  crc = run_three<4096>(crc, data, size);
  crc = run_three<256>(crc, data, size);
  for (; size >= 8; data += 8, size -= 8) {
    uint64_t word;
    std::memcpy(&word, data, 8);
    crc = _mm_crc32_u64(crc, word);
  }
  for (; size; ++data, --size) crc = _mm_crc32_u8(uint32_t(crc), *data);
  return uint32_t(crc);
}

bool has_hardware() { return __builtin_cpu_supports("sse4.2"); }
#elif defined(__aarch64__) && defined(__ARM_FEATURE_CRC32)
uint32_t run_hardware(uint32_t crc, const uint8_t* data, size_t size) {
  for (; size >= 8; data += 8, size -= 8) {
    uint64_t word;
    std::memcpy(&word, data, 8);
    crc = __crc32cd(crc, word);
  }
  for (; size; ++data, --size) crc = __crc32cb(crc, *data);
  return crc;
}
bool has_hardware() { return true; }
#else
uint32_t run_hardware(uint32_t crc, const uint8_t* data, size_t size) {
  return run_portable(crc, data, size);
}
bool has_hardware() { return false; }
#endif

}  // namespace

uint32_t crc32c(uint32_t crc, const void* data, size_t size) {
  static const bool hardware = has_hardware();
  const auto* bytes = static_cast<const uint8_t*>(data);
  return ~(hardware ? run_hardware(~crc, bytes, size) : run_portable(~crc, bytes, size));
}

uint32_t crc32c_portable(uint32_t crc, const void* data, size_t size) {
  return ~run_portable(~crc, static_cast<const uint8_t*>(data), size);
}

uint32_t crc32c_combine(uint32_t a, uint32_t b, uint64_t size_b) {
  return multiply(shift_by_bytes(size_b), a) ^ b;
}

std::string crc32c_hex(uint32_t crc) {
  std::string text(8, '0');
  for (int i = 7; i >= 0; --i, crc >>= 4) text[size_t(i)] = "0123456789abcdef"[crc & 15];
  return text;
}

}  // namespace lorry
