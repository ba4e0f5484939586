#include "model/safetensors.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>
#include <arrow/buffer.h>
#include <arrow/io/interfaces.h>
#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <deque>
#include <mutex>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>

#include "store/arrow_error.h"

namespace lorry::model {
namespace {

static_assert(std::endian::native == std::endian::little, "safetensors data is little-endian");

/// The reference implementation's own limit on a header's length.
constexpr uint64_t kMaxHeader = 100'000'000;

struct DtypeName {
  std::string_view name;
  at::ScalarType type;
};
constexpr DtypeName kDtypes[] = {
    {"F32", at::kFloat}, {"BF16", at::kBFloat16}, {"F16", at::kHalf},  {"F64", at::kDouble},
    {"I64", at::kLong},  {"I32", at::kInt},       {"I16", at::kShort}, {"I8", at::kChar},
    {"U8", at::kByte},   {"BOOL", at::kBool},
};

std::optional<at::ScalarType> dtype_from_name(std::string_view name) {
  for (const auto& dtype : kDtypes) {
    if (dtype.name == name) return dtype.type;
  }
  return std::nullopt;
}

std::string_view dtype_name(at::ScalarType type) {
  for (const auto& dtype : kDtypes) {
    if (dtype.type == type) return dtype.name;
  }
  return {};
}

struct Entry {
  size_t file = 0;
  std::string dtype;
  std::optional<at::ScalarType> type;  ///< nullopt: a dtype lorry has no use for (FP8, ...)
  std::vector<int64_t> shape;
  uint64_t begin = 0, end = 0;  ///< bytes from the start of the file
};

/// A file of a checkpoint. One that is not on this machine is fetched whole (the bucket reads large
/// ranges in parallel) when the first tensor is asked for: hundreds of small tensors would each
/// wait for the network.
struct File {
  std::string path;
  std::shared_ptr<arrow::io::RandomAccessFile> input;
  bool is_local;
  mutable std::mutex mutex;
  mutable std::shared_ptr<arrow::Buffer> whole;
  // Access::kInOrder: where the last tensor ended, and what comes after it.
  mutable std::shared_ptr<arrow::io::InputStream> stream;
  mutable uint64_t position = 0;

