// Archives, compressions and encodings give the rows that their files have.
#include "data/archive.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "data/reader.h"
#include "data/text_encoding.h"

namespace lorry::data {
namespace {

namespace fs = std::filesystem;

class ArchiveTest : public testing::Test {
 protected:
  ArchiveTest() {
    fs::remove_all(dir_);
    fs::create_directories(dir_);
  }
  ~ArchiveTest() override { fs::remove_all(dir_); }

  std::string write(const std::string& name, const std::string& bytes) const {
    const fs::path path = dir_ / name;
    fs::create_directories(path.parent_path());
    std::ofstream(path, std::ios::binary) << bytes;
    return path.string();
  }

  /// What the files of a source hold, unpacked, as "name:bytes;...", or the error.
  static std::string unpacked(const std::string& source) {
    const auto found = find_files({source});
    if (!found.ok()) return found.error().message;
    std::string all;
    for (const auto& file : found->files) {
      auto bytes = ByteSource::open(file);
      if (!bytes.ok()) return bytes.error().message;
      all += fs::path(file.path).filename().string() + ":";
      char piece[7];
      while (true) {
        const auto got = (*bytes)->read(piece, sizeof(piece));
        if (!got.ok()) return got.error().message;
        if (*got == 0) break;
        all.append(piece, size_t(*got));
      }
      all += ";";
    }
    return all;
  }

  /// A tar of one member, made by hand.
  static std::string tar_of(const std::string& name, const std::string& bytes) {
    std::string header(512, '\0');
    const auto put = [&](size_t at, const std::string& text) {
      header.replace(at, text.size(), text);
    };
    char size[13];
    std::snprintf(size, sizeof(size), "%011zo", bytes.size());
    put(0, name);
    put(100, "0000644");
    put(124, size);
    put(148, "        ");
    put(156, "0");
    put(257, std::string("ustar\0"
                         "00",
                         8));
    unsigned sum = 0;
    for (const unsigned char c : header) sum += c;
    char digits[8];
    std::snprintf(digits, sizeof(digits), "%06o", sum);
    put(148, digits);
    header[154] = '\0';
    std::string body = bytes;
    body.resize((bytes.size() + 511) / 512 * 512);
    return header + body;
  }

  const fs::path dir_ = fs::temp_directory_path() / ("lorry-archive-" + std::to_string(getpid()));
};

TEST_F(ArchiveTest, TarGivesItsDataFilesByName) {
  const std::string end(1024, '\0');
  const auto path = write("a.tar", tar_of("d/b.jsonl", "{}\n") + tar_of("README.md", "x") +
                                       tar_of("d/a.jsonl", std::string(600, 'y')) + end);
  EXPECT_EQ(unpacked(path), "a.jsonl:" + std::string(600, 'y') + ";b.jsonl:{}\n;");
}

TEST_F(ArchiveTest, KeepsTheTrainSplitAndPassesOverHiddenFiles) {
  const auto path =
      write("a.tar", tar_of("train.jsonl", "1") + tar_of("test.jsonl", "2") +
                         tar_of("__MACOSX/._train.jsonl", "3") + std::string(1024, '\0'));
  EXPECT_EQ(unpacked(path), "train.jsonl:1;");
}

TEST_F(ArchiveTest, OfPicturesIsRefused) {
  const auto path =
      write("a.tar", tar_of("0.jpg", "x") + tar_of("0.json", "{}") + std::string(1024, '\0'));
  EXPECT_NE(unpacked(path).find("pictures or sounds (0.jpg)"), std::string::npos);
}

TEST_F(ArchiveTest, ThatIsCutShortIsDamaged) {
  const std::string whole = tar_of("a.jsonl", "{}") + std::string(1024, '\0');
  for (const size_t size : {size_t(0), size_t(100), size_t(512), size_t(1024)}) {
    EXPECT_NE(unpacked(write("a.tar", whole.substr(0, size))).find("not a whole tar"),
              std::string::npos)
        << size;
  }
  EXPECT_NE(unpacked(write("a.zip", "PK\x03\x04 and no more")).find("not a whole zip"),
            std::string::npos);
}

TEST_F(ArchiveTest, Utf16IsReadAsUtf8AcrossPiecesOfAnySize) {
  const std::string text = "a\xC3\xA4\xE2\x82\xAC\xF0\x9F\x98\x80z";
  const std::string little(
      "\xFF\xFE"
      "a\0\xE4\0\xAC\x20\x3D\xD8\x00\xDEz\0",
      14);
  std::string big;
  for (size_t i = 0; i < little.size(); i += 2) big += {little[i + 1], little[i]};
  EXPECT_EQ(unpacked(write("a.csv", little)), "a.csv:" + text + ";");
  EXPECT_EQ(unpacked(write("a.csv", big)), "a.csv:" + text + ";");
  EXPECT_EQ(unpacked(write("a.csv", "\xFF\xFE")), "a.csv:;");
  EXPECT_NE(unpacked(write("a.csv", little.substr(0, 11))).find("UTF-16"), std::string::npos);
}

}  // namespace
}  // namespace lorry::data
