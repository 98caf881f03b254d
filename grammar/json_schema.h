// JSON Schema (draft 2020-12, and what older ones spell otherwise) -> grammar.
//
// Every text of the grammar is valid by the schema; not every valid text is in
// it. Narrower, on purpose, than the schema:
//   * properties come in the schema's order, others behind them;
//   * where properties (or prefixItems) are declared and nothing is said about
//     others, there are none, as in SGLang and vLLM;
//   * between tokens of JSON: nothing, a space, or one line end with up to 32
//     spaces or tabs, and none before a comma or colon;
//   * a type's keywords without "type" mean that type;
//   * numbers.h bounds digits, and strings have at most 4,096 characters where
//     maxLength allows more;
//   * oneOf is read as anyOf: its alternatives should exclude one another.
// Keywords that say something and cannot be promised are INVALID_ARGUMENT, with
// keyword and path; annotations and unknown keywords say nothing.
//
// Above: compile.h, tool_calls.h.

#ifndef SWITCHYARD_GRAMMAR_JSON_SCHEMA_H_
#define SWITCHYARD_GRAMMAR_JSON_SCHEMA_H_

#include <deque>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "absl/types/optional.h"
#include "base/json.h"
#include "grammar/budget.h"
#include "grammar/code_points.h"
#include "grammar/dfa.h"
#include "grammar/expression.h"
#include "grammar/regex.h"

namespace switchyard::grammar {

// Adds to a grammar what JSON and schemas need. Not thread-safe. Neither
// pointer is owned; both outlive this.
class SchemaCompiler {
 public:
  // kLenient: what cannot be promised is left out (tools that are not strict).
  enum class Mode { kStrict, kLenient };

  SchemaCompiler(Grammar* grammar, Budget* budget, Mode mode)
      : grammar_(grammar), budget_(budget), mode_(mode) {}

  // One value. "#" in references is `schema`, which must outlive the call.
  // `path` stands before paths in messages.
  absl::StatusOr<Expression> Compile(const Json& schema,
                                     const std::string& path);

  // A part of the schema that Compile() was given last.
  absl::StatusOr<Expression> CompilePart(const Json& schema,
                                         const std::string& path);

  // May be empty.
  Expression Whitespace();
  Expression AnyValue();
  Expression AnyObject();
  // This very value.
  Expression Constant(const Json& value);

  // The contents of strings that the schema allows, in the form; null: any.
  // The schema is one that Value() would take for a string.
  absl::StatusOr<std::shared_ptr<const Dfa>> StringContent(
      const Json& schema, const std::string& path, TextForm form);
  // Of the schema whose root Compile() was given last: references followed
  // until there is none at the top.
  absl::StatusOr<Json> Resolved(const Json& schema, const std::string& path);

 private:
  struct Pending {
    RuleId rule = 0;
    Json schema;
    std::string path;
  };

  // schema_values.cc
  absl::StatusOr<Expression> Value(const Json& schema, const std::string& path,
                                   int depth);
  absl::StatusOr<Expression> Alternatives(const Json& schema,
                                          const char* keyword,
                                          const std::string& path, int depth);
  absl::StatusOr<Expression> Reference(const Json& schema,
                                       const std::string& path, int depth);
  absl::StatusOr<Expression> AllOf(const Json& schema, const std::string& path,
                                   int depth);
  absl::StatusOr<Expression> OfType(const std::string& type, const Json& schema,
                                    const std::string& path, int depth);
  absl::StatusOr<const Json*> Target(const Json& reference,
                                     const std::string& path) const;
  absl::Status CheckKeywords(const Json& schema, const std::string& path) const;
  // Of a schema that is compiled later, once for all of its kind.
  Expression Later(const Json& schema, const std::string& path,
                   const std::string& key);

  // schema_scalars.cc
  absl::StatusOr<Expression> Enumeration(const Json& schema,
                                         const std::string& path);
  absl::StatusOr<Expression> String(const Json& schema,
                                    const std::string& path);
  absl::StatusOr<Dfa> PatternDfa(const std::string& pattern, RegexMatch match,
                                 TextForm form);
  absl::StatusOr<Expression> Number(bool integer, const Json& schema,
                                    const std::string& path);
  absl::StatusOr<bool> Allows(const Json& schema, const Json& value,
                              const std::string& path);
  absl::StatusOr<absl::optional<int>> Count(const Json& schema,
                                            const char* keyword,
                                            const std::string& path) const;

  // schema_objects.cc
  struct Member {
    Expression pair;
    bool required = false;
  };
  absl::StatusOr<Expression> Object(const Json& schema, const std::string& path,
                                    int depth);
  absl::StatusOr<std::vector<Member>> Declared(const Json& schema,
                                               const std::string& path,
                                               int depth);
  absl::StatusOr<Expression> Undeclared(const Json& schema,
                                        const std::string& path, int depth);
  absl::StatusOr<Expression> Members(const std::vector<Member>& members,
                                     const Expression& others, int max_others);
  absl::StatusOr<Expression> Array(const Json& schema, const std::string& path,
                                   int depth);
  absl::StatusOr<Expression> Pair(const Expression& key, const Json& value,
                                  const std::string& path, int depth);

  Grammar* const grammar_;
  Budget* const budget_;
  const Mode mode_;

  const Json* root_ = nullptr;
  std::string root_path_;
  int resolving_ = 0;  // references and allOf that are being followed
  absl::flat_hash_map<std::string, RuleId> rules_;  // of Later()
  std::deque<Pending> pending_;
  absl::optional<RuleId> whitespace_, string_, any_, object_, array_;
};

}  // namespace switchyard::grammar

#endif  // SWITCHYARD_GRAMMAR_JSON_SCHEMA_H_