  File(std::string path, std::shared_ptr<arrow::io::RandomAccessFile> input, bool is_local)
      : path(std::move(path)), input(std::move(input)), is_local(is_local) {}
};

using Entries = std::map<std::string, Entry>;

Result<std::shared_ptr<arrow::Buffer>> read_range(const File& file, uint64_t begin,
                                                  uint64_t length) {
  auto buffer = file.input->ReadAt(static_cast<int64_t>(begin), static_cast<int64_t>(length));
  if (!buffer.ok()) {
    return unavailable(fmt::format("{}: {}", file.path, buffer.status().message()));
  }
  if (static_cast<uint64_t>((*buffer)->size()) != length) {
    return corrupt_data(
        fmt::format("{}: shorter than its header says; copy or download it again", file.path));
  }
  return *buffer;
}

/// Bytes of the tensors; the file's own memory where it is mapped.
Result<std::shared_ptr<arrow::Buffer>> tensor_bytes(const File& file, uint64_t begin,
                                                    uint64_t length) {
  if (file.is_local) return read_range(file, begin, length);
  std::lock_guard lock(file.mutex);
  if (!file.whole) {
    LORRY_ASSIGN(const int64_t size, store::from_arrow(file.input->GetSize(), file.path));
    LORRY_ASSIGN(file.whole, read_range(file, 0, static_cast<uint64_t>(size)));
  }
  return arrow::SliceBuffer(file.whole, static_cast<int64_t>(begin), static_cast<int64_t>(length));
}

/// Fills `data` with `length` bytes from `begin` on, going on in the open stream where it stands there.
Result<> read_in_order(const store::Bucket& bucket, const File& file, uint64_t begin, void* data,
                       uint64_t length) {
  std::lock_guard lock(file.mutex);
  if (!file.stream || file.position != begin) {
    LORRY_ASSIGN(file.stream, bucket.open_stream(file.path, static_cast<int64_t>(begin)));
    file.position = begin;
  }
  auto* to = static_cast<uint8_t*>(data);
  for (uint64_t done = 0; done < length;) {
    LORRY_ASSIGN(const int64_t n,
                 store::from_arrow(
                     file.stream->Read(static_cast<int64_t>(length - done), to + done), file.path));
    if (n == 0) {
      return corrupt_data(
          fmt::format("{}: shorter than its header says; copy or download it again", file.path));
    }
    done += static_cast<uint64_t>(n);
  }
  file.position = begin + length;
  return {};
}

/// Bytes that a tensor of this shape takes; nullopt if that overflows.
std::optional<uint64_t> byte_size(const std::vector<int64_t>& shape, uint64_t item) {
  uint64_t bytes = item;
  for (const int64_t n : shape) {
    if (__builtin_mul_overflow(bytes, static_cast<uint64_t>(n), &bytes)) return std::nullopt;
  }
  return bytes;
}

Result<Entry> parse_entry(const std::string& where, const Json& json) {
  const auto bad = [&](std::string_view what) {
    return corrupt_data(fmt::format("{}: {}", where, what));
  };
  const auto is_natural = [](const Json& x) {
    return x.is_number_unsigned() && x.get<uint64_t>() <= uint64_t{1} << 60;
  };
  if (!json.is_object() || !json.contains("dtype") || !json["dtype"].is_string() ||
      !json.contains("shape") || !json["shape"].is_array() || !json.contains("data_offsets") ||
      !json["data_offsets"].is_array() || json["data_offsets"].size() != 2) {
    return bad("malformed header entry");
  }
  Entry entry;
  entry.dtype = json["dtype"].get<std::string>();
  entry.type = dtype_from_name(entry.dtype);
  for (const Json& n : json["shape"]) {
    if (!is_natural(n)) return bad("malformed shape");
    entry.shape.push_back(n.get<int64_t>());
  }
  for (const Json& offset : json["data_offsets"]) {
    if (!is_natural(offset)) return bad("malformed data_offsets");
  }
  entry.begin = json["data_offsets"][0].get<uint64_t>();
  entry.end = json["data_offsets"][1].get<uint64_t>();
  if (entry.end < entry.begin) return bad("malformed data_offsets");
  if (entry.type) {
    const auto bytes = byte_size(entry.shape, c10::elementSize(*entry.type));
    if (!bytes || *bytes != entry.end - entry.begin) {
      return bad("its shape and its data_offsets disagree");
    }
  }
  return entry;
}

/// Reads and checks the header of files[index] and adds its tensors to `entries`.
Result<> read_header(const File& file, size_t index, Entries& entries) {
  const auto size_or = file.input->GetSize();
  if (!size_or.ok()) return unavailable(file.path + ": " + size_or.status().message());
  const auto size = static_cast<uint64_t>(*size_or);
  if (size < 8) {
    return corrupt_data(
        fmt::format("{}: {} bytes are too few for a safetensors file", file.path, size));
  }
  LORRY_ASSIGN(auto prefix, read_range(file, 0, 8));
  uint64_t length = 0;
  std::memcpy(&length, prefix->data(), 8);
  if (length > kMaxHeader) {
    return corrupt_data(file.path + ": not a safetensors file (impossible header length)");
  }
  if (length > size - 8) {
    return corrupt_data(
        fmt::format("{}: cut short inside its header ({} bytes); copy or download "
                    "it again",
                    file.path, size));
  }
  LORRY_ASSIGN(auto text, read_range(file, 8, length));
  LORRY_ASSIGN(Json header,
               parse_json({reinterpret_cast<const char*>(text->data()), length}, file.path));
  if (!header.is_object()) return corrupt_data(file.path + ": its header is not a JSON object");

  const uint64_t data = 8 + length;
  uint64_t needed = data;
  for (const auto& [name, value] : header.items()) {
    if (name == "__metadata__") continue;
    LORRY_ASSIGN(Entry entry, parse_entry(fmt::format("{}: tensor {}", file.path, name), value));
    entry.file = index;
    entry.begin += data;
    entry.end += data;
    needed = std::max(needed, entry.end);
    entries.insert_or_assign(name, std::move(entry));
  }
  if (needed != size) {
    return corrupt_data(
        fmt::format("{}: {} bytes, but its header tells of {}; copy or download it "
                    "again",
                    file.path, size, needed));
  }
  return {};
}

/// The shards that an index names, in a fixed order.
Result<std::vector<std::string>> shard_names(const std::string& text, const std::string& path) {
  LORRY_ASSIGN(Json index, parse_json(text, path));
  if (!index.is_object() || !index.contains("weight_map") || !index["weight_map"].is_object()) {
    return corrupt_data(path + ": `weight_map` is missing");
  }
  std::set<std::string> names;
  for (const auto& [tensor, file] : index["weight_map"].items()) {
    const std::string name = file.is_string() ? file.get<std::string>() : "";
    if (name.empty() || name.find("..") != std::string::npos || name.starts_with('/')) {
      return corrupt_data(fmt::format("{}: tensor {} names no file", path, tensor));
    }
    names.insert(name);
  }
  return std::vector<std::string>(names.begin(), names.end());
}

Result<std::vector<std::string>> find_files(const store::Bucket& bucket, const std::string& dir,
                                            const std::string& stem) {
  const std::string single = stem + ".safetensors";
  LORRY_ASSIGN(const bool is_single, bucket.exists(store::join_path(dir, single)));
  if (is_single) return std::vector<std::string>{single};
  const std::string index = store::join_path(dir, stem + ".safetensors.index.json");
  LORRY_ASSIGN(const bool is_sharded, bucket.exists(index));
  if (is_sharded) {
    LORRY_ASSIGN(const std::string text, bucket.read(index));
    return shard_names(text, index);
  }
  LORRY_ASSIGN(const auto listing, bucket.list(dir));
  for (const auto& object : listing) {
    if (object.path.ends_with(".bin") || object.path.ends_with(".gguf") ||
        object.path.ends_with(".pth")) {
      return unsupported(
          fmt::format("{}: its weights are not safetensors; lorry needs {}", object.path, single));
    }
  }
  return not_found(fmt::format("{}: neither {} nor {}.index.json is there", dir, single, single));
}

}  // namespace

struct SafetensorsReader::Impl {
  std::string dir;
  std::shared_ptr<const store::Bucket> in_order;  // read from tensor by tensor; null: kAnyOrder
  std::deque<File> files;  // they do not move
  Entries entries;

