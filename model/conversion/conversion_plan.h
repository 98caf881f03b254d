// What a conversion writes, before it writes anything.

#ifndef SWITCHYARD_MODEL_CONVERSION_CONVERSION_PLAN_H_
#define SWITCHYARD_MODEL_CONVERSION_CONVERSION_PLAN_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/matrix.h"
#include "model/conversion/container.h"
#include "model/conversion/weight_source.h"
#include "model/weight_formats.h"

namespace switchyard::model {

struct PlannedFile {
  std::string name;
  // Whose experts: container.tensors[e] is expert e's blob. -1: the tensors
  // that are no experts, container.tensors[i] is ConversionPlan::tensors[i].
  int layer = -1;
  ContainerPlan container;
};

struct PlannedTensor {
  std::string name;
  kernels::DType dtype = kernels::DType::kF32;
  std::vector<int64_t> shape;
};

struct ConversionPlan {
  std::vector<PlannedTensor> tensors;
  kernels::DType expert_dtype = kernels::DType::kF32;
  std::vector<PlannedFile> files;
  int64_t total_bytes = 0;  // of all files
};

// One file for the tensors that are no experts, and one for each layer's
// experts. A tied head that is quantised becomes a tensor of its own. Experts
// that keep their dtypes and have several become F32. Errors as the source's.
absl::StatusOr<ConversionPlan> PlanConversion(const WeightSource& source,
                                              const WeightFormats& formats);

}  // namespace switchyard::model

#endif  // SWITCHYARD_MODEL_CONVERSION_CONVERSION_PLAN_H_
