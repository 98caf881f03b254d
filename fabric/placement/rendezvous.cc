#include "fabric/placement/rendezvous.h"

#include <array>
#include <bit>

#include "base/check.h"

namespace switchyard::fabric {
namespace {

constexpr int kFractionBits = 26;  // of logarithms
constexpr int kTableBits = 8;

// splitmix64's finalizer: every bit of the result depends on all of `x`.
constexpr uint64_t Mix(uint64_t x) {
  x += 0x9e3779b97f4a7c15;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
  x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
  return x ^ (x >> 31);
}

// log2(1 + i / 2^kTableBits) with kFractionBits, by repeated squaring.
constexpr uint32_t Log2OfTableStep(int i) {
  uint64_t x = (uint64_t{1} << 31) + (static_cast<uint64_t>(i) << 23);  // Q31
  if (i == 1 << kTableBits) return uint32_t{1} << kFractionBits;
  uint32_t result = 0;
  for (int bit = 0; bit < kFractionBits; ++bit) {
    x = (x * x) >> 31;
    result <<= 1;
    if (x >= uint64_t{1} << 32) {
      result |= 1;
      x >>= 1;
    }
  }
  return result;
}

constexpr auto kLog2Table = [] {
  std::array<uint32_t, (1 << kTableBits) + 1> table{};
  for (int i = 0; i <= 1 << kTableBits; ++i) table[i] = Log2OfTableStep(i);
  return table;
}();

// -log2(u / 2^64) with kFractionBits, by linear interpolation; u != 0.
uint64_t NegativeLog2(uint64_t u) {
  const int zeros = std::countl_zero(u);
  const uint64_t fraction = (u << zeros) << 1;  // behind the leading 1
  const auto step = static_cast<size_t>(fraction >> (64 - kTableBits));
  const uint64_t within = (fraction << kTableBits) >> 40;  // 24 bits
  const uint64_t low = kLog2Table[step];
  const uint64_t log = low + (((kLog2Table[step + 1] - low) * within) >> 24);
  return (static_cast<uint64_t>(zeros + 1) << kFractionBits) - log;
}

}  // namespace

uint64_t MemberHash(absl::string_view instance_id) {
  uint64_t hash = 0xcbf29ce484222325;  // FNV-1a
  for (const char c : instance_id) {
    hash = (hash ^ static_cast<uint8_t>(c)) * 0x100000001b3;
  }
  return Mix(hash);
}

uint64_t RendezvousCost(uint64_t member_hash, uint64_t item, int64_t weight) {
  SY_DCHECK(weight >= 1 && weight <= int64_t{1} << 30);
  // An exponential draw with rate `weight`: below 2^33 * 2^30 before the
  // division.
  const uint64_t u = Mix(member_hash ^ Mix(item)) | 1;
  return (NegativeLog2(u) << 30) / static_cast<uint64_t>(weight);
}

}  // namespace switchyard::fabric
