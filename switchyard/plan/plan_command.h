// `switchyard plan`: how many machines a model needs, and what they would do.

#ifndef SWITCHYARD_SWITCHYARD_PLAN_PLAN_COMMAND_H_
#define SWITCHYARD_SWITCHYARD_PLAN_PLAN_COMMAND_H_

#include <cstdint>
#include <ostream>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace switchyard {

struct PlanOptions {
  std::string model;                    // a folder with config.json, or "80b"
  std::string format = "q4";            // as `switchyard convert`'s --format
  std::string kv_cache_dtype = "auto";  // auto: bfloat16
  std::string ram_per_node;             // "64GiB"
  int64_t nodes = 0;
  // 1GbE, 10GbE, 25GbE, 100GbE; loopback: all on one machine
  std::string network = "10GbE";
  int64_t context = 8192;
  int64_t users = 1;
  int64_t replicas = 2;
  // Of a node and of the one big server that it is compared with.
  int64_t cores_per_node = 16;
  double memory_gbps = 100;       // 10^9 bytes a second
  double core_gops = 470;         // 10^9 8-bit operations a second of one core
  int64_t attention_workers = 0;  // 0: as many as are best
  int64_t server_cores = 64;
  double server_memory_gbps = 400;
  std::string json_path;  // "": none
};

// Prints tables, and the values for an overlay of deploy/k8s, to `out`; the
// plan's numbers as JSON to json_path, whole or not at all.
// INVALID_ARGUMENT: an option out of range or unknown (names it and what is
// known); FAILED_PRECONDITION: it does not fit (says what would); or as
// model::ParseModelConfig and the file's errors.
absl::Status RunPlan(const PlanOptions& options, std::ostream& out);

// "64GiB", "512MiB", "1.5TiB", "64G" (the same as GiB, as Kubernetes's Gi) or
// plain bytes. INVALID_ARGUMENT: anything else, or nothing.
absl::StatusOr<double> ParseBytes(absl::string_view flag,
                                  absl::string_view text);

}  // namespace switchyard

#endif  // SWITCHYARD_SWITCHYARD_PLAN_PLAN_COMMAND_H_
