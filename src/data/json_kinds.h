// The kinds of JSON values, as bits of a set.
#pragma once

#include <cstdint>

namespace lorry::data {

inline constexpr uint8_t kJsonBool = 1;
inline constexpr uint8_t kJsonInteger = 2;
inline constexpr uint8_t kJsonDouble = 4;
inline constexpr uint8_t kJsonString = 8;
inline constexpr uint8_t kJsonList = 16;
inline constexpr uint8_t kJsonObject = 32;

}  // namespace lorry::data
