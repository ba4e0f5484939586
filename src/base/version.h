#pragma once

namespace lorry {

/// The version that info.json records and `lorry --version` prints.
inline constexpr char kVersion[] = "0.1.0";

}  // namespace lorry
