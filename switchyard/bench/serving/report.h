// What a run of `switchyard bench serving` found, for people and for programs.

#ifndef SWITCHYARD_SWITCHYARD_BENCH_SERVING_REPORT_H_
#define SWITCHYARD_SWITCHYARD_BENCH_SERVING_REPORT_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "switchyard/bench/serving/concurrency.h"
#include "switchyard/bench/serving/conversation.h"
#include "switchyard/bench/serving/drafts.h"
#include "switchyard/bench/serving/mixed.h"

namespace switchyard::bench {

struct ServingReport {
  std::string model_dir;
  std::string fingerprint;
  std::string cpu;
  std::string isa;
  int threads = 0;
  int64_t context = 0;  // tokens

  // What was measured.
  std::optional<ConversationResult> conversation;
  std::vector<PrefixResult> prefix;
  std::optional<DraftsResult> drafts;
  std::vector<ConcurrencyMeasurement> concurrency;
  std::vector<StallMeasurement> stall;
  std::optional<MixedResult> mixed;
};

// A number that is promised: at most (or at least) `bar`.
struct Bar {
  std::string what;
  double value = 0;
  double bar = 0;
  bool at_least = false;

  bool met() const { return at_least ? value >= bar : value <= bar; }
};

// Of what was measured. Bytes are in bytes, shares in parts of one.
std::vector<Bar> Bars(const ServingReport& report);

// Tables, the bars last.
std::string ServingText(const ServingReport& report);

// One object; docs/benchmarks.md describes it.
std::string ServingJson(const ServingReport& report);

}  // namespace switchyard::bench

#endif  // SWITCHYARD_SWITCHYARD_BENCH_SERVING_REPORT_H_
