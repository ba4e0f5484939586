#include "hub/formats.h"

#include <algorithm>
#include <array>
#include <map>
#include <tuple>
#include <unordered_map>

namespace lorry::hub {
namespace {

/// Formats and names as packaged_modules/__init__.py of `datasets` 5.2 has them; tests/test_hub.py
/// compares. Media are here too, because the commonest extension decides.
struct Module {
  std::string_view name, extensions;
  bool upper_case_too = false;
};
constexpr std::array kModules = {
    Module{"csv", ".csv .tsv"},
    Module{"json", ".json .jsonl .ndjson"},
    Module{"parquet", ".parquet .geoparquet .gpq"},
    Module{"arrow", ".arrow"},
    Module{"text", ".txt"},
    Module{"conll", ".conll .conllu"},
    Module{"webdataset", ".tar"},
    Module{"xml", ".xml"},
    Module{"hdf5", ".hdf5 .h5"},
    Module{"eval", ".eval"},
    Module{"harbor", ".toml .md"},
    Module{"lance", ".lance"},
    Module{"tsfile", ".tsfile"},
    Module{"vortex", ".vortex"},
    Module{"fasta", ".fa .fasta .fna .ffn .faa .frn .afa"},
    Module{"genbank", ".gb .gbk .genbank"},
    Module{"fastq", ".fq .fastq"},
    Module{"pdb", ".pdb .ent", true},
    Module{"mmcif", ".cif .mmcif"},
    Module{"imagefolder",
           ".blp .bmp .dib .bufr .cur .pcx .dcx .dds .ps .eps .fit .fits .fli .flc .ftc .ftu .gbr "
           ".gif .grib .png .apng .jp2 .j2k .jpc .jpf .jpx .j2c .icns .ico .im .iim .tif .tiff "
           ".jfif .jpe .jpg .jpeg .msp .pcd .pxr .pbm .pgm .ppm .pnm .psd .bw .rgb .rgba .sgi .ras "
           ".tga .icb .vda .vst .webp .wmf .emf .xbm .xpm",
           true},
    Module{"audiofolder",
           ".mpg .aiff .au .avr .caf .flac .htk .svx .mat4 .mat5 .mpc2k .ogg .paf .pvf .raw .rf64 "
           ".sd2 .sds .ircam .voc .w64 .wav .nist .wavex .wve .xi .mp3 .opus .3gp .3g2 .asf .flv "
           ".m4v .webm .f4v .wmv .wma .ogm .mxf .nut",
           true},
    Module{"videofolder", ".mpeg .avi .mp4 .mov .mkv", true},
    Module{"meshfolder", ".glb .gltf .ply .stl", true},
    Module{"pdffolder", ".pdf", true},
    Module{"niftifolder", ".nii", true},
};
constexpr std::array<std::string_view, 4> kOtherAllowed = {".zip", ".idx", ".manifest", ".txn"};
constexpr std::array<std::string_view, 6> kMetadataFiles = {
    "instruction.md", "latest_version_hint.json", "metadata.csv",
    "metadata.jsonl", "metadata.parquet",         "task.toml"};

char upper(char c) { return c >= 'a' && c <= 'z' ? char(c - 'a' + 'A') : c; }
char lower(char c) { return c >= 'A' && c <= 'Z' ? char(c - 'A' + 'a') : c; }

const std::unordered_map<std::string, std::string_view>& modules() {
  static const auto table = [] {
    std::unordered_map<std::string, std::string_view> map;
    for (const auto& module : kModules) {
      for (size_t at = 0; at < module.extensions.size();) {
        const size_t end = std::min(module.extensions.find(' ', at), module.extensions.size());
        std::string extension(module.extensions.substr(at, end - at));
        map[extension] = module.name;
        std::transform(extension.begin(), extension.end(), extension.begin(), upper);
        if (module.upper_case_too) map[extension] = module.name;
        at = end + 1;
      }
    }
    return map;
  }();
  return table;
}

std::string_view base_name(std::string_view path) {
  const size_t slash = path.rfind('/');
  return slash == std::string_view::npos ? path : path.substr(slash + 1);
}

/// Which of equally common extensions is taken: the greatest.
auto favour(const std::string& extension) {
  return std::tuple(extension == ".parquet", extension == ".lance", extension == ".vortex",
                    extension == ".arrow", extension == ".jsonl", extension == ".json",
                    extension == ".csv", extension);
}

}  // namespace

std::string_view module_of_extension(std::string_view extension) {
  const auto found = modules().find(std::string(extension));
  return found == modules().end() ? std::string_view() : found->second;
}

std::vector<std::string> extensions_of(std::string_view path) {
  std::vector<std::string> extensions;
  const std::string_view name = base_name(path);
  for (size_t at = name.find('.'); at != std::string_view::npos;) {
    const size_t next = name.find('.', at + 1);
    extensions.emplace_back(name.substr(at, next == std::string_view::npos ? next : next - at));
    at = next;
  }
  return extensions;
}

bool has_data_extension(std::string_view path) {
  const auto extensions = extensions_of(path);
  return std::any_of(extensions.begin(), extensions.end(), [](const std::string& extension) {
    return !module_of_extension(extension).empty() ||
           std::find(kOtherAllowed.begin(), kOtherAllowed.end(), extension) != kOtherAllowed.end();
  });
}

InferredModule infer_module(const std::vector<std::string>& paths) {
  std::map<std::pair<std::string, bool>, int64_t> counts;  // extension, of a metadata file
  for (const auto& path : paths) {
    const bool metadata = std::find(kMetadataFiles.begin(), kMetadataFiles.end(),
                                    base_name(path)) != kMetadataFiles.end();
    for (auto extension : extensions_of(path)) {
      std::transform(extension.begin(), extension.end(), extension.begin(), lower);
      ++counts[{extension, metadata}];
    }
  }
  std::vector<std::pair<std::pair<std::string, bool>, int64_t>> order(counts.begin(), counts.end());
  std::sort(order.begin(), order.end(), [](const auto& a, const auto& b) {
    return std::tuple(!a.first.second, a.second, favour(a.first.first)) >
           std::tuple(!b.first.second, b.second, favour(b.first.first));
  });
  for (const auto& [key, count] : order) {
    const auto module = module_of_extension(key.first);
    if (!module.empty()) return {std::string(module), key.first};
    if (key.first == ".zip") return {"zip", key.first};
  }
  return {};
}

bool belongs_to_module(std::string_view path, std::string_view module) {
  if (module == "zip") return path.ends_with(".zip");
  // As the pattern `.*(ext)(\..+)?$` of `datasets` on the whole path.
  for (size_t at = path.find('.'); at != std::string_view::npos; at = path.find('.', at + 1)) {
    const size_t end = std::min(path.find_first_of("./", at + 1), path.size());
    const bool last = end == path.size() || (path[end] == '.' && end + 1 < path.size());
    if (last && module_of_extension(path.substr(at, end - at)) == module) return true;
  }
  return false;
}

}  // namespace lorry::hub
