#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "attention_worker/state/snapshot_file.h"
#include "base/check.h"
#include "tests/fuzz/fuzz_target.h"

namespace switchyard::fuzz {
namespace {

namespace aw = attention_worker;

model::ModelConfig Config() {
  model::ModelConfig config;
  config.layer_types = {model::LayerType::kFullAttention};
  config.num_key_value_heads = 1;
  config.head_dim = 1;
  config.hidden_size = 1;
  return config;
}

// A file without a disk.
class ScratchFile {
 public:
  ScratchFile() : fd_(memfd_create("fuzz-snapshot", MFD_CLOEXEC)) {
    SY_CHECK(fd_ >= 0);
  }
  ~ScratchFile() { close(fd_); }
  void Write(absl::Span<const uint8_t> bytes) const {
    SY_CHECK(ftruncate(fd_, 0) == 0);
    SY_CHECK(pwrite(fd_, bytes.data(), bytes.size(), 0) ==
             static_cast<ssize_t>(bytes.size()));
  }
  std::string path() const { return absl::StrCat("/proc/self/fd/", fd_); }

 private:
  const int fd_;
};

aw::StateBlock Block(int64_t floats) {
  return aw::StateBlock(new float[static_cast<size_t>(floats)],
                        std::default_delete<float[]>());
}

}  // namespace

void FuzzSnapshot(absl::Span<const uint8_t> bytes) {
  static const ScratchFile file;
  static const aw::StateShape shape(Config());
  file.Write(bytes);
  const auto header = aw::ReadSnapshotHeader(file.path(), shape);
  if (!header.ok()) {
    SY_CHECK(!header.status().message().empty());
    return;
  }
  SY_CHECK(header->num_tokens >= 1);
  // Nothing is taken before the tokens are those that were asked for.
  const std::vector<int32_t> tokens = {1, 2, 3};
  const auto snapshot = aw::ReadSnapshot(
      file.path(), header->identity, shape, {header->scope, tokens},
      [] { return Block(shape.FixedFloats()); },
      [] { return Block(shape.PageFloats()); });
  if (snapshot.ok()) SY_CHECK(snapshot->num_tokens == 3);
}

}  // namespace switchyard::fuzz

SWITCHYARD_FUZZER_ENTRY(FuzzSnapshot);
