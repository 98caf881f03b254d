// One safetensors file: its header, and its tensors as views into the mapping.
//
// The format: 8 bytes little-endian header length n; n bytes of JSON, tensor
// name
// -> {"dtype", "shape", "data_offsets": [begin, end]}, padded with spaces; then
// the data, which the offsets count in, without gaps or overlaps.
//
// There is no checksum in the format: a flipped bit in the data shows only by
// model/checksums.h.

#ifndef SWITCHYARD_MODEL_SAFETENSORS_H_
#define SWITCHYARD_MODEL_SAFETENSORS_H_

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "base/mapped_file.h"
#include "kernels/matrix.h"

namespace switchyard::model {

struct SafetensorsTensor {
  std::string dtype;           // as in the file: "BF16", "I64", ...
  std::vector<int64_t> shape;  // empty: a scalar; dimensions may be 0
  int64_t begin = 0;           // bytes from the start of the file
  int64_t end = 0;
};

using SafetensorsTensors =
    std::map<std::string, SafetensorsTensor, std::less<>>;

// The header of a whole file in memory. Every tensor's bytes lie within `file`,
// and for known dtypes shape and bytes agree.
// INVALID_ARGUMENT: the file is shorter than its header says (cut, or no
// safetensors file at all). DATA_LOSS: a header that is not JSON or contradicts
// itself: overlaps, gaps, shape and bytes that differ.
absl::StatusOr<SafetensorsTensors> ParseSafetensors(
    absl::Span<const uint8_t> file);

// Immutable, so thread-safe. Views live as long as the file.
class SafetensorsFile {
 public:
  // As ParseSafetensors and MappedFile::Open; messages begin with the path.
  static absl::StatusOr<std::unique_ptr<SafetensorsFile>> Open(
      const std::string& path);

  const std::string& path() const { return file_->path(); }
  const SafetensorsTensors& tensors() const { return tensors_; }
  // Null if there is none.
  const SafetensorsTensor* Find(absl::string_view name) const;

  absl::Span<const uint8_t> bytes() const { return file_->bytes(); }
  absl::Span<const uint8_t> bytes(const SafetensorsTensor& tensor) const;

  // One dimension counts as [1, n], none as [1, 1]; more are flattened to
  // [first, rest]. NOT_FOUND names the tensor. INVALID_ARGUMENT: another dtype
  // than BF16, F16 or F32 (it says what to do), or data at an odd address.
  absl::StatusOr<kernels::WeightView> View(absl::string_view name) const;

  // A BF16, F16 or F32 tensor as floats, or an I32 one as integers, flattened.
  absl::StatusOr<std::vector<float>> ReadFloats(absl::string_view name) const;
  absl::StatusOr<std::vector<int32_t>> ReadInt32s(absl::string_view name) const;

 private:
  SafetensorsFile(std::unique_ptr<MappedFile> file, SafetensorsTensors tensors)
      : file_(std::move(file)), tensors_(std::move(tensors)) {}
  const std::unique_ptr<MappedFile> file_;
  const SafetensorsTensors tensors_;
};

// "[2, 3]": for messages.
std::string FormatShape(absl::Span<const int64_t> shape);

}  // namespace switchyard::model

#endif  // SWITCHYARD_MODEL_SAFETENSORS_H_
