// The fixtures of the tests of text and of what is built on it.

#ifndef SWITCHYARD_TESTS_TEXT_TEST_FILES_H_
#define SWITCHYARD_TESTS_TEXT_TEST_FILES_H_

#include <random>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "base/json.h"
#include "text/tokenizer.h"

namespace switchyard::text {

// Every line of a file of the source tree, which must be there.
std::vector<Json> ReadJsonLines(const std::string& path);

// The folder "json" or "vocab" of the unpacked real tokenizer.
std::string TokenizerDirectory(const std::string& kind);

// The real tokenizer, from tokenizer.json; loaded once.
const Tokenizer& RealTokenizer();

std::vector<int32_t> IdsOf(const Json& list);

// `text` cut at random into pieces of 0 to `max_bytes` bytes.
std::vector<std::string> RandomPieces(absl::string_view text, int max_bytes,
                                      std::mt19937* random);

// `count` items of `alphabet`, joined.
std::string RandomText(const std::vector<std::string>& alphabet, int count,
                       std::mt19937* random);

}  // namespace switchyard::text

#endif  // SWITCHYARD_TESTS_TEXT_TEST_FILES_H_
