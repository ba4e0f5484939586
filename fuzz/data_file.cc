// The first byte chooses how the rest is read: as a Python literal, a zip or a tar archive. What an
// index gives must lie in the file.
#include <arrow/buffer.h>
#include <arrow/io/memory.h>

#include <cstdlib>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>

#include "data/archive_index.h"
#include "data/python_literal.h"

namespace {

using lorry::data::ArchiveMember;

void check_inside(const ArchiveMember& member, std::string_view bytes) {
  const auto all = static_cast<int64_t>(bytes.size());
  if (member.offset < 0 || member.size < 0 || member.size > all - member.offset) std::abort();
}

void read_zip(std::string_view bytes) {
  arrow::io::BufferReader file(std::make_shared<arrow::Buffer>(bytes));
  const auto members = lorry::data::zip_members(file, "a.zip");
  if (!members.ok()) return;
  for (const ArchiveMember& member : *members) {
    check_inside(member, bytes);
    (void)lorry::data::zip_bytes_at(file, member, "a.zip");
  }
}

void read_tar(std::string_view bytes) {
  arrow::io::BufferReader file(std::make_shared<arrow::Buffer>(bytes));
  const auto members = lorry::data::tar_members(file, "a.tar");
  if (!members.ok()) return;
  for (const ArchiveMember& member : *members) check_inside(member, bytes);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const std::string_view bytes(reinterpret_cast<const char*>(data) + 1, size - 1);
  if (data[0] % 3 == 0) (void)lorry::data::parse_python_literal(bytes);
  if (data[0] % 3 == 1) read_zip(bytes);
  if (data[0] % 3 == 2) read_tar(bytes);
  return 0;
}
