// In what numbers a worker keeps keys and values (--kv-cache-dtype).

#ifndef SWITCHYARD_ATTENTION_WORKER_STATE_KV_DTYPE_H_
#define SWITCHYARD_ATTENTION_WORKER_STATE_KV_DTYPE_H_

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "kernels/kv_rows.h"
#include "model/checkpoint.h"

namespace switchyard::attention_worker {

enum class KvCacheDType {
  kAuto,  // bf16 for a converted checkpoint, else f32
  kFloat32,
  kBFloat16,
  kInt8,
};

// "auto", "float32", "bfloat16", "int8". INVALID_ARGUMENT names the four.
absl::StatusOr<KvCacheDType> ParseKvCacheDType(absl::string_view text);

// What `choice` means for `checkpoint`.
kernels::KvDType KvDTypeFor(KvCacheDType choice,
                            const model::Checkpoint& checkpoint);

// "float32", "bfloat16", "int8".
const char* KvDTypeName(kernels::KvDType dtype);

}  // namespace switchyard::attention_worker

#endif  // SWITCHYARD_ATTENTION_WORKER_STATE_KV_DTYPE_H_
