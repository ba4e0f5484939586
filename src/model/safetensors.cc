#include "model/safetensors.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>
#include <arrow/buffer.h>
#include <arrow/io/interfaces.h>
#include <fmt/format.h>

#include <bit>
#include <cstring>
#include <deque>
#include <mutex>
#include <nlohmann/json.hpp>
#include <optional>

#include "hub/model_dir.h"
#include "store/arrow_error.h"

namespace lorry::model {
namespace {

static_assert(std::endian::native == std::endian::little, "safetensors data is little-endian");

struct DtypeName {
  std::string_view name;
  at::ScalarType type;
};
constexpr DtypeName kDtypes[] = {
    {"F32", at::kFloat},
    {"BF16", at::kBFloat16},
    {"F16", at::kHalf},
    {"F64", at::kDouble},
    {"I64", at::kLong},
    {"I32", at::kInt},
    {"I16", at::kShort},
    {"I8", at::kChar},
    {"U8", at::kByte},
    {"BOOL", at::kBool},
    {"F8_E4M3", at::kFloat8_e4m3fn},
};

std::optional<at::ScalarType> dtype_from_name(std::string_view name) {
  for (const auto& dtype : kDtypes) {
    if (dtype.name == name) return dtype.type;
  }
  return std::nullopt;
}

std::string_view file_dtype_name(at::ScalarType type) {
  for (const auto& dtype : kDtypes) {
    if (dtype.type == type) return dtype.name;
  }
  return {};
}

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

/// Fills `data` with `length` bytes from `begin` on, going on in the open stream where it stands
/// there.
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

}  // namespace

struct SafetensorsReader::Impl {
  std::string where;                              // for errors
  std::shared_ptr<const store::Bucket> in_order;  // read from tensor by tensor; null: kAnyOrder
  std::deque<File> files;                         // they do not move
  std::map<std::string, hub::Checkpoint::Tensor> tensors;

  Result<const hub::Checkpoint::Tensor*> find(const std::string& name) const {
    const auto it = tensors.find(name);
    if (it != tensors.end()) return &it->second;
    return not_found(fmt::format("{}tensor {} is missing", where, name));
  }

  Result<at::ScalarType> type_of(const std::string& name,
                                 const hub::Checkpoint::Tensor& stored) const {
    if (const auto type = dtype_from_name(stored.dtype)) return *type;
    return unsupported(fmt::format("{}: tensor {} is {}; lorry reads F32, BF16 and F16",
                                   files[stored.file].path, name, stored.dtype));
  }

  Result<at::Tensor> read_tensor(const File& file, const hub::Checkpoint::Tensor& stored,
                                 at::ScalarType type, const std::string& name) const {
    try {
      at::Tensor tensor = at::empty(stored.shape, at::TensorOptions().dtype(type));
      LORRY_TRY(read_in_order(*in_order, file, stored.begin, tensor.data_ptr(), tensor.nbytes()));
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
  impl->where = dir.empty() ? "" : dir + ": ";
  if (access == Access::kInOrder) impl->in_order = bucket.guarded({});
  LORRY_ASSIGN(auto checkpoint, hub::open_checkpoint(bucket, dir, stem));
  for (auto& file : checkpoint.files) {
    impl->files.emplace_back(std::move(file.path), std::move(file.input), bucket.is_local());
  }
  impl->tensors = std::move(checkpoint.tensors);
  return std::shared_ptr<SafetensorsReader>(new SafetensorsReader(std::move(impl)));
}

const std::string& SafetensorsReader::where() const { return impl_->where; }

bool SafetensorsReader::contains(const std::string& name) const {
  return impl_->tensors.contains(name);
}

std::vector<std::string> SafetensorsReader::names() const {
  std::vector<std::string> names;
  for (const auto& [name, tensor] : impl_->tensors) names.push_back(name);
  return names;
}

std::vector<int64_t> SafetensorsReader::shape(const std::string& name) const {
  const auto it = impl_->tensors.find(name);
  return it == impl_->tensors.end() ? std::vector<int64_t>{} : it->second.shape;
}

std::string SafetensorsReader::dtype(const std::string& name) const {
  const auto it = impl_->tensors.find(name);
  return it == impl_->tensors.end() ? std::string() : it->second.dtype;
}

std::pair<size_t, uint64_t> SafetensorsReader::place(const std::string& name) const {
  const auto it = impl_->tensors.find(name);
  if (it == impl_->tensors.end()) return {impl_->files.size(), 0};
  return {it->second.file, it->second.begin};
}

Result<TensorHeader> SafetensorsReader::header(const std::string& name) const {
  LORRY_ASSIGN(const auto* stored, impl_->find(name));
  LORRY_ASSIGN(const at::ScalarType type, impl_->type_of(name, *stored));
  return TensorHeader{name, type, stored->shape};
}

Result<at::Tensor> SafetensorsReader::tensor(const std::string& name) const {
  LORRY_ASSIGN(const auto* entry, impl_->find(name));
  const hub::Checkpoint::Tensor& stored = *entry;
  const File& file = impl_->files[stored.file];
  LORRY_ASSIGN(const at::ScalarType type, impl_->type_of(name, stored));
  if (impl_->in_order) return impl_->read_tensor(file, stored, type, name);
  LORRY_ASSIGN(auto buffer, tensor_bytes(file, stored.begin, stored.end - stored.begin));
  try {
    const auto options = at::TensorOptions().dtype(type);
    const auto address = reinterpret_cast<uintptr_t>(buffer->data());
    if (buffer->size() == 0 || address % c10::elementSize(type) != 0) {
      // A header whose length is no multiple of the item's size, which old writers left.
      at::Tensor copy = at::empty(stored.shape, options);
      std::memcpy(copy.data_ptr(), buffer->data(), static_cast<size_t>(buffer->size()));
      return copy;
    }
    void* data = const_cast<uint8_t*>(buffer->data());
    return at::from_blob(
        data, stored.shape, [buffer](void*) {}, options);
  } catch (const std::exception& e) {
    return unavailable(fmt::format("{}: tensor {}: {}", file.path, name, e.what()));
  }
}

int64_t TensorHeader::bytes() const {
  return c10::multiply_integers(shape) * static_cast<int64_t>(c10::elementSize(dtype));
}

Result<std::unique_ptr<SafetensorsWriter>> SafetensorsWriter::create(
    const store::Bucket& bucket, const std::string& path, std::vector<TensorHeader> tensors) {
  Json header = Json::object();
  header["__metadata__"] = {{"format", "pt"}};
  int64_t offset = 0;
  for (const TensorHeader& tensor : tensors) {
    const std::string_view dtype = file_dtype_name(tensor.dtype);
    if (dtype.empty()) {
      return unsupported(
          fmt::format("{}: tensor {} has a dtype that lorry does not write", path, tensor.name));
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
  if (tensor.sizes() != at::IntArrayRef(expected.shape) || tensor.scalar_type() != expected.dtype) {
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
