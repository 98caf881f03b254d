// Rows of activations as experts' weights take them, made once for all holders.
//
// Above: the dispatcher's run, and its probes. Below: the kernels.

#ifndef SWITCHYARD_ATTENTION_WORKER_MOE_ENCODED_ROWS_H_
#define SWITCHYARD_ATTENTION_WORKER_MOE_ENCODED_ROWS_H_

#include <cstddef>
#include <cstdint>

#include "kernels/matrix.h"
#include "kernels/quantized.h"

namespace switchyard::attention_worker {

// Views; of the formats that the rows do not have, null.
struct EncodedRows {
  kernels::QuantizedRows quantized;
  const uint16_t* rounded = nullptr;  // [rows, cols]
};

// What EncodeRowsAs needs; 0 for floats.
size_t EncodedRowBytes(kernels::RowFormat format, int64_t num_rows,
                       int64_t cols);

// x [num_rows, cols] in `memory`, which begins at a multiple of 64 bytes and
// has EncodedRowBytes. Nothing happens for floats.
EncodedRows EncodeRowsAs(kernels::RowFormat format, const float* x,
                         int64_t num_rows, int64_t cols, char* memory);

}  // namespace switchyard::attention_worker

#endif  // SWITCHYARD_ATTENTION_WORKER_MOE_ENCODED_ROWS_H_
