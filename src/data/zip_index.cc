// The directory of a zip archive, also of a large one (zip64). Layout: PKWARE's APPNOTE, 4.3.
#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "data/archive_index.h"
#include "store/arrow_error.h"

namespace lorry::data {
namespace {

constexpr uint32_t kEndMark = 0x06054b50, kEnd64Mark = 0x06064b50, kLocator64Mark = 0x07064b50;
constexpr uint32_t kEntryMark = 0x02014b50, kLocalMark = 0x04034b50;
constexpr int64_t kEndSize = 22, kEnd64Size = 56, kLocator64Size = 20, kEntrySize = 46,
                  kLocalSize = 30;
constexpr int64_t kMostDirectory = 256 << 20;

/// A little-endian number at `at`; the caller has checked that it is there.
template <typename T>
T number(std::string_view bytes, size_t at) {
  T value;
  std::memcpy(&value, bytes.data() + at, sizeof(value));
  return value;
}

class ZipIndex {
 public:
  ZipIndex(arrow::io::RandomAccessFile& file, const std::string& path) : file_(file), path_(path) {}

  Result<std::vector<ArchiveMember>> read() {
    LORRY_ASSIGN(size_, store::from_arrow(file_.GetSize(), path_));
    LORRY_TRY(find_directory());
    if (directory_size_ < 0 || directory_size_ > kMostDirectory) return damaged();
    LORRY_ASSIGN(const std::string directory, bytes_at(directory_at_, directory_size_));
    std::vector<ArchiveMember> members;
    size_t at = 0;
    for (int64_t i = 0; i < entries_; ++i) {
      LORRY_ASSIGN(auto member, read_entry(directory, at));
      if (!member.name.ends_with('/')) members.push_back(std::move(member));
    }
    return members;
  }

 private:
  Error damaged() const {
    return corrupt_data(fmt::format("{}: not a whole zip archive; is it cut short?", path_));
  }

  Result<std::string> bytes_at(int64_t offset, int64_t size) {
    if (offset < 0 || size < 0 || offset > size_ - size) return damaged();
    std::string bytes(size_t(size), '\0');
    LORRY_ASSIGN(const int64_t got,
                 store::from_arrow(file_.ReadAt(offset, size, bytes.data()), path_));
    if (got != size) return damaged();
    return bytes;
  }

  /// From the end record, which a comment of up to 64 KiB may follow.
  Result<> find_directory() {
    const int64_t tail_size = std::min<int64_t>(size_, kEndSize + 65535);
    LORRY_ASSIGN(const std::string tail, bytes_at(size_ - tail_size, tail_size));
    if (tail_size < kEndSize) return damaged();
    size_t at = size_t(tail_size - kEndSize);
    while (number<uint32_t>(tail, at) != kEndMark) {
      if (at-- == 0) return damaged();
    }
    entries_ = number<uint16_t>(tail, at + 10);
    directory_size_ = number<uint32_t>(tail, at + 12);
    directory_at_ = number<uint32_t>(tail, at + 16);
    const bool is_large =
        entries_ == 0xFFFF || directory_size_ == 0xFFFFFFFF || directory_at_ == 0xFFFFFFFF;
    return is_large ? find_large_directory(size_ - tail_size + int64_t(at)) : Result<>();
  }

  Result<> find_large_directory(int64_t end_at) {
    LORRY_ASSIGN(const auto locator, bytes_at(end_at - kLocator64Size, kLocator64Size));
    if (number<uint32_t>(locator, 0) != kLocator64Mark) return {};
    LORRY_ASSIGN(const auto end, bytes_at(number<int64_t>(locator, 8), kEnd64Size));
    if (number<uint32_t>(end, 0) != kEnd64Mark) return damaged();
    entries_ = number<int64_t>(end, 32);
    directory_size_ = number<int64_t>(end, 40);
    directory_at_ = number<int64_t>(end, 48);
    return {};
  }

  /// The entry at `at`, which goes past it.
  Result<ArchiveMember> read_entry(const std::string& directory, size_t& at) {
    if (at + size_t(kEntrySize) > directory.size()) return damaged();
    const auto entry = std::string_view(directory).substr(at);
    if (number<uint32_t>(entry, 0) != kEntryMark) return damaged();
    const size_t name = number<uint16_t>(entry, 28), extra = number<uint16_t>(entry, 30),
                 comment = number<uint16_t>(entry, 32);
    const size_t whole = size_t(kEntrySize) + name + extra + comment;
    if (whole > entry.size()) return damaged();
    at += whole;

    ArchiveMember member;
    member.name = entry.substr(size_t(kEntrySize), name);
    member.size = number<uint32_t>(entry, 20);
    int64_t unpacked = number<uint32_t>(entry, 24), header_at = number<uint32_t>(entry, 42);
    LORRY_TRY(read_large_numbers(entry.substr(size_t(kEntrySize) + name, extra), unpacked,
                                 member.size, header_at));
    if (member.name.ends_with('/')) return member;
    const uint16_t flags = number<uint16_t>(entry, 8), method = number<uint16_t>(entry, 10);
    if (flags & 1) return refused(member, "is encrypted");
    if (method != 0 && method != 8)
      return refused(member, "is packed by another method than deflate");
    if (method == 8) member.zipped = ZippedMember{unpacked, number<uint32_t>(entry, 16)};
    member.offset = header_at;  // of its header: zip_bytes_at goes on from there
    const int64_t most = size_ - kLocalSize;
    const bool is_inside = member.size >= 0 && member.offset >= 0 && member.size <= most &&
                           member.offset <= most - member.size;
    if (!is_inside) return damaged();
    return member;
  }

  Error refused(const ArchiveMember& member, const char* why) const {
    return unsupported(fmt::format("{}: {} {}; unpack it first", path_, member.name, why));
  }

  /// Those that do not fit 32 bits stand in an extra field, in this order.
  Result<> read_large_numbers(std::string_view extra, int64_t& unpacked, int64_t& stored,
                              int64_t& header_at) {
    while (extra.size() >= 4) {
      const size_t size = number<uint16_t>(extra, 2);
      if (size > extra.size() - 4) return damaged();
      auto field = extra.substr(4, size);
      if (number<uint16_t>(extra, 0) == 1) {
        for (int64_t* value : {&unpacked, &stored, &header_at}) {
          if (*value != 0xFFFFFFFF) continue;
          if (field.size() < 8) return damaged();
          *value = number<int64_t>(field, 0);
          field.remove_prefix(8);
        }
      }
      extra.remove_prefix(4 + size);
    }
    return {};
  }

  arrow::io::RandomAccessFile& file_;
  const std::string& path_;
  int64_t size_ = 0, entries_ = 0, directory_at_ = 0, directory_size_ = 0;
};

}  // namespace

Result<std::vector<ArchiveMember>> zip_members(arrow::io::RandomAccessFile& file,
                                               const std::string& path) {
  return ZipIndex(file, path).read();
}

Result<int64_t> zip_bytes_at(arrow::io::RandomAccessFile& file, const ArchiveMember& member,
                             const std::string& path) {
  std::string header(size_t(kLocalSize), '\0');
  LORRY_ASSIGN(const int64_t got,
               store::from_arrow(file.ReadAt(member.offset, kLocalSize, header.data()), path));
  if (got != kLocalSize || number<uint32_t>(header, 0) != kLocalMark) {
    return corrupt_data(fmt::format("{}: no header of {} where it should be", path, member.name));
  }
  return member.offset + kLocalSize + number<uint16_t>(header, 26) + number<uint16_t>(header, 28);
}

}  // namespace lorry::data
