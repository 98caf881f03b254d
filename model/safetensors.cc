#include "model/safetensors.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/json.h"
#include "base/status_macros.h"
#include "model/json_fields.h"
#include "model/weight_values.h"

namespace switchyard::model {
namespace {

using kernels::DType;
using kernels::WeightView;

// The reference implementation's limit, so a file that it reads we read too.
constexpr int64_t kMaxHeaderBytes = 100'000'000;
constexpr size_t kLengthBytes = 8;
constexpr size_t kMaxRank = 8;
// Of one tensor; 2^56 elements of at most 64 bits stay within int64_t.
constexpr int64_t kMaxElements = int64_t{1} << 56;

// Bits of one element; 0 for dtypes that this list does not know, whose size
// nothing here depends on.
int64_t DTypeBits(absl::string_view dtype) {
  static constexpr struct {
    const char* name;
    int bits;
  } kDTypes[] = {
      {"BF16", 16},   {"F16", 16},    {"F32", 32},    {"F64", 64},
      {"F8_E4M3", 8}, {"F8_E5M2", 8}, {"F8_E8M0", 8}, {"BOOL", 8},
      {"U8", 8},      {"I8", 8},      {"U16", 16},    {"I16", 16},
      {"U32", 32},    {"I32", 32},    {"U64", 64},    {"I64", 64},
      {"C64", 64},    {"F4", 4},      {"F6_E2M3", 6}, {"F6_E3M2", 6}};
  for (const auto& entry : kDTypes) {
    if (dtype == entry.name) return entry.bits;
  }
  return 0;
}

uint64_t LoadLittleEndian64(const uint8_t* bytes) {
  uint64_t value = 0;
  for (size_t i = 0; i < kLengthBytes; ++i) {
    value |= uint64_t{bytes[i]} << (8 * i);
  }
  return value;
}

// A non-negative JSON integer in *out, or false.
bool GetSize(const Json& value, int64_t* out) {
  if (!value.is_number_integer()) return false;
  if (value.is_number_unsigned()) {
    const uint64_t number = value.get<uint64_t>();
    if (number > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) {
      return false;
    }
    *out = static_cast<int64_t>(number);
    return true;
  }
  *out = value.get<int64_t>();
  return *out >= 0;
}

absl::Status Contradiction(absl::string_view name, absl::string_view what) {
  return absl::DataLossError(
      absl::StrCat("damaged header: tensor ", name, " ", what));
}

// One entry of the header; offsets still count from the data's start.
absl::StatusOr<SafetensorsTensor> ParseEntry(const std::string& name,
                                             const Json& entry) {
  SafetensorsTensor tensor;
  if (!entry.is_object()) return Contradiction(name, "is not an object");
  const auto dtype = entry.find("dtype");
  const auto shape = entry.find("shape");
  const auto offsets = entry.find("data_offsets");
  if (dtype == entry.end() || !dtype->is_string()) {
    return Contradiction(name, "has no dtype");
  }
  tensor.dtype = dtype->get<std::string>();
  if (shape == entry.end() || !shape->is_array() || shape->size() > kMaxRank) {
    return Contradiction(
        name, absl::StrCat("has no shape of at most ", kMaxRank, " numbers"));
  }
  int64_t elements = 1;
  for (const Json& dimension : *shape) {
    int64_t size = 0;
    if (!GetSize(dimension, &size) ||
        (size > 0 && elements > kMaxElements / size)) {
      return Contradiction(name, absl::StrCat("has the impossible shape ",
                                              DescribeJson(*shape)));
    }
    elements *= size;
    tensor.shape.push_back(size);
  }
  if (offsets == entry.end() || !offsets->is_array() || offsets->size() != 2 ||
      !GetSize((*offsets)[0], &tensor.begin) ||
      !GetSize((*offsets)[1], &tensor.end) || tensor.begin > tensor.end) {
    return Contradiction(name, "has no data_offsets [begin, end]");
  }
  // At most 2^56 * 64 bits: within int64_t.
  const int64_t bits = DTypeBits(tensor.dtype);
  const int64_t bytes = (elements * bits + 7) / 8;
  if (bits != 0 && tensor.end - tensor.begin != bytes) {
    return Contradiction(
        name, absl::StrCat("of dtype ", tensor.dtype, " and shape ",
                           FormatShape(tensor.shape), " needs ", bytes,
                           " bytes, but has data_offsets [", tensor.begin, ", ",
                           tensor.end, "]"));
  }
  return tensor;
}

// The tensors must tile the data. Returns the data's size.
absl::StatusOr<int64_t> CheckTiling(const SafetensorsTensors& tensors) {
  std::vector<const SafetensorsTensors::value_type*> by_offset;
  by_offset.reserve(tensors.size());
  for (const auto& tensor : tensors) by_offset.push_back(&tensor);
  std::sort(by_offset.begin(), by_offset.end(),
            [](const auto* a, const auto* b) {
              return std::pair(a->second.begin, a->second.end) <
                     std::pair(b->second.begin, b->second.end);
            });
  int64_t end = 0;
  for (const auto* tensor : by_offset) {
    if (tensor->second.begin != end) {
      return Contradiction(
          tensor->first,
          absl::StrCat("begins at byte ", tensor->second.begin,
                       " of the data, ",
                       tensor->second.begin < end ? "inside the one before it"
                                                  : "after a gap",
                       ", which ends at ", end));
    }
    end = tensor->second.end;
  }
  return end;
}

absl::StatusOr<DType> ServedDType(absl::string_view name,
                                  absl::string_view dtype) {
  if (dtype == "BF16") return DType::kBF16;
  if (dtype == "F16") return DType::kF16;
  if (dtype == "F32") return DType::kF32;
  return absl::InvalidArgumentError(
      absl::StrCat("tensor ", name, " has dtype ", dtype,
                   "; BF16, F16 and F32 are read: run `switchyard convert`"));
}

}  // namespace

std::string FormatShape(absl::Span<const int64_t> shape) {
  return absl::StrCat("[", absl::StrJoin(shape, ", "), "]");
}

absl::StatusOr<SafetensorsTensors> ParseSafetensors(
    absl::Span<const uint8_t> file) {
  if (file.size() < kLengthBytes) {
    return absl::InvalidArgumentError(absl::StrCat(
        "not a safetensors file, or cut: ", file.size(),
        " bytes, less than the ", kLengthBytes, " of the header's length"));
  }
  const uint64_t header_bytes = LoadLittleEndian64(file.data());
  const uint64_t rest = file.size() - kLengthBytes;
  if (header_bytes > rest || header_bytes > kMaxHeaderBytes) {
    return absl::InvalidArgumentError(absl::StrCat(
        "not a safetensors file, or cut: a header of ", header_bytes,
        " bytes is announced; the file goes on for ", rest,
        " bytes, and at most ", kMaxHeaderBytes, " are read as header"));
  }
  const absl::string_view text(
      reinterpret_cast<const char*>(file.data()) + kLengthBytes, header_bytes);
  // Deepest: header > tensor > shape.
  absl::StatusOr<Json> header =
      ParseJson(text, {.max_bytes = kMaxHeaderBytes, .max_depth = 8});
  if (!header.ok() || !header->is_object()) {
    return absl::DataLossError(absl::StrCat(
        "damaged header: ",
        header.ok() ? "not a JSON object" : header.status().message()));
  }
  SafetensorsTensors tensors;
  for (const auto& [name, entry] : header->items()) {
    if (name == "__metadata__") continue;
    SY_ASSIGN_OR_RETURN(tensors[name], ParseEntry(name, entry));
  }
  SY_ASSIGN_OR_RETURN(const int64_t data_bytes, CheckTiling(tensors));
  const int64_t data_begin = static_cast<int64_t>(kLengthBytes + header_bytes);
  const int64_t in_file = static_cast<int64_t>(file.size()) - data_begin;
  if (data_bytes > in_file) {
    return absl::InvalidArgumentError(absl::StrCat(
        "the file is cut: its tensors need ", data_bytes,
        " bytes after the header, ", in_file, " are there: fetch it again"));
  }
  if (data_bytes < in_file) {
    return absl::DataLossError(
        absl::StrCat("damaged header: ", in_file - data_bytes,
                     " bytes at the end of the file belong to no tensor"));
  }
  for (auto& [name, tensor] : tensors) {
    tensor.begin += data_begin;
    tensor.end += data_begin;
  }
  return tensors;
}

absl::StatusOr<std::unique_ptr<SafetensorsFile>> SafetensorsFile::Open(
    const std::string& path) {
  SY_ASSIGN_OR_RETURN(std::unique_ptr<MappedFile> file, MappedFile::Open(path));
  absl::StatusOr<SafetensorsTensors> tensors = ParseSafetensors(file->bytes());
  if (!tensors.ok()) {
    return absl::Status(tensors.status().code(),
                        absl::StrCat(path, ": ", tensors.status().message()));
  }
  return std::unique_ptr<SafetensorsFile>(
      new SafetensorsFile(std::move(file), *std::move(tensors)));
}

const SafetensorsTensor* SafetensorsFile::Find(absl::string_view name) const {
  const auto it = tensors_.find(name);
  return it == tensors_.end() ? nullptr : &it->second;
}

absl::Span<const uint8_t> SafetensorsFile::bytes(
    const SafetensorsTensor& tensor) const {
  return bytes().subspan(tensor.begin, tensor.end - tensor.begin);
}

absl::StatusOr<WeightView> SafetensorsFile::View(absl::string_view name) const {
  const SafetensorsTensor* tensor = Find(name);
  if (tensor == nullptr) {
    return absl::NotFoundError(
        absl::StrCat(path(), ": there is no tensor ", name));
  }
  absl::StatusOr<DType> dtype = ServedDType(name, tensor->dtype);
  if (!dtype.ok()) {
    return absl::Status(dtype.status().code(),
                        absl::StrCat(path(), ": ", dtype.status().message()));
  }
  WeightView view;
  view.data = bytes().data() + tensor->begin;
  view.dtype = *dtype;
  if (tensor->begin % 2 != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat(path(), ": tensor ", name, " begins at the odd byte ",
                     tensor->begin, ": save the file again, aligned"));
  }
  int64_t elements = 1;
  for (int64_t size : tensor->shape) elements *= size;
  view.rows = tensor->shape.size() < 2 ? 1 : tensor->shape[0];
  view.cols = view.rows == 0 ? 0 : elements / view.rows;
  return view;
}

absl::StatusOr<std::vector<float>> SafetensorsFile::ReadFloats(
    absl::string_view name) const {
  SY_ASSIGN_OR_RETURN(const WeightView view, View(name));
  std::vector<float> values(view.rows * view.cols);
  WidenWeights(view, values.data());
  return values;
}

absl::StatusOr<std::vector<int32_t>> SafetensorsFile::ReadInt32s(
    absl::string_view name) const {
  const SafetensorsTensor* tensor = Find(name);
  if (tensor == nullptr || tensor->dtype != "I32") {
    return absl::NotFoundError(
        absl::StrCat(path(), ": there is no I32 tensor ", name));
  }
  const absl::Span<const uint8_t> raw = bytes(*tensor);
  std::vector<int32_t> values(raw.size() / sizeof(int32_t));
  if (!raw.empty()) std::memcpy(values.data(), raw.data(), raw.size());
  return values;
}

}  // namespace switchyard::model
