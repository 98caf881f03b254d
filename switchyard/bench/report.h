// What a run of `switchyard bench` found, for people and for programs.

#ifndef SWITCHYARD_SWITCHYARD_BENCH_REPORT_H_
#define SWITCHYARD_SWITCHYARD_BENCH_REPORT_H_

#include <cstdint>
#include <string>
#include <vector>

#include "switchyard/bench/accounting.h"
#include "switchyard/bench/limits/limits.h"
#include "switchyard/bench/limits/socket_round_trip.h"
#include "switchyard/bench/measure.h"

namespace switchyard::bench {

// Of `threads` threads together.
struct MeasuredLimits {
  Rate read;
  Rate int8;
  Rate fma;
  Rate bf16;
};

struct SocketResult {
  bool spin = false;
  RoundTrip round_trip;
};

struct Report {
  // The model.
  std::string model_dir;
  std::string fingerprint;
  int64_t layers = 0;
  std::string expert_format;  // "q8", "q4", "bf16", "bf16dot", "f16", "f32"
  std::string dense_format;   // of attention and delta rule
  std::string lm_head_format;
  int64_t active_weights = 0;  // of a token
  double active_bytes = 0;

  // The machine and the setting.
  std::string cpu;
  std::string isa;
  int threads = 0;
  int64_t prefill_chunk = 0;
  std::string kv_cache_dtype;  // "float32", "bfloat16", "int8"
  int expert_workers = 0;      // 0: in process
  SocketKind transport = SocketKind::kTcp;
  int worker_threads = 0;

  int limit_threads = 0;
  MeasuredLimits before, after;  // the whole run
  std::vector<Measurement> measurements;

  // With expert workers: the bytes of one token's dispatch over raw sockets.
  std::vector<SocketResult> sockets;

  int64_t weight_bytes = 0;           // that this process holds
  int64_t worker_resident_bytes = 0;  // of all expert workers together
};

// Tables.
std::string ReportText(const Report& report);

// One object; docs/benchmarks.md describes it.
std::string ReportJson(const Report& report);

}  // namespace switchyard::bench

#endif  // SWITCHYARD_SWITCHYARD_BENCH_REPORT_H_
