#include "grammar/compile.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "base/json.h"
#include "base/status_macros.h"
#include "grammar/budget.h"
#include "grammar/ebnf.h"
#include "grammar/json_schema.h"
#include "grammar/regex.h"
#include "grammar/structural_tag.h"
#include "grammar/tool_calls.h"

namespace switchyard::grammar {
namespace {

// Masks that are found beforehand: a millisecond or two each.
constexpr int kWarmMasks = 16;

absl::StatusOr<Grammar> Parse(GrammarKind kind, const std::string& text,
                              Budget* budget) {
  Grammar grammar;
  if (kind == GrammarKind::kEbnf) return ParseEbnf(text, budget);
  const RuleId root = grammar.AddRule();
  if (kind == GrammarKind::kRegex) {
    SY_ASSIGN_OR_RETURN(
        grammar.rules[root],
        ParseRegex(text, TextForm::kRaw, RegexMatch::kWhole, budget));
    return grammar;
  }
  SY_ASSIGN_OR_RETURN(const Json json, ParseJson(text));
  Expression whole;
  if (kind == GrammarKind::kJsonSchema) {
    SchemaCompiler compiler(&grammar, budget, SchemaCompiler::Mode::kStrict);
    SY_ASSIGN_OR_RETURN(whole, compiler.Compile(json, "#"));
  } else if (kind == GrammarKind::kStructuralTag) {
    SY_ASSIGN_OR_RETURN(whole, StructuralTag(json, &grammar, budget));
  } else {
    SY_ASSIGN_OR_RETURN(const ToolCallOptions options,
                        ToolCallOptions::FromJson(json));
    SY_ASSIGN_OR_RETURN(whole, ToolCalls(options, &grammar, budget));
  }
  grammar.rules[root] = std::move(whole);
  return grammar;
}

}  // namespace

absl::StatusOr<PushdownTables> CompileTables(GrammarKind kind,
                                             const std::string& text,
                                             int leading_newlines) {
  if (text.size() > kMaxGrammarBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("the grammar has ", text.size(), " bytes; at most ",
                     kMaxGrammarBytes, " are compiled"));
  }
  Budget budget;
  SY_ASSIGN_OR_RETURN(Grammar grammar, Parse(kind, text, &budget));
  if (leading_newlines > 0) {
    const RuleId outer = grammar.AddRule();
    grammar.rules[outer] = Sequence(
        {Repeat(Literal("\n"), 0, leading_newlines), Rule(grammar.root)});
    grammar.root = outer;
  }
  return BuildTables(grammar, &budget);
}

absl::StatusOr<std::shared_ptr<const CompiledGrammar>> CompileGrammar(
    GrammarKind kind, const std::string& text, int leading_newlines,
    std::shared_ptr<const Vocabulary> vocabulary) {
  SY_ASSIGN_OR_RETURN(PushdownTables tables,
                      CompileTables(kind, text, leading_newlines));
  auto compiled = std::make_shared<const CompiledGrammar>(
      std::move(tables), std::move(vocabulary));
  compiled->WarmUp(kWarmMasks);
  return std::shared_ptr<const CompiledGrammar>(std::move(compiled));
}

}  // namespace switchyard::grammar
