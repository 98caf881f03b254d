// SchemaCompiler: objects and arrays.

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "grammar/code_points.h"
#include "grammar/json_schema.h"

namespace switchyard::grammar {
namespace {

absl::Status At(const std::string& path, absl::string_view what) {
  return absl::InvalidArgumentError(absl::StrCat(path, ": ", what));
}

std::string Content(const std::string& name) {
  const std::string quoted = DumpJson(name);
  return quoted.substr(1, quoted.size() - 2);
}

Expression Quoted(Expression content) {
  return Sequence({Literal("\""), std::move(content), Literal("\"")});
}

absl::StatusOr<std::vector<std::string>> RequiredNames(
    const Json& schema, const std::string& path) {
  std::vector<std::string> names;
  const auto it = schema.find("required");
  // Draft 3 had a boolean there; some tools still write it.
  if (it == schema.end() || it->is_boolean()) return names;
  if (!it->is_array()) return At(path + "/required", "must be an array");
  for (const Json& name : *it) {
    if (!name.is_string()) {
      return At(path + "/required", "must be an array of strings");
    }
    names.push_back(name.get<std::string>());
  }
  return names;
}

const Json* Find(const Json& schema, const char* keyword) {
  const auto it = schema.find(keyword);
  return it == schema.end() ? nullptr : &*it;
}

absl::StatusOr<const Json*> FindObject(const Json& schema, const char* keyword,
                                       const std::string& path) {
  const Json* const found = Find(schema, keyword);
  if (found != nullptr && !found->is_object()) {
    return At(absl::StrCat(path, "/", keyword), "must be an object");
  }
  return found;
}

}  // namespace

absl::StatusOr<Expression> SchemaCompiler::Pair(const Expression& key,
                                                const Json& value,
                                                const std::string& path,
                                                int depth) {
  SY_ASSIGN_OR_RETURN(Expression expression, Value(value, path, depth + 1));
  return Sequence({key, Literal(":"), Whitespace(), std::move(expression)});
}

absl::StatusOr<std::vector<SchemaCompiler::Member>> SchemaCompiler::Declared(
    const Json& schema, const std::string& path, int depth) {
  SY_ASSIGN_OR_RETURN(const std::vector<std::string> required,
                      RequiredNames(schema, path));
  SY_ASSIGN_OR_RETURN(const Json* const properties,
                      FindObject(schema, "properties", path));
  SY_ASSIGN_OR_RETURN(const Json* const by_pattern,
                      FindObject(schema, "patternProperties", path));
  std::shared_ptr<const Dfa> allowed_names;
  if (const Json* const names = Find(schema, "propertyNames")) {
    if (*names == false) return std::vector<Member>();
    if (names->is_object()) {
      SY_ASSIGN_OR_RETURN(allowed_names,
                          StringContent(*names, path + "/propertyNames",
                                        TextForm::kJsonString));
    }
  }
  std::vector<Member> members;
  const auto add = [&](const std::string& name, Json value,
                       bool is_required) -> absl::Status {
    const std::string content = Content(name);
    const std::string at = absl::StrCat(path, "/properties/", name);
    if (by_pattern != nullptr) {
      for (const auto& [pattern, more] : by_pattern->items()) {
        SY_ASSIGN_OR_RETURN(
            const Dfa dfa,
            PatternDfa(pattern, RegexMatch::kSearch, TextForm::kJsonString));
        if (dfa.Matches(content)) {
          value = Json{{"allOf", Json::array({std::move(value), more})}};
        }
      }
    }
    if (allowed_names != nullptr && !allowed_names->Matches(content)) {
      value = false;
    }
    if (value == false && !is_required) return absl::OkStatus();
    SY_ASSIGN_OR_RETURN(
        Expression pair,
        Pair(Quoted(Text(name, TextForm::kJsonString)), value, at, depth));
    members.push_back({std::move(pair), is_required});
    return absl::OkStatus();
  };
  const auto is_required = [&](const std::string& name) {
    return std::find(required.begin(), required.end(), name) != required.end();
  };
  if (properties != nullptr) {
    for (const auto& [name, value] : properties->items()) {
      SY_RETURN_IF_ERROR(add(name, value, is_required(name)));
    }
  }
  // Required without being declared: as any other one.
  for (size_t i = 0; i < required.size(); ++i) {
    const std::string& name = required[i];
    if ((properties != nullptr && properties->contains(name)) ||
        std::find(required.begin(), required.begin() + i, name) !=
            required.begin() + i) {
      continue;
    }
    const Json* const others = Find(schema, "additionalProperties");
    SY_RETURN_IF_ERROR(
        add(name, others != nullptr ? *others : Json(true), true));
  }
  return members;
}

// Pairs of names that are not declared; nothing if there can be none.
absl::StatusOr<Expression> SchemaCompiler::Undeclared(const Json& schema,
                                                      const std::string& path,
                                                      int depth) {
  SY_ASSIGN_OR_RETURN(const Json* const properties,
                      FindObject(schema, "properties", path));
  SY_ASSIGN_OR_RETURN(const Json* const by_pattern,
                      FindObject(schema, "patternProperties", path));
  const Json* const others = Find(schema, "additionalProperties");
  const bool declares =
      (properties != nullptr && !properties->empty()) || by_pattern != nullptr;
  const Json other_values =
      others != nullptr ? *others : Json(!declares || others != nullptr);
  // Any name, once in each spelling, but those with a schema of their own.
  SY_ASSIGN_OR_RETURN(
      Dfa names,
      BuildDfa(Repeat(OneOf(CodePointSet::All(), TextForm::kJsonString), 0, -1),
               budget_));
  std::vector<Expression> declared;
  SY_ASSIGN_OR_RETURN(const std::vector<std::string> required,
                      RequiredNames(schema, path));
  for (const std::string& name : required) {
    declared.push_back(Text(name, TextForm::kJsonString));
  }
  if (properties != nullptr) {
    for (const auto& [name, value] : properties->items()) {
      declared.push_back(Text(name, TextForm::kJsonString));
    }
  }
  const bool free_names = declared.empty() && by_pattern == nullptr &&
                          !schema.contains("propertyNames");
  if (free_names) {
    if (other_values == false) return Nothing();
    SY_ASSIGN_OR_RETURN(const Expression key, String(Json::object(), path));
    return Pair(key, other_values, path + "/additionalProperties", depth);
  }
  SY_ASSIGN_OR_RETURN(const Dfa taken, BuildDfa(Choice(declared), budget_));
  SY_ASSIGN_OR_RETURN(names,
                      Combine(names, taken, Combination::kFirstOnly, budget_));
  if (const Json* const rule = Find(schema, "propertyNames")) {
    const std::string at = path + "/propertyNames";
    if (*rule == false) return Nothing();
    if (!rule->is_boolean() && !rule->is_object()) {
      return At(at, "must be a schema");
    }
    if (rule->is_object()) {
      for (const char* keyword :
           {"anyOf", "oneOf", "allOf", "$ref", "not", "enum", "const", "if"}) {
        if (rule->contains(keyword) && mode_ == Mode::kStrict) {
          return At(absl::StrCat(at, "/", keyword), "is not supported here");
        }
      }
      SY_ASSIGN_OR_RETURN(const std::shared_ptr<const Dfa> allowed,
                          StringContent(*rule, at, TextForm::kJsonString));
      if (allowed != nullptr) {
        SY_ASSIGN_OR_RETURN(
            names, Combine(names, *allowed, Combination::kBoth, budget_));
      }
    }
  }
  std::vector<Expression> options;
  std::vector<Dfa> patterns;
  if (by_pattern != nullptr) {
    for (const auto& [pattern, value] : by_pattern->items()) {
      absl::StatusOr<Dfa> dfa =
          PatternDfa(pattern, RegexMatch::kSearch, TextForm::kJsonString);
      if (!dfa.ok()) {
        return At(absl::StrCat(path, "/patternProperties/", pattern),
                  dfa.status().message());
      }
      patterns.push_back(*std::move(dfa));
    }
    size_t i = 0;
    for (const auto& [pattern, value] : by_pattern->items()) {
      // A name that two patterns match would need both schemas: left out.
      Dfa own = names;
      for (size_t j = 0; j < patterns.size(); ++j) {
        SY_ASSIGN_OR_RETURN(
            own, Combine(own, patterns[j],
                         j == i ? Combination::kBoth : Combination::kFirstOnly,
                         budget_));
      }
      ++i;
      if (value == false) continue;
      SY_ASSIGN_OR_RETURN(
          Expression pair,
          Pair(Quoted(Automaton(std::make_shared<const Dfa>(std::move(own)))),
               value, absl::StrCat(path, "/patternProperties/", pattern),
               depth));
      options.push_back(std::move(pair));
    }
  }
  if (other_values != false) {
    for (const Dfa& pattern : patterns) {
      SY_ASSIGN_OR_RETURN(
          names, Combine(names, pattern, Combination::kFirstOnly, budget_));
    }
    SY_ASSIGN_OR_RETURN(
        Expression pair,
        Pair(Quoted(Automaton(std::make_shared<const Dfa>(std::move(names)))),
             other_values, path + "/additionalProperties", depth));
    options.push_back(std::move(pair));
  }
  return Choice(std::move(options));
}

// `others`: pairs behind the members, at most `max_others` (< 0: any number).
absl::StatusOr<Expression> SchemaCompiler::Members(
    const std::vector<Member>& members, const Expression& others,
    int max_others) {
  const Expression comma = Sequence({Literal(","), Whitespace()});
  const auto repeated = [&](int taken) {
    const int max = max_others < 0 ? -1 : std::max(max_others - taken, 0);
    return Repeat(Sequence({comma, others}), 0, max);
  };
  // What may follow when something stands before it, and when nothing does.
  Expression after = repeated(0);
  Expression first =
      max_others == 0 ? Empty() : Optional(Sequence({others, repeated(1)}));
  for (size_t i = members.size(); i-- > 0;) {
    const Member& member = members[i];
    if (member.required) {
      first = Sequence({member.pair, after});
      after = Sequence({comma, member.pair, after});
      continue;
    }
    SY_RETURN_IF_ERROR(budget_->Spend(16));
    // Used more than once: a rule, or the whole would grow with the square of
    // the number of members that may be missing.
    const RuleId rest = grammar_->AddRule();
    grammar_->rules[rest] = after;
    const RuleId pair = grammar_->AddRule();
    grammar_->rules[pair] = member.pair;
    first = Choice({Sequence({Rule(pair), Rule(rest)}), first});
    after = Choice({Sequence({comma, Rule(pair), Rule(rest)}), Rule(rest)});
  }
  return first;
}

absl::StatusOr<Expression> SchemaCompiler::Object(const Json& schema,
                                                  const std::string& path,
                                                  int depth) {
  SY_ASSIGN_OR_RETURN(const std::vector<Member> members,
                      Declared(schema, path, depth));
  SY_ASSIGN_OR_RETURN(const Expression others, Undeclared(schema, path, depth));
  SY_ASSIGN_OR_RETURN(const absl::optional<int> least,
                      Count(schema, "minProperties", path));
  SY_ASSIGN_OR_RETURN(const absl::optional<int> most,
                      Count(schema, "maxProperties", path));
  const int all = static_cast<int>(members.size());
  const int required = static_cast<int>(
      std::count_if(members.begin(), members.end(),
                    [](const Member& member) { return member.required; }));
  const bool strict = mode_ == Mode::kStrict;
  // Names may come twice among the others, so only the first one counts.
  const bool needs_one = least.value_or(0) > required;
  if (needs_one && strict && (*least > 1 || all > 0)) {
    return At(path + "/minProperties",
              "is supported up to the number of required properties, and 1 "
              "where none is declared");
  }
  int max_others = -1;
  if (most.has_value()) {
    if (*most < all && strict) {
      return At(path + "/maxProperties",
                "is supported from the number of declared properties up");
    }
    max_others = std::max(*most - all, 0);
  }
  const Expression ws = Whitespace();
  Expression content;
  if (needs_one && all == 0) {
    content = Sequence(
        {others, Repeat(Sequence({Literal(","), ws, others}), 0,
                        max_others < 0 ? -1 : std::max(max_others - 1, 0))});
    if (max_others == 0) content = Nothing();
  } else {
    SY_ASSIGN_OR_RETURN(content, Members(members, others, max_others));
  }
  return Sequence({Literal("{"), ws, std::move(content), ws, Literal("}")});
}

absl::StatusOr<Expression> SchemaCompiler::Array(const Json& schema,
                                                 const std::string& path,
                                                 int depth) {
  const Json* prefix = Find(schema, "prefixItems");
  const Json* items = Find(schema, "items");
  if (prefix == nullptr && items != nullptr && items->is_array()) {
    prefix = items;  // before draft 2020-12
    items = Find(schema, "additionalItems");
  }
  if (prefix != nullptr && !prefix->is_array()) {
    return At(path + "/prefixItems", "must be an array of schemas");
  }
  SY_ASSIGN_OR_RETURN(const absl::optional<int> least,
                      Count(schema, "minItems", path));
  SY_ASSIGN_OR_RETURN(const absl::optional<int> most,
                      Count(schema, "maxItems", path));
  const int min = least.value_or(0);
  const int max = most.value_or(-1);
  if (max >= 0 && max < min) {
    return At(path + "/maxItems", "is less than minItems");
  }
  const Expression ws = Whitespace();
  const Expression comma = Sequence({Literal(","), ws});
  const int fixed = prefix == nullptr ? 0 : static_cast<int>(prefix->size());
  Json rest = items != nullptr ? *items : Json(true);
  // Nothing is said about more: none, unless there must be some.
  if (items == nullptr && fixed > 0 && min <= fixed) rest = false;
  Expression more = Nothing();
  if (rest != false && (max < 0 || max > fixed)) {
    const RuleId rule = grammar_->AddRule();
    SY_ASSIGN_OR_RETURN(grammar_->rules[rule],
                        Value(rest, path + "/items", depth + 1));
    more = Rule(rule);
  }
  // From the back: what follows when `i` items stand before it.
  const int more_max = max < 0 ? -1 : std::max(max - fixed, 0);
  const int more_min =
      std::min(std::max(min - fixed, 0), more_max < 0 ? min : more_max);
  Expression content;
  if (fixed == 0) {
    if (more_max == 0) {
      content = Empty();
    } else {
      content = Sequence(
          {more, Repeat(Sequence({comma, more}), std::max(more_min - 1, 0),
                        more_max < 0 ? -1 : more_max - 1)});
      if (min == 0) content = Optional(std::move(content));
    }
  } else {
    content = Repeat(Sequence({comma, more}), more_min, more_max);
    for (int i = fixed - 1; i >= 0; --i) {
      if (max >= 0 && i >= max) {
        content = Empty();
        continue;
      }
      SY_ASSIGN_OR_RETURN(
          Expression item,
          Value((*prefix)[static_cast<size_t>(i)],
                absl::StrCat(path, "/prefixItems/", i), depth + 1));
      content = Sequence(
          {i == 0 ? Empty() : comma, std::move(item), std::move(content)});
      // A shorter array is as good, by the standard; one that stops short is
      // seldom meant, but it may be all that maxItems allows.
      if (i >= min) content = Optional(std::move(content));
    }
  }
  return Sequence({Literal("["), ws, std::move(content), ws, Literal("]")});
}

}  // namespace switchyard::grammar
