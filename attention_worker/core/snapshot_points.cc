#include "attention_worker/core/snapshot_points.h"

#include <algorithm>

namespace switchyard::attention_worker {
namespace {

constexpr int kLastBoundaries = 3;
// Before the end of a prompt without boundaries.
constexpr int64_t kWaysBack[] = {128, 512, 2048};

}  // namespace

std::vector<int64_t> SnapshotPoints(int64_t cached, int64_t common, int64_t end,
                                    absl::Span<const int64_t> boundaries) {
  std::vector<int64_t> points;
  if (end <= cached) return points;
  const bool header = !boundaries.empty() && boundaries.back() > cached &&
                      boundaries.back() < end &&
                      end - boundaries.back() < kMinSnapshotGap;
  points.push_back(header ? boundaries.back() : end);
  // The most valuable first: what is too near to one of them is left out.
  const auto add = [&](int64_t point) {
    if (point - cached < kMinSnapshotGap || point >= end) return;
    const bool near =
        std::any_of(points.begin(), points.end(), [point](int64_t other) {
          return std::abs(point - other) < kMinSnapshotGap;
        });
    if (!near) points.push_back(point);
  };
  add(common);
  if (!boundaries.empty()) {
    add(boundaries.front());
    for (size_t i = 0; i < boundaries.size() && i < kLastBoundaries; ++i) {
      add(boundaries[boundaries.size() - 1 - i]);
    }
  } else {
    for (const int64_t back : kWaysBack) add(end - back);
  }
  std::sort(points.begin(), points.end());
  return points;
}

}  // namespace switchyard::attention_worker
