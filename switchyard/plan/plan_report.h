// A plan as text for people, and as values for deploy/k8s.

#ifndef SWITCHYARD_SWITCHYARD_PLAN_PLAN_REPORT_H_
#define SWITCHYARD_SWITCHYARD_PLAN_PLAN_REPORT_H_

#include <ostream>
#include <string>

#include "switchyard/plan/planner.h"

namespace switchyard::plan {

struct ReportOptions {
  int64_t cores = 0;         // of a node
  int64_t server_cores = 0;  // of the one that it is compared with
};

void PrintPlan(const CostModel& model, const Request& request, const Plan& plan,
               const ReportOptions& options, std::ostream& out);

// The same for programs: an object, in seconds, bytes and tokens a second.
std::string PlanJson(const Request& request, const Plan& plan);

}  // namespace switchyard::plan

#endif  // SWITCHYARD_SWITCHYARD_PLAN_PLAN_REPORT_H_
