// A tokenizer's files as plain data. Reading and shape only: whether the parts
// fit together is tokenizer.cc's to decide.

#ifndef SWITCHYARD_TEXT_TOKENIZER_FILES_H_
#define SWITCHYARD_TEXT_TOKENIZER_FILES_H_

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace switchyard::text {

struct AddedToken {
  int32_t id = -1;
  std::string content;
  bool special = false;
  // Looked for in the normalised text, not in the raw one.
  bool normalized = false;
};

struct TokenizerFiles {
  // Where the vocabulary came from, for messages.
  std::string vocab_path;
  std::string merges_path;
  // Token in the byte-level alphabet -> id.
  absl::flat_hash_map<std::string, int32_t> vocab;
  // In the order of their ranks, in the same alphabet.
  std::vector<std::pair<std::string, std::string>> merges;
  std::string expression;  // of the pre-tokenizer
  bool nfc = true;
  // Sorted by id; of tokenizer.json and tokenizer_config.json together.
  std::vector<AddedToken> added;
};

// Larger ids are refused: tables are indexed by id.
inline constexpr int32_t kMaxTokenId = (1 << 22) - 1;

// Errors as Tokenizer::Load's.
absl::StatusOr<TokenizerFiles> ReadTokenizerFiles(const std::string& directory);

// The parts of it, on text in memory. `path` is for messages.
absl::Status ParseTokenizerJson(const std::string& path, absl::string_view text,
                                TokenizerFiles* files);
absl::Status ParseVocabJson(const std::string& path, absl::string_view text,
                            TokenizerFiles* files);
absl::Status ParseMergesTxt(const std::string& path, absl::string_view text,
                            TokenizerFiles* files);
// Merges added_tokens_decoder into files->added; its flags win.
absl::Status ParseTokenizerConfig(const std::string& path,
                                  absl::string_view text,
                                  TokenizerFiles* files);

}  // namespace switchyard::text

#endif  // SWITCHYARD_TEXT_TOKENIZER_FILES_H_
