// The headers of a tar archive. Layout: POSIX pax (ustar with extended headers), and GNU's 'L'.
#include <fmt/format.h>

#include <algorithm>
#include <charconv>

#include "data/archive_index.h"
#include "store/arrow_error.h"

namespace lorry::data {
namespace {

constexpr int64_t kBlock = 512;
constexpr int64_t kLongestName = 1 << 20;

std::string_view text_at(const std::string& header, size_t at, size_t size) {
  const auto field = std::string_view(header).substr(at, size);
  return field.substr(0, field.find('\0'));
}

/// An octal number, or a big-endian one with the high bit set (GNU's for large files); -1 if it is
/// neither.
int64_t number_at(const std::string& header, size_t at, size_t size) {
  auto field = std::string_view(header).substr(at, size);
  if (static_cast<unsigned char>(field[0]) & 0x80) {
    int64_t value = 0;
    for (const char c : field.substr(size - 8)) {
      value = int64_t(uint64_t(value) << 8 | static_cast<unsigned char>(c));
    }
    return value;
  }
  field = field.substr(std::min(field.find_first_not_of(' '), field.size()));
  int64_t value = 0;
  const auto end = std::from_chars(field.data(), field.data() + field.size(), value, 8);
  return end.ec == std::errc() ? value : -1;
}

bool is_header(const std::string& block) {
  int64_t sum = 0;
  for (size_t i = 0; i < block.size(); ++i) {
    sum += i >= 148 && i < 156 ? ' ' : static_cast<unsigned char>(block[i]);
  }
  return sum == number_at(block, 148, 8);
}

/// What the extended header before a member says of it.
struct Extended {
  std::string name;
  int64_t size = -1;
};

/// Records "LENGTH KEY=VALUE\n".
void read_pax(std::string_view records, Extended& extended) {
  while (!records.empty()) {
    size_t length = 0;
    const auto end = std::from_chars(records.data(), records.data() + records.size(), length);
    const size_t digits = size_t(end.ptr - records.data());
    if (end.ec != std::errc() || length > records.size() || length < digits + 2) return;
    const auto record = records.substr(digits + 1, length - digits - 2);
    const size_t equals = std::min(record.find('='), record.size());
    const auto key = record.substr(0, equals);
    const auto value = record.substr(std::min(equals + 1, record.size()));
    if (key == "path") extended.name = value;
    if (key == "size") {
      std::from_chars(value.data(), value.data() + value.size(), extended.size);
    }
    records.remove_prefix(length);
  }
}

class TarIndex {
 public:
  TarIndex(arrow::io::RandomAccessFile& file, const std::string& path) : file_(file), path_(path) {}

  Result<std::vector<ArchiveMember>> read() {
    LORRY_ASSIGN(size_, store::from_arrow(file_.GetSize(), path_));
    std::vector<ArchiveMember> members;
    while (at_ + kBlock <= size_) {
      LORRY_ASSIGN(const std::string header, bytes_at(at_, kBlock));
      if (header.find_first_not_of('\0') == std::string::npos) return members;
      LORRY_TRY(take(header, members));
    }
    return damaged();  // the end is a block of zeros
  }

 private:
  Error damaged() const {
    return corrupt_data(fmt::format("{}: not a whole tar archive; is it cut short?", path_));
  }

  Result<std::string> bytes_at(int64_t offset, int64_t size) {
    std::string bytes(size_t(size), '\0');
    LORRY_ASSIGN(const int64_t got,
                 store::from_arrow(file_.ReadAt(offset, size, bytes.data()), path_));
    if (got != size) return damaged();
    return bytes;
  }

  Result<> take(const std::string& header, std::vector<ArchiveMember>& members) {
    if (!is_header(header)) return damaged();
    const char type = header[156];
    int64_t size = number_at(header, 124, 12);
    const bool is_file = type == '0' || type == '\0' || type == '7';
    if (is_file && extended_.size >= 0) size = extended_.size;
    const int64_t data = at_ + kBlock;
    if (size < 0 || size > size_ - data) return damaged();
    at_ = data + (size + kBlock - 1) / kBlock * kBlock;
    if (type == 'x' || type == 'L') return take_extended(type, data, size);
    if (is_file) members.push_back({name_of(header), data, size, std::nullopt});
    if (type != 'g' && type != 'K') extended_ = {};
    return {};
  }

  Result<> take_extended(char type, int64_t data, int64_t size) {
    if (size > kLongestName) return damaged();
    LORRY_ASSIGN(const std::string text, bytes_at(data, size));
    if (type == 'x') {
      read_pax(text, extended_);
    } else {
      extended_.name = text.substr(0, text.find('\0'));
    }
    return {};
  }

  std::string name_of(const std::string& header) const {
    if (!extended_.name.empty()) return extended_.name;
    const std::string name(text_at(header, 0, 100));
    const bool is_ustar = header.compare(257, 6, std::string("ustar\0", 6)) == 0;
    const std::string prefix(is_ustar ? text_at(header, 345, 155) : "");
    return prefix.empty() ? name : prefix + "/" + name;
  }

  arrow::io::RandomAccessFile& file_;
  const std::string& path_;
  int64_t size_ = 0, at_ = 0;
  Extended extended_;  ///< for the next member
};

}  // namespace

Result<std::vector<ArchiveMember>> tar_members(arrow::io::RandomAccessFile& file,
                                               const std::string& path) {
  return TarIndex(file, path).read();
}

}  // namespace lorry::data
