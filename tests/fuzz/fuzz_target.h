// What is fuzzed: functions of any bytes that abort (SY_CHECK or a sanitizer)
// when a promise of ours breaks. A status that refuses the bytes is a fine
// outcome.
//
// The fuzz build makes a libFuzzer binary of each; tests/model's
// fuzz_regression_test and tests/expert_worker's run the same functions over
// the corpus in every build.

#ifndef SWITCHYARD_TESTS_FUZZ_FUZZ_TARGET_H_
#define SWITCHYARD_TESTS_FUZZ_FUZZ_TARGET_H_

#include <cstddef>
#include <cstdint>

#include "absl/types/span.h"

namespace switchyard::fuzz {

// model/safetensors.h: the header of a file.
void FuzzSafetensors(absl::Span<const uint8_t> bytes);
// model/config.h: config.json and generation_config.json, and what is computed
// of an accepted config.
void FuzzConfig(absl::Span<const uint8_t> bytes);
// base/json.h: parsing, and printing what was parsed.
void FuzzJson(absl::Span<const uint8_t> bytes);
// model/manifest.h: the manifest of a converted checkpoint.
void FuzzManifest(absl::Span<const uint8_t> bytes);
void FuzzSnapshot(absl::Span<const uint8_t> bytes);
// The messages between attention and expert workers, as either side decodes
// them (attention_worker/client/ and expert_worker/service/expert_codec.h).
void FuzzExpertCodec(absl::Span<const uint8_t> bytes);
// router/openai/request.h: bodies of chat and completion requests, and the
// rendering of accepted chats.
void FuzzOpenAiRequest(absl::Span<const uint8_t> bytes);
// grammar/compile.h: any text in any notation, and a text written under it.
void FuzzGrammar(absl::Span<const uint8_t> bytes);

}  // namespace switchyard::fuzz

// At the end of the file that defines `function`: libFuzzer's entry, in the
// fuzz build only.
#ifdef SWITCHYARD_FUZZER
#define SWITCHYARD_FUZZER_ENTRY(function)                                   \
  extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) { \
    ::switchyard::fuzz::function(absl::MakeConstSpan(data, size));          \
    return 0;                                                               \
  }                                                                         \
  static_assert(true)
#else
#define SWITCHYARD_FUZZER_ENTRY(function) static_assert(true)
#endif

#endif  // SWITCHYARD_TESTS_FUZZ_FUZZ_TARGET_H_
