// Rows of a source's tensor in the dtype that is written.

#ifndef SWITCHYARD_MODEL_CONVERSION_ENCODE_H_
#define SWITCHYARD_MODEL_CONVERSION_ENCODE_H_

#include <cstdint>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "kernels/matrix.h"
#include "model/conversion/weight_source.h"
#include "model/weight_formats.h"

namespace switchyard::model {

// The dtype of a tensor that is `source` in its source.
kernels::DType StoredDType(WeightFormat format, kernels::DType source);

// Rows [begin, begin + count) as dtype, WeightBytes(dtype, count, cols) bytes
// of `out`. REQUIRES: quantised: begin is a multiple of kPanelRows. DATA_LOSS
// names the tensor: it holds a NaN or an infinity. INVALID_ARGUMENT: a value
// too large for the dtype.
absl::Status EncodeRows(const SourceTensor& tensor, absl::string_view name,
                        kernels::DType dtype, int64_t begin, int64_t count,
                        void* out);

}  // namespace switchyard::model

#endif  // SWITCHYARD_MODEL_CONVERSION_ENCODE_H_
