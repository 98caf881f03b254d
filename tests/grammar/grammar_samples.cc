// grammar-samples: texts of JSON schemas, for judges in other languages.
//
// Reads a schema a line, and answers a line: {"error": "..."}, or {"texts":
// [...]} with texts written by choosing at random among what the grammar
// allows.

#include <cstdint>
#include <iostream>
#include <random>
#include <string>

#include "base/json.h"
#include "tests/grammar/grammar_test_util.h"

int main() {
  using switchyard::Json;
  constexpr int kTexts = 6;
  std::mt19937 random(7);
  std::string line;
  while (std::getline(std::cin, line)) {
    const auto grammar = switchyard::grammar::Compile(
        switchyard::grammar::GrammarKind::kJsonSchema, line);
    Json answer = Json::object();
    if (grammar.ok()) {
      answer["texts"] = Json::array();
      for (int i = 0; i < kTexts; ++i) {
        const auto text = switchyard::grammar::DrawText(*grammar, &random);
        if (text.has_value()) answer["texts"].push_back(*text);
      }
    } else {
      answer["error"] = std::string(grammar.status().message());
    }
    std::cout << switchyard::DumpJson(answer) << std::endl;
  }
  return 0;
}
