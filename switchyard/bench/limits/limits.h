// What the machine can do at most: bytes read from memory and operations, each
// a second, over some threads. Measured beside whatever is compared with it: a
// share of a limit from another run, or another machine, says nothing.

#ifndef SWITCHYARD_SWITCHYARD_BENCH_LIMITS_LIMITS_H_
#define SWITCHYARD_SWITCHYARD_BENCH_LIMITS_LIMITS_H_

#include <string>

namespace switchyard::bench {

// Of windows of some 20 ms each. `best` is what the machine can do when nobody
// else is using it; `median` what it did. The best window may be a per cent too
// high, since work is counted in pieces of some 50 us.
struct Rate {
  double median = 0;  // a second
  double best = 0;    // a second
};

// What a multiply-add of this kind counts: two operations.
enum class Operation {
  kFmaAvx2,    // f32, vfmadd on 256 bits
  kFmaAvx512,  // f32, vfmadd on 512 bits
  kBf16Dot,    // vdpbf16ps on 512 bits
  kInt8Avx2,   // u8 x s8 to s32 by vpmaddubsw, vpmaddwd, vpaddd on 256 bits
  kInt8Vnni,   // u8 x s8 to s32 by vpdpbusd on 512 bits
};

// "fma avx512", "int8 vnni", ...
const char* OperationName(Operation operation);

// Whether this CPU and its system can run it.
bool CpuHas(Operation operation);

// The fastest of its kind that this CPU has; of kFmaAvx2 and kInt8Avx2 on a CPU
// that has none, whose rates are then 0.
Operation BestFma();
Operation BestInt8();
// BestFma() where there are no bf16 dot products.
Operation BestBf16();

// Operations a second of `threads` threads together, each on a CPU of its own
// as far as this process has so many. Takes about `seconds`; 0: one window.
// {0, 0} unless CpuHas(operation).
Rate MeasureOperations(Operation operation, int threads, double seconds);

enum class PageSize {
  kHuge,   // 2 MiB, as far as the system has some (transparent huge pages)
  kSmall,  // 4 KiB
};

// Bytes a second that `threads` threads together read from memory, each
// walking through a part of its own of a buffer of 512 MiB, far more than
// caches hold. Takes about `seconds`; 0: one window. {0, 0} if there is no
// memory for the buffer.
Rate MeasureRead(int threads, PageSize pages, double seconds);

// As the system calls it; "unknown CPU" if it does not say.
std::string CpuName();

// Seconds since some fixed moment.
double Now();

// Shortest time in seconds of several calls of `body`, for `seconds` in all.
// Best, not mean: other work on the machine only ever adds.
template <typename Body>
double BestSeconds(double seconds, Body body) {
  const double end = Now() + seconds;
  double best = 0;
  do {
    const double start = Now();
    body();
    const double taken = Now() - start;
    if (best == 0 || taken < best) best = taken;
  } while (Now() < end);
  return best;
}

}  // namespace switchyard::bench

#endif  // SWITCHYARD_SWITCHYARD_BENCH_LIMITS_LIMITS_H_
