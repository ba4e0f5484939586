#include "data/archive.h"

#include <arrow/buffer.h>
#include <arrow/io/interfaces.h>
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <filesystem>
#include <mutex>

#include "data/archive_index.h"
#include "data/file_names.h"
#include "data/foreign.h"
#include "store/arrow_error.h"

namespace lorry::data {
namespace {

namespace fs = std::filesystem;
using File = std::shared_ptr<arrow::io::RandomAccessFile>;

/// A part of a file. Thread-safe as far as the file is.
class Slice final : public arrow::io::RandomAccessFile {
 public:
  Slice(File file, int64_t begin, int64_t size)
      : file_(std::move(file)), begin_(begin), size_(size) {
    set_mode(arrow::io::FileMode::READ);
  }

  arrow::Result<int64_t> GetSize() override { return size_; }
  arrow::Result<int64_t> ReadAt(int64_t at, int64_t bytes, void* out) override {
    return file_->ReadAt(begin_ + at, inside(at, bytes), out);
  }
  arrow::Result<std::shared_ptr<arrow::Buffer>> ReadAt(int64_t at, int64_t bytes) override {
    return file_->ReadAt(begin_ + at, inside(at, bytes));
  }
  arrow::Result<int64_t> Read(int64_t bytes, void* out) override {
    ARROW_ASSIGN_OR_RAISE(const int64_t got, ReadAt(position_, bytes, out));
    position_ += got;
    return got;
  }
  arrow::Result<std::shared_ptr<arrow::Buffer>> Read(int64_t bytes) override {
    ARROW_ASSIGN_OR_RAISE(auto buffer, ReadAt(position_, bytes));
    position_ += buffer->size();
    return buffer;
  }
  arrow::Result<int64_t> Tell() const override { return position_; }
  arrow::Status Seek(int64_t position) override {
    position_ = position;
    return arrow::Status::OK();
  }
  arrow::Status Close() override {
    closed_ = true;
    return arrow::Status::OK();
  }
  bool closed() const override { return closed_; }

 private:
  int64_t inside(int64_t at, int64_t bytes) const {
    return std::max<int64_t>(0, std::min(bytes, size_ - at));
  }

  const File file_;
  const int64_t begin_, size_;
  int64_t position_ = 0;
  bool closed_ = false;
};

bool is_zip(const std::string& path) {
  std::string extension = fs::path(path).extension().string();
  for (char& c : extension) c = char(std::tolower(static_cast<unsigned char>(c)));
  return extension == ".zip";
}

/// Left beside the data by macOS, or hidden.
bool is_hidden(const std::string& name) {
  const auto parts = fs::path(name);
  return std::any_of(parts.begin(), parts.end(), [](const fs::path& part) {
    const std::string word = part.string();
    return word == "__MACOSX" || (word.starts_with(".") && word != "." && word != "..");
  });
}

bool is_of_media(const std::string& name) {
  static constexpr std::array kMedia = {".jpg", ".jpeg", ".png", ".gif", ".webp", ".bmp", ".mp3",
                                        ".wav", ".flac", ".ogg", ".mp4", ".avi",  ".mkv", ".npy"};
  const std::string extension = fs::path(name).extension().string();
  return std::find(kMedia.begin(), kMedia.end(), extension) != kMedia.end();
}

Result<> refuse_media(const SourceFile& archive, const std::vector<ArchiveMember>& members) {
  for (const auto& member : members) {
    if (!is_of_media(member.name) || is_hidden(member.name)) continue;
    return unsupported(
        fmt::format("{}: it holds pictures or sounds ({}), which a model of text does not see; "
                    "write its rows of text as JSON or Parquet",
                    archive.path, member.name));
  }
  return {};
}

/// By its own name, or by the archive's if it is alone in a.jsonl.zip.
std::optional<Format> format_of(const ArchiveMember& member, const SourceFile& archive,
                                bool is_alone) {
  const auto own = format_of_name(member.name);
  if (own || !is_alone) return own == Format::kArchive ? std::nullopt : own;
  return format_of_name(fs::path(archive.path).stem().string());
}

void keep_data(const SourceFile& archive, std::vector<ArchiveMember>& members,
               std::vector<std::string>& notes) {
  std::erase_if(members, [](const auto& member) { return is_hidden(member.name); });
  const bool is_alone = members.size() == 1;
  std::erase_if(members, [&](const ArchiveMember& member) {
    const auto format = format_of(member, archive, is_alone);
    return !format || is_metadata(fs::path(member.name).filename().string());
  });
  std::sort(members.begin(), members.end(),
            [](const auto& a, const auto& b) { return a.name < b.name; });
  std::vector<std::string> names;
  for (const auto& member : members) names.push_back(member.name);
  for (const auto& other : names_beside_train(names)) {
    std::erase_if(members, [&](const auto& member) { return member.name == other; });
    notes.push_back(fmt::format("{}/{}: left out, not of the train split", archive.path, other));
  }
}

SourceFile member_file(const SourceFile& archive, const ArchiveMember& member, Format format,
                       OpenSource open_archive) {
  SourceFile file;
  file.path = fmt::format("{}/{}", archive.path, member.name);
  file.format = format;
  file.size = member.size;
  file.version = archive.version;
  file.remote = archive.remote;
  file.zipped = member.zipped;
  file.open = [member, path = archive.path, zip = is_zip(archive.path),
               open = std::move(open_archive)]() -> Result<File> {
    LORRY_ASSIGN(auto whole, open());
    int64_t begin = member.offset;
    if (zip) {
      LORRY_ASSIGN(begin, zip_bytes_at(*whole, member, path));
    }
    return File(std::make_shared<Slice>(std::move(whole), begin, member.size));
  };
  return file;
}

}  // namespace

Result<std::vector<SourceFile>> archive_members(const SourceFile& archive,
                                                std::vector<std::string>& notes) {
  LORRY_ASSIGN(const auto whole, open_ranged(archive));
  LORRY_ASSIGN(auto members, is_zip(archive.path) ? zip_members(*whole, archive.path)
                                                  : tar_members(*whole, archive.path));
  LORRY_TRY(refuse_media(archive, members));
  const bool is_alone = members.size() == 1;
  keep_data(archive, members, notes);
  if (members.empty()) {
    return not_found(fmt::format("{}: it holds no data files ({})", archive.path, kFormats));
  }
  // The file is kept open: of a compressed tar it is what was unpacked.
  const OpenSource open = [whole]() -> Result<File> { return whole; };
  std::vector<SourceFile> files;
  for (const auto& member : members) {
    files.push_back(member_file(archive, member, *format_of(member, archive, is_alone), open));
  }
  return files;
}

Result<> expand_archives(FoundFiles& found) {
  std::vector<SourceFile> files;
  for (auto& file : found.files) {
    if (file.format != Format::kArchive) {
      files.push_back(std::move(file));
      continue;
    }
    LORRY_ASSIGN(auto members, archive_members(file, found.notes));
    for (auto& member : members) files.push_back(std::move(member));
  }
  found.files = std::move(files);
  return {};
}

}  // namespace lorry::data
