// switchyard-bench-grammar: what holding an output to a grammar costs a token.
//
//   switchyard-bench-grammar --tokenizer DIR [--texts 20]
//
// For each grammar: how long compiling takes, and then, over texts that a
// writer draws at random from the masks, how long one step's mask and taking
// the token take (microseconds: the median, the 99th percentile, the greatest;
// first on a grammar just compiled, then on one that has seen as many texts).
// DIR has a tokenizer: all of its tokens count, as many as a model's rows have.
//
// --smoke: a vocabulary of bytes and a text each, to show that it works.

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "absl/flags/flag.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "base/check.h"
#include "base/command_line.h"
#include "grammar/compile.h"
#include "grammar/matcher.h"
#include "text/tokenizer.h"

ABSL_FLAG(std::string, tokenizer, "", "a directory with tokenizer.json");
ABSL_FLAG(int64_t, vocab_size, 151936, "entries of a row of logits");
ABSL_FLAG(int, texts, 20, "texts of each grammar");
ABSL_FLAG(bool, smoke, false, "show that it works, measure nothing");

namespace switchyard::grammar {
namespace {

struct Case {
  const char* name;
  GrammarKind kind;
  const char* text;
};

constexpr Case kCases[] = {
    {"any object", GrammarKind::kJsonSchema, R"({"type": "object"})"},
    {"flat schema", GrammarKind::kJsonSchema,
     R"({"type": "object", "properties": {"name": {"type": "string"}, "age":
        {"type": "integer", "minimum": 0, "maximum": 150}, "email": {"type":
        "string", "format": "email"}, "tags": {"type": "array", "items":
        {"type": "string"}}}, "required": ["name", "age", "email", "tags"],
        "additionalProperties": false})"},
    {"counted strings", GrammarKind::kJsonSchema,
     R"({"type": "object", "properties": {"a": {"type": "string", "maxLength":
        500}, "b": {"type": "string", "minLength": 5, "maxLength": 80}, "c":
        {"type": "string", "pattern": "^[A-Z][a-z]+( [A-Z][a-z]+)*$"}},
        "required": ["a", "b", "c"]})"},
    {"recursive schema", GrammarKind::kJsonSchema,
     R"({"$defs": {"node": {"type": "object", "properties": {"value": {"type":
        "string"}, "children": {"type": "array", "items": {"$ref":
        "#/$defs/node"}}}, "required": ["value", "children"]}}, "$ref":
        "#/$defs/node"})"},
    {"regex", GrammarKind::kRegex, "[A-Z][a-z]{2,12}( [a-z]{1,12}){3,20}\\."},
    {"tool call", GrammarKind::kToolCalls,
     R"({"format": "json", "tools": [{"name": "search", "parameters": {"type":
        "object", "properties": {"query": {"type": "string"}, "limit": {"type":
        "integer"}}, "required": ["query"]}}], "parallel": false})"},
    {"free text with calls", GrammarKind::kToolCalls,
     R"({"format": "json", "tools": [{"name": "search", "parameters": {"type":
        "object", "properties": {"query": {"type": "string"}}, "required":
        ["query"]}, "strict": true}], "free_text": true})"},
};

std::shared_ptr<const Vocabulary> MakeVocabulary(bool smoke) {
  if (smoke) {
    std::vector<std::string> tokens;
    for (int byte = 0; byte < 256; ++byte) {
      tokens.push_back(std::string(1, static_cast<char>(byte)));
    }
    return Vocabulary::Create(tokens);
  }
  const auto tokenizer = text::Tokenizer::Load(absl::GetFlag(FLAGS_tokenizer));
  if (!tokenizer.ok()) {
    std::fprintf(stderr, "%s\n", tokenizer.status().ToString().c_str());
    return nullptr;
  }
  return Vocabulary::Create(**tokenizer, absl::GetFlag(FLAGS_vocab_size));
}

double Micros(absl::Time begin) {
  return absl::ToDoubleMicroseconds(absl::Now() - begin);
}

// Adds each token's times.
void Write(const std::shared_ptr<const CompiledGrammar>& grammar,
           std::mt19937* random, std::vector<double>* micros) {
  constexpr int kMostTokens = 300;
  Matcher matcher(grammar);
  std::vector<uint64_t> mask(
      static_cast<size_t>(matcher.vocabulary().mask_words()));
  for (int i = 0; i < kMostTokens && !matcher.must_end(); ++i) {
    const absl::Time begin = absl::Now();
    matcher.FillMask(absl::MakeSpan(mask));
    double time = Micros(begin);
    std::vector<int32_t> ids;
    for (int32_t id = 0; id < matcher.vocabulary().size(); ++id) {
      if ((mask[static_cast<size_t>(id >> 6)] >> (id & 63) & 1) != 0) {
        ids.push_back(id);
      }
    }
    SY_CHECK(!ids.empty());
    // The shortest of a few: long ones are rare in what models write.
    int32_t id = ids[(*random)() % ids.size()];
    for (int tries = 0; tries < 3; ++tries) {
      const int32_t other = ids[(*random)() % ids.size()];
      if (matcher.vocabulary().bytes_of(other).size() <
          matcher.vocabulary().bytes_of(id).size()) {
        id = other;
      }
    }
    const absl::Time taking = absl::Now();
    SY_CHECK(matcher.AcceptToken(id));
    time += Micros(taking);
    micros->push_back(time);
  }
}

void Print(const char* what, std::vector<double> micros) {
  std::sort(micros.begin(), micros.end());
  std::printf("  %-6s %7zu tokens   p50 %8.1f   p99 %8.1f   max %8.1f us\n",
              what, micros.size(), micros[micros.size() / 2],
              micros[micros.size() * 99 / 100], micros.back());
}

int Run() {
  const bool smoke = absl::GetFlag(FLAGS_smoke);
  const std::shared_ptr<const Vocabulary> vocabulary = MakeVocabulary(smoke);
  if (vocabulary == nullptr) return 1;
  std::printf("vocabulary: %lld tokens, %d nodes\n",
              static_cast<long long>(vocabulary->size()),
              vocabulary->num_nodes());
  const int texts = smoke ? 1 : absl::GetFlag(FLAGS_texts);
  std::mt19937 random(1);
  for (const Case& c : kCases) {
    const absl::Time begin = absl::Now();
    const auto grammar = CompileGrammar(c.kind, c.text, 0, vocabulary);
    const double compile = Micros(begin) / 1000;
    if (!grammar.ok()) {
      std::fprintf(stderr, "%s\n", grammar.status().ToString().c_str());
      return 1;
    }
    std::printf("%s: compiled in %.1f ms, %zu states\n", c.name, compile,
                (*grammar)->tables().states.size());
    std::vector<double> fresh, used;
    for (int i = 0; i < texts; ++i) Write(*grammar, &random, &fresh);
    for (int i = 0; i < texts; ++i) Write(*grammar, &random, &used);
    Print("fresh", std::move(fresh));
    Print("used", std::move(used));
  }
  return 0;
}

}  // namespace
}  // namespace switchyard::grammar

int main(int argc, char** argv) {
  const auto arguments = switchyard::ParseCommandLine(
      argc, argv, "switchyard-bench-grammar: what a grammar costs a token");
  if (!arguments.ok()) {
    std::fprintf(stderr, "%s\n", arguments.status().ToString().c_str());
    return 2;
  }
  return switchyard::grammar::Run();
}
