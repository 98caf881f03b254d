#include "attention_worker/state/kv_dtype.h"

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace switchyard::attention_worker {

using kernels::KvDType;

absl::StatusOr<KvCacheDType> ParseKvCacheDType(absl::string_view text) {
  if (text == "auto") return KvCacheDType::kAuto;
  if (text == "float32") return KvCacheDType::kFloat32;
  if (text == "bfloat16") return KvCacheDType::kBFloat16;
  if (text == "int8") return KvCacheDType::kInt8;
  return absl::InvalidArgumentError(
      absl::StrCat("--kv-cache-dtype is '", text,
                   "'; it must be auto, float32, bfloat16 or int8"));
}

KvDType KvDTypeFor(KvCacheDType choice, const model::Checkpoint& checkpoint) {
  switch (choice) {
    case KvCacheDType::kAuto:
      // Only what was converted has checksums in a manifest of its own.
      return checkpoint.has_checksums() ? KvDType::kBF16 : KvDType::kF32;
    case KvCacheDType::kFloat32:
      return KvDType::kF32;
    case KvCacheDType::kBFloat16:
      return KvDType::kBF16;
    case KvCacheDType::kInt8:
      return KvDType::kI8;
  }
  return KvDType::kF32;
}

const char* KvDTypeName(KvDType dtype) {
  switch (dtype) {
    case KvDType::kF32:
      return "float32";
    case KvDType::kBF16:
      return "bfloat16";
    case KvDType::kI8:
      return "int8";
  }
  return "?";
}

}  // namespace switchyard::attention_worker
