#include "data/foreign.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>

namespace lorry::data {
namespace {

bool any_name(const std::vector<std::string>& names, auto is) {
  return std::any_of(names.begin(), names.end(), is);
}

/// Whether a path has `part` between slashes, at its begin or at its end.
bool has_part(const std::string& name, std::string_view part) {
  return ("/" + name + "/").find(fmt::format("/{}/", part)) != std::string::npos;
}

bool any_part(const std::vector<std::string>& names, std::string_view part) {
  return any_name(names, [&](const auto& name) { return has_part(name, part); });
}

bool any_end(const std::vector<std::string>& names, std::string_view end) {
  return any_name(names, [&](const auto& name) { return name.ends_with(end); });
}

std::string_view base_name(const std::string& name) {
  return std::string_view(name).substr(name.rfind('/') + 1);
}

bool is_lightning_chunk(const std::string& name) {
  return base_name(name).starts_with("chunk-") && name.find(".bin") != std::string::npos;
}

constexpr char kWriteRows[] = "write its rows as JSON or Parquet";

std::optional<std::string> foreign_layout(const std::vector<std::string>& names) {
  const auto unread = [](const char* what) {
    return fmt::format("{}, which lorry does not read; {}", what, kWriteRows);
  };
  if (any_end(names, ".mds") || any_name(names, [](const auto& name) {
        return name.find(".mds.") != std::string::npos;  // compressed
      })) {
    return unread("a MosaicML streaming data set (MDS)");
  }
  if (any_part(names, "index.json") && any_name(names, is_lightning_chunk)) {
    return unread("a data set of Lightning's LitData");
  }
  if (any_part(names, "_delta_log")) return unread("a Delta Lake table");
  if (any_end(names, ".metadata.json") && any_end(names, ".avro")) {
    return unread("an Iceberg table");
  }
  if (any_end(names, ".lance")) return unread("a Lance data set");
  const bool is_hub_cache = any_name(names, [](const auto& name) {
    return name.starts_with("snapshots/") || name.find("/snapshots/") != std::string::npos;
  });
  if (is_hub_cache && any_part(names, "blobs")) {
    return "a cache of the Hugging Face Hub, which may hold several revisions; name the directory "
           "of one, below snapshots/";
  }
  return std::nullopt;
}

bool begins_like_html(std::string_view head) {
  const size_t at = std::min(head.find_first_not_of(" \t\r\n"), head.size());
  std::string begin(head.substr(at, 14));
  for (char& c : begin) c = char(std::tolower(static_cast<unsigned char>(c)));
  return begin.starts_with("<!doctype html") || begin.starts_with("<html");
}

/// The format whose magic bytes these are.
const char* magic_format(std::string_view head) {
  if (head.starts_with("PAR1")) return "a Parquet file";
  if (head.starts_with("ARROW1")) return "an Arrow file";
  if (head.starts_with("PK\x03\x04")) return "a ZIP archive";
  if (head.starts_with("\x89HDF")) return "an HDF5 file";
  return nullptr;
}

}  // namespace

bool is_cache_of_datasets(const std::string& name) {
  return base_name(name).starts_with("cache-") && name.ends_with(".arrow");
}

Result<> refuse_foreign_layout(const std::string& dir, const std::vector<std::string>& names) {
  const auto foreign = foreign_layout(names);
  if (!foreign) return {};
  return unsupported(fmt::format("{} is {}", dir, *foreign));
}

Result<> refuse_foreign_content(const SourceFile& file, std::string_view head) {
  if (head.starts_with("version https://git-lfs.github.com/spec/")) {
    return invalid_input(fmt::format(
        "{} is a Git LFS pointer, not the data: run git lfs pull in the clone", file.path));
  }
  if (head.starts_with("/annex/objects/")) {
    return invalid_input(fmt::format(
        "{} is a git-annex pointer, not the data: run git annex get in the clone", file.path));
  }
  if (begins_like_html(head)) {
    return invalid_input(fmt::format(
        "{} is an HTML page, not {}: what was downloaded is a page of the site, not the file",
        file.path, format_name(file.format)));
  }
  if (file.format == Format::kArchive) return {};
  const char* magic = magic_format(head);
  const bool is_text = file.format != Format::kParquet && file.format != Format::kArrow;
  const bool is_other =
      magic && (is_text || (file.format == Format::kParquet) != (head.starts_with("PAR1")));
  if (!is_other) return {};
  return invalid_input(
      fmt::format("{} is {}, though its name says {}: give it the extension of what "
                  "it is",
                  file.path, magic, format_name(file.format)));
}

}  // namespace lorry::data
