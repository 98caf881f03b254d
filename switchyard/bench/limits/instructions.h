// Loops of one instruction each, for limits.cc.

#ifndef SWITCHYARD_SWITCHYARD_BENCH_LIMITS_INSTRUCTIONS_H_
#define SWITCHYARD_SWITCHYARD_BENCH_LIMITS_INSTRUCTIONS_H_

#include <cstdint>

#include "switchyard/bench/limits/limits.h"

namespace switchyard::bench {

// Some 50 us of independent chains of one operation.
struct Chains {
  void (*run)() = nullptr;  // null: this CPU has no such instruction
  double operations = 0;    // of one call of run
};

Chains FindChains(Operation operation);

// Reads `bytes`, a multiple of 1024, from `data`, aligned to 64, once, in
// ascending order, with the widest registers that there are.
void ReadMemory(const char* data, int64_t bytes);

}  // namespace switchyard::bench

#endif  // SWITCHYARD_SWITCHYARD_BENCH_LIMITS_INSTRUCTIONS_H_
