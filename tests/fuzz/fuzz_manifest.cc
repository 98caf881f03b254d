#include "base/check.h"
#include "model/manifest.h"
#include "tests/fuzz/fuzz_target.h"

namespace switchyard::fuzz {

void FuzzManifest(absl::Span<const uint8_t> bytes) {
  const absl::string_view text(reinterpret_cast<const char*>(bytes.data()),
                               bytes.size());
  const auto manifest = model::ParseManifest(text);
  if (!manifest.ok()) {
    SY_CHECK(!manifest.status().message().empty());
    return;
  }
  // Accepted: what it says can be written down and read again.
  const auto again = model::ParseManifest(model::SerializeManifest(*manifest));
  SY_CHECK(again.ok());
  SY_CHECK(*again == *manifest);
  int last_layer = -1;
  for (const auto& layer : manifest->expert_layers) {
    SY_CHECK(layer.layer > last_layer);
    last_layer = layer.layer;
    SY_CHECK(model::IsPlainFileName(layer.file));
  }
  for (const auto& tensor : manifest->tensors) {
    SY_CHECK(model::IsPlainFileName(tensor.file));
    SY_CHECK(!tensor.shape.empty());
    for (const int64_t size : tensor.shape) SY_CHECK(size >= 0);
  }
}

}  // namespace switchyard::fuzz

SWITCHYARD_FUZZER_ENTRY(FuzzManifest);