  Result<at::Tensor> read_tensor(const File& file, const Entry& entry,
                                 const std::string& name) const {
    try {
      at::Tensor tensor = at::empty(entry.shape, at::TensorOptions().dtype(*entry.type));
      LORRY_TRY(read_in_order(*in_order, file, entry.begin, tensor.data_ptr(), tensor.nbytes()));
      return tensor;
    } catch (const std::exception& e) {
      return unavailable(fmt::format("{}: tensor {}: {}", file.path, name, e.what()));
    }
  }
};

SafetensorsReader::SafetensorsReader(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
SafetensorsReader::~SafetensorsReader() = default;

Result<std::shared_ptr<SafetensorsReader>> SafetensorsReader::open(const store::Bucket& bucket,
                                                                   const std::string& dir,
                                                                   const std::string& stem,
                                                                   Access access) {
  auto impl = std::make_unique<Impl>();
  impl->dir = dir;
  if (access == Access::kInOrder) impl->in_order = bucket.guarded({});
  LORRY_ASSIGN(const auto names, find_files(bucket, dir, stem));
  for (const auto& name : names) {
    const std::string path = store::join_path(dir, name);
    LORRY_ASSIGN(const bool exists, bucket.exists(path));
    if (!exists) {
      return not_found(
          fmt::format("{}: missing, though the index names it; copy or download the "
                      "model again",
                      path));
    }
    LORRY_ASSIGN(auto input, bucket.open_input(path));
    impl->files.emplace_back(path, std::move(input), bucket.is_local());
    LORRY_TRY(read_header(impl->files.back(), impl->files.size() - 1, impl->entries));
  }
  return std::shared_ptr<SafetensorsReader>(new SafetensorsReader(std::move(impl)));
}

bool SafetensorsReader::contains(const std::string& name) const {
  return impl_->entries.contains(name);
}

std::vector<std::string> SafetensorsReader::names() const {
  std::vector<std::string> names;
  for (const auto& [name, entry] : impl_->entries) names.push_back(name);
  return names;
}

std::vector<int64_t> SafetensorsReader::shape(const std::string& name) const {
  const auto it = impl_->entries.find(name);
  return it == impl_->entries.end() ? std::vector<int64_t>{} : it->second.shape;
}

std::string SafetensorsReader::dtype(const std::string& name) const {
  const auto it = impl_->entries.find(name);
  return it == impl_->entries.end() ? std::string() : it->second.dtype;
}

Result<TensorHeader> SafetensorsReader::header(const std::string& name) const {
  const auto it = impl_->entries.find(name);
  if (it == impl_->entries.end()) {
    return not_found(fmt::format("{}: tensor {} is missing", impl_->dir, name));
  }
  const Entry& entry = it->second;
  if (!entry.type) {
    return unsupported(fmt::format("{}: tensor {} is {}; lorry reads F32, BF16 and F16",
                                   impl_->files[entry.file].path, name, entry.dtype));
  }
  return TensorHeader{name, *entry.type, entry.shape};
}

Result<at::Tensor> SafetensorsReader::tensor(const std::string& name) const {
  const auto it = impl_->entries.find(name);
  if (it == impl_->entries.end()) {
    return not_found(fmt::format("{}: tensor {} is missing", impl_->dir, name));
  }
  const Entry& entry = it->second;
  const File& file = impl_->files[entry.file];
  if (!entry.type) {
    return unsupported(fmt::format("{}: tensor {} is {}; lorry reads F32, BF16 and F16", file.path,
                                   name, entry.dtype));
  }
  const uint64_t length = entry.end - entry.begin;
  if (impl_->in_order) return impl_->read_tensor(file, entry, name);
  LORRY_ASSIGN(auto buffer, tensor_bytes(file, entry.begin, length));
  try {
    const auto options = at::TensorOptions().dtype(*entry.type);
    const auto address = reinterpret_cast<uintptr_t>(buffer->data());
    if (buffer->size() == 0 || address % c10::elementSize(*entry.type) != 0) {
      // A header whose length is no multiple of the item's size, which old writers left.
      at::Tensor copy = at::empty(entry.shape, options);
      std::memcpy(copy.data_ptr(), buffer->data(), static_cast<size_t>(buffer->size()));
      return copy;
    }
    void* data = const_cast<uint8_t*>(buffer->data());
    return at::from_blob(
        data, entry.shape, [buffer](void*) {}, options);
  } catch (const std::exception& e) {
    return unavailable(fmt::format("{}: tensor {}: {}", file.path, name, e.what()));
  }
}

int64_t TensorHeader::bytes() const {
  return static_cast<int64_t>(*byte_size(shape, c10::elementSize(dtype)));
}

Result<std::unique_ptr<SafetensorsWriter>> SafetensorsWriter::create(
    const store::Bucket& bucket, const std::string& path, std::vector<TensorHeader> tensors) {
  Json header = Json::object();
  header["__metadata__"] = {{"format", "pt"}};
  int64_t offset = 0;
  for (const TensorHeader& tensor : tensors) {
    const std::string_view dtype = dtype_name(tensor.dtype);
    if (dtype.empty()) {
      return unsupported(fmt::format("{}: tensor {} has a dtype that lorry does not write", path,
                                     tensor.name));
    }
    Json entry = Json::object();
    entry["dtype"] = dtype;
    entry["shape"] = tensor.shape;
    entry["data_offsets"] = {offset, offset + tensor.bytes()};
    header[tensor.name] = std::move(entry);
    offset += tensor.bytes();
  }
  std::string text = dump_json(header);
  text.append((8 - text.size() % 8) % 8, ' ');  // so that the data is aligned
  const uint64_t length = text.size();

  std::unique_ptr<SafetensorsWriter> writer(new SafetensorsWriter(path, std::move(tensors)));
  LORRY_ASSIGN(writer->writer_, bucket.create(path));
  LORRY_TRY(writer->writer_->write({reinterpret_cast<const char*>(&length), 8}));
  LORRY_TRY(writer->writer_->write(text));
  return writer;
}

Result<> SafetensorsWriter::add(const at::Tensor& tensor) {
  if (next_ == tensors_.size()) return invalid_input(path_ + ": more tensors than announced");
  const TensorHeader& expected = tensors_[next_++];
  if (tensor.sizes() != at::IntArrayRef(expected.shape) ||
      tensor.scalar_type() != expected.dtype) {
    return invalid_input(fmt::format("{}: tensor {} is not as announced", path_, expected.name));
  }
  try {
    const at::Tensor data = tensor.detach().to(at::kCPU).contiguous();
    return writer_->write({static_cast<const char*>(data.const_data_ptr()), data.nbytes()});
  } catch (const std::exception& e) {
    return unavailable(fmt::format("{}: tensor {}: {}", path_, expected.name, e.what()));
  }
}

Result<> SafetensorsWriter::commit() {
  if (next_ != tensors_.size()) {
    return invalid_input(fmt::format("{}: tensor {} is missing", path_, tensors_[next_].name));
  }
  return writer_->commit();
}

Result<> write_safetensors(const store::Bucket& bucket, const std::string& path,
                           const NamedTensors& tensors) {
  std::vector<TensorHeader> headers;
  for (const auto& [name, tensor] : tensors) {
    headers.push_back({name, tensor.scalar_type(), tensor.sizes().vec()});
  }
  LORRY_ASSIGN(const auto writer, SafetensorsWriter::create(bucket, path, std::move(headers)));
  for (const auto& [name, tensor] : tensors) LORRY_TRY(writer->add(tensor));
  return writer->commit();
}

}  // namespace lorry::model
