// How much work an encoding took, so that tests can watch its growth; a clock
// on a shared machine could not.

#ifndef SWITCHYARD_TEXT_ENCODE_WORK_H_
#define SWITCHYARD_TEXT_ENCODE_WORK_H_

#include <cstdint>
#include <vector>

#include "absl/strings/string_view.h"
#include "text/tokenizer.h"

namespace switchyard::text {

struct EncodeWork {
  int64_t normalizer_steps = 0;  // characters and comparisons
  int64_t scanner_steps = 0;     // characters looked at
  int64_t merge_steps = 0;       // pairs looked up, and entries of the heap

  int64_t total() const {
    return normalizer_steps + scanner_steps + merge_steps;
  }
};

// As tokenizer.Encode(text), which must come from Tokenizer::Load.
std::vector<int32_t> EncodeCounted(const Tokenizer& tokenizer,
                                   absl::string_view text, EncodeWork* work);

}  // namespace switchyard::text

#endif  // SWITCHYARD_TEXT_ENCODE_WORK_H_
