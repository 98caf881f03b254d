// Which (layer, expert) pairs somebody holds.

#ifndef SWITCHYARD_MODEL_EXPERT_SET_H_
#define SWITCHYARD_MODEL_EXPERT_SET_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace switchyard::model {

// A value: copy freely. Bit layer * num_experts + expert.
class ExpertSet {
 public:
  ExpertSet() = default;
  // Empty, over [0, num_layers) x [0, num_experts).
  ExpertSet(int num_layers, int num_experts);

  int num_layers() const { return num_layers_; }
  int num_experts() const { return num_experts_; }
  bool Contains(int layer, int expert) const;
  void Insert(int layer, int expert);
  void Erase(int layer, int expert);
  int64_t size() const;
  bool empty() const { return size() == 0; }

  // Little-endian bitmap: bit i of the set is bit i % 8 of byte i / 8. Unused
  // bits of the last byte are 0. ceil(num_layers * num_experts / 8) bytes.
  std::string ToBitmap() const;
  // INVALID_ARGUMENT: wrong length, or an unused bit set.
  static absl::StatusOr<ExpertSet> FromBitmap(int num_layers, int num_experts,
                                              absl::string_view bitmap);

  friend bool operator==(const ExpertSet&, const ExpertSet&) = default;

 private:
  int num_layers_ = 0;
  int num_experts_ = 0;
  std::vector<uint64_t> words_;
};

// What --slice and --experts mean: the expert ids, ascending, that a worker
// holds in every layer.
//   "i/n": part i (1-based) of n equal, contiguous parts; sizes differ by at
//          most one; 1 <= i <= n <= num_experts.
absl::StatusOr<std::vector<int>> ExpertsOfSlice(absl::string_view slice,
                                                int num_experts);
//   "0-15,40,41": ids and ranges, both ends included; no repeats.
absl::StatusOr<std::vector<int>> ParseExpertList(absl::string_view list,
                                                 int num_experts);

// "0-15, 40-41": for messages.
std::string FormatExpertList(const std::vector<int>& ascending_ids);

}  // namespace switchyard::model

#endif  // SWITCHYARD_MODEL_EXPERT_SET_H_
