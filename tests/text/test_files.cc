#include "tests/text/test_files.h"

#include <cstdlib>
#include <fstream>
#include <iostream>

#include "base/check.h"

namespace switchyard::text {

std::vector<Json> ReadJsonLines(const std::string& path) {
  std::ifstream file(std::string(SWITCHYARD_SOURCE_DIR) + "/" + path);
  SY_CHECK(file.is_open());
  std::vector<Json> lines;
  std::string line;
  while (std::getline(file, line)) {
    absl::StatusOr<Json> value = ParseJson(line);
    if (!value.ok()) std::cerr << value.status() << "\n";
    SY_CHECK(value.ok());
    lines.push_back(*std::move(value));
  }
  SY_CHECK(!lines.empty());
  return lines;
}

std::string TokenizerDirectory(const std::string& kind) {
  return std::string(SWITCHYARD_TOKENIZER_DIR) + "/" + kind;
}

const Tokenizer& RealTokenizer() {
  static const Tokenizer* const tokenizer = [] {
    auto loaded = Tokenizer::Load(TokenizerDirectory("json"));
    if (!loaded.ok()) std::cerr << loaded.status() << "\n";
    SY_CHECK(loaded.ok());
    return loaded->release();
  }();
  return *tokenizer;
}

std::vector<int32_t> IdsOf(const Json& list) {
  return list.get<std::vector<int32_t>>();
}

std::vector<std::string> RandomPieces(absl::string_view text, int max_bytes,
                                      std::mt19937* random) {
  std::vector<std::string> pieces;
  while (!text.empty()) {
    const size_t size =
        std::uniform_int_distribution<size_t>(0, max_bytes)(*random);
    pieces.emplace_back(text.substr(0, size));
    text.remove_prefix(std::min(size, text.size()));
  }
  return pieces;
}

std::string RandomText(const std::vector<std::string>& alphabet, int count,
                       std::mt19937* random) {
  std::string text;
  for (int i = 0; i < count; ++i) {
    text += alphabet[(*random)() % alphabet.size()];
  }
  return text;
}

}  // namespace switchyard::text
