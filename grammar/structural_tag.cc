#include "grammar/structural_tag.h"

#include <initializer_list>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/algorithm/container.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "grammar/dfa.h"
#include "grammar/ebnf.h"
#include "grammar/free_text.h"
#include "grammar/json_schema.h"
#include "grammar/regex.h"
#include "grammar/xml_parameters.h"

namespace switchyard::grammar {
namespace {

constexpr int kMaxDepth = 64;
constexpr int kMaxCount = 100'000;

using Texts = std::vector<std::string>;

absl::Status At(const std::string& path, absl::string_view what) {
  return absl::InvalidArgumentError(
      absl::StrCat("structural_tag.", path, ": ", what));
}

absl::Status NotServed(const std::string& path) {
  return At(path, "is not supported by this server");
}

// Fields of one object. null is absent.
class Fields {
 public:
  // `path` names the object in messages. Neither is owned.
  Fields(const Json& json, const std::string& path)
      : json_(json), path_(path) {}

  std::string PathOf(absl::string_view name) const {
    return path_.empty() ? std::string(name) : absl::StrCat(path_, ".", name);
  }
  const Json* Find(const char* name) const {
    const auto it = json_.find(name);
    return it == json_.end() || it->is_null() ? nullptr : &*it;
  }

  // What is not known would change the text.
  absl::Status CheckNames(std::initializer_list<const char*> known) const {
    for (const auto& [name, value] : json_.items()) {
      if (value.is_null() || name == "type") continue;
      if (!absl::c_linear_search(known, name)) return NotServed(PathOf(name));
    }
    return absl::OkStatus();
  }

  absl::StatusOr<const Json*> Get(const char* name) const {
    const Json* const value = Find(name);
    if (value == nullptr) return At(PathOf(name), "is missing");
    return value;
  }
  absl::StatusOr<std::string> Text(const char* name) const {
    SY_ASSIGN_OR_RETURN(const Json* const value, Get(name));
    if (!value->is_string()) return At(PathOf(name), "must be a string");
    return value->get<std::string>();
  }
  absl::StatusOr<bool> Flag(const char* name, bool otherwise) const {
    const Json* const value = Find(name);
    if (value == nullptr) return otherwise;
    if (!value->is_boolean()) return At(PathOf(name), "must be true or false");
    return value->get<bool>();
  }
  absl::StatusOr<int> Count(const char* name, int least) const {
    SY_ASSIGN_OR_RETURN(const Json* const value, Get(name));
    const bool fits =
        value->is_number_integer() && *value >= least && *value <= kMaxCount;
    if (!fits) {
      return At(PathOf(name), absl::StrCat("must be a number from ", least,
                                           " to ", kMaxCount));
    }
    return value->get<int>();
  }
  // Not empty.
  absl::StatusOr<const Json*> List(const char* name) const {
    SY_ASSIGN_OR_RETURN(const Json* const value, Get(name));
    if (!value->is_array() || value->empty()) {
      return At(PathOf(name), "must be an array that is not empty");
    }
    return value;
  }
  // None of them empty; absent: none.
  absl::StatusOr<Texts> Markers(const char* name) const {
    Texts texts;
    const Json* const value = Find(name);
    if (value == nullptr) return texts;
    const bool fits =
        value->is_array() && absl::c_all_of(*value, [](const Json& text) {
          return text.is_string() && text != "";
        });
    if (!fits) {
      return At(PathOf(name),
                "must be an array of strings, none of them empty");
    }
    for (const Json& text : *value) texts.push_back(text.get<std::string>());
    return texts;
  }

 private:
  const Json& json_;
  const std::string path_;
};

// What a tag may end with.
struct Ends {
  explicit Ends(Texts given) : texts(std::move(given)) {
    std::vector<Expression> options;
    for (const std::string& text : texts) options.push_back(Literal(text));
    any = Choice(std::move(options));
  }
  const Texts texts;  // >= 1, none empty
  Expression any;
};

// Where a format stands.
struct Place {
  // Of the innermost tag around it: in no free text. Null: there is no tag.
  std::shared_ptr<const Ends> ends = nullptr;
  // Nothing of the tag's content follows: the format's texts end with one of
  // its ends.
  bool last = true;

  bool closes() const { return last && ends != nullptr; }
};

Place Within(const Place& place) { return {place.ends, /*last=*/false}; }

Expression Closed(Expression what, const Place& place) {
  if (!place.closes()) return what;
  return Sequence({std::move(what), place.ends->any});
}

void AppendEnds(const Place& place, Texts* texts) {
  if (place.ends == nullptr) return;
  const Texts& ends = place.ends->texts;
  texts->insert(texts->end(), ends.begin(), ends.end());
}

class Builder {
 public:
  Builder(Grammar* grammar, Budget* budget)
      : grammar_(grammar),
        budget_(budget),
        schemas_(grammar, budget, SchemaCompiler::Mode::kStrict),
        parameters_(budget, XmlParameters::Layout::kFree) {}

  absl::StatusOr<Expression> Build(const Json& tag) {
    if (!tag.is_object()) {
      return absl::InvalidArgumentError("structural_tag must be an object");
    }
    if (const auto format = tag.find("format"); format != tag.end()) {
      return Format(*format, "format", Place(), 0);
    }
    return Structures(tag);
  }

 private:
  struct Tag {
    std::string begin;
    Expression rest;  // content and end
  };
  // What follows a pattern of free text.
  using Branches = std::map<std::string, std::vector<Expression>>;
  struct Dispatch {
    Branches branches;
    Texts excludes;
    bool loop = true;  // after a branch, free text again
  };

  absl::StatusOr<Expression> Structures(const Json& tag) {
    const Fields fields(tag, "");
    if (fields.Find("structures") == nullptr ||
        fields.Find("triggers") == nullptr) {
      return absl::InvalidArgumentError(
          "structural_tag needs a format, or structures and triggers");
    }
    const Json& structures = *fields.Find("structures");
    if (!structures.is_array()) return At("structures", "must be an array");
    std::vector<Tag> tags;
    for (size_t i = 0; i < structures.size(); ++i) {
      const std::string path = absl::StrCat("structures[", i, "]");
      if (!structures[i].is_object()) return At(path, "must be an object");
      const Fields one(structures[i], path);
      SY_RETURN_IF_ERROR(one.CheckNames({"begin", "schema", "end"}));
      SY_ASSIGN_OR_RETURN(std::string begin, one.Text("begin"));
      SY_ASSIGN_OR_RETURN(const std::string end, one.Text("end"));
      const Json* const given = one.Find("schema");
      Json schema = given == nullptr ? Json(true) : *given;
      if (schema.is_string()) {  // as vLLM passes it on
        SY_ASSIGN_OR_RETURN(schema, ParseJson(schema.get<std::string>()));
      }
      SY_ASSIGN_OR_RETURN(Expression content,
                          schemas_.Compile(schema, one.PathOf("schema")));
      tags.push_back({std::move(begin),
                      Body(Sequence({std::move(content), Literal(end)}))});
    }
    SY_ASSIGN_OR_RETURN(const Texts triggers, fields.Markers("triggers"));
    Dispatch dispatch;
    SY_ASSIGN_OR_RETURN(dispatch.branches,
                        ByTrigger(tags, triggers, "structures"));
    return FreeTextWith(dispatch, Place());
  }

  absl::StatusOr<Expression> Format(const Json& json, const std::string& path,
                                    const Place& place, int depth) {
    SY_RETURN_IF_ERROR(budget_->Spend(1));
    if (depth > kMaxDepth) return At(path, "formats are nested too deeply");
    if (!json.is_object()) return At(path, "must be an object");
    const Fields fields(json, path);
    SY_ASSIGN_OR_RETURN(const std::string type, fields.Text("type"));
    if (type == "any_text") return AnyText(fields, place);
    if (type == "sequence") return Elements(fields, place, depth);
    if (type == "or") return Alternatives(fields, place, depth);
    if (type == "triggered_tags") return TriggeredTags(fields, place, depth);
    if (type == "dispatch") return PatternDispatch(fields, place, depth);
    absl::StatusOr<Expression> bounded = NotServed(fields.PathOf("type"));
    if (type == "const_string") {
      bounded = ConstString(fields);
    } else if (type == "json_schema") {
      bounded = Schema(fields);
    } else if (type == "qwen_xml_parameter") {
      SY_RETURN_IF_ERROR(fields.CheckNames({"json_schema"}));
      bounded = Parameters(fields);
    } else if (type == "regex") {
      bounded = Pattern(fields);
    } else if (type == "grammar") {
      bounded = NestedGrammar(fields);
    } else if (type == "optional" || type == "star" || type == "plus" ||
               type == "repeat") {
      bounded = Repetition(type, fields, place, depth);
    } else if (type == "tag") {
      SY_ASSIGN_OR_RETURN(const Tag tag, OneTag(json, path, place, depth));
      bounded = Sequence({Literal(tag.begin), tag.rest});
    } else if (type == "tags_with_separator") {
      bounded = SeparatedTags(fields, place, depth);
    }
    if (!bounded.ok()) return bounded.status();
    return Closed(*std::move(bounded), place);
  }

  absl::StatusOr<Expression> ConstString(const Fields& fields) {
    SY_RETURN_IF_ERROR(fields.CheckNames({"value"}));
    SY_ASSIGN_OR_RETURN(const std::string value, fields.Text("value"));
    return Literal(value);
  }

  absl::StatusOr<Expression> Schema(const Fields& fields) {
    SY_RETURN_IF_ERROR(
        fields.CheckNames({"json_schema", "style", "any_order"}));
    if (const Json* any = fields.Find("any_order");
        any != nullptr && *any != false) {
      return NotServed(fields.PathOf("any_order"));
    }
    const Json* const style = fields.Find("style");
    if (style != nullptr && *style == "qwen_xml") return Parameters(fields);
    if (style != nullptr && *style != "json") {
      return NotServed(fields.PathOf("style"));
    }
    SY_ASSIGN_OR_RETURN(const Json* const schema, fields.Get("json_schema"));
    return schemas_.Compile(*schema, fields.PathOf("json_schema"));
  }

  absl::StatusOr<Expression> Parameters(const Fields& fields) {
    SY_ASSIGN_OR_RETURN(const Json* const schema, fields.Get("json_schema"));
    return parameters_.Compile(&schemas_, *schema,
                               fields.PathOf("json_schema"));
  }

  absl::StatusOr<Expression> Pattern(const Fields& fields) {
    SY_RETURN_IF_ERROR(fields.CheckNames({"pattern"}));
    SY_ASSIGN_OR_RETURN(const std::string pattern, fields.Text("pattern"));
    absl::StatusOr<Expression> parsed =
        ParseRegex(pattern, TextForm::kRaw, RegexMatch::kWhole, budget_);
    if (parsed.ok()) return parsed;
    return At(fields.PathOf("pattern"), std::string(parsed.status().message()));
  }

  absl::StatusOr<Expression> NestedGrammar(const Fields& fields) {
    SY_RETURN_IF_ERROR(fields.CheckNames({"grammar"}));
    SY_ASSIGN_OR_RETURN(const std::string text, fields.Text("grammar"));
    const absl::StatusOr<RuleId> root = AddEbnf(text, grammar_, budget_);
    if (root.ok()) return Rule(*root);
    return At(fields.PathOf("grammar"), std::string(root.status().message()));
  }

  absl::StatusOr<Expression> AnyText(const Fields& fields, const Place& place) {
    SY_RETURN_IF_ERROR(fields.CheckNames({"excludes"}));
    SY_ASSIGN_OR_RETURN(const Texts excludes, fields.Markers("excludes"));
    return FreeText(excludes, place);
  }

  absl::StatusOr<Expression> Elements(const Fields& fields, const Place& place,
                                      int depth) {
    SY_RETURN_IF_ERROR(fields.CheckNames({"elements"}));
    SY_ASSIGN_OR_RETURN(const Json* const elements, fields.List("elements"));
    std::vector<Expression> parts;
    for (size_t i = 0; i < elements->size(); ++i) {
      const bool last = i + 1 == elements->size();
      SY_ASSIGN_OR_RETURN(
          Expression part,
          Format((*elements)[i],
                 absl::StrCat(fields.PathOf("elements"), "[", i, "]"),
                 last ? place : Within(place), depth + 1));
      parts.push_back(std::move(part));
    }
    return Sequence(std::move(parts));
  }

  absl::StatusOr<Expression> Alternatives(const Fields& fields,
                                          const Place& place, int depth) {
    SY_RETURN_IF_ERROR(fields.CheckNames({"elements"}));
    SY_ASSIGN_OR_RETURN(const Json* const elements, fields.List("elements"));
    std::vector<Expression> options;
    for (size_t i = 0; i < elements->size(); ++i) {
      SY_ASSIGN_OR_RETURN(
          Expression option,
          Format((*elements)[i],
                 absl::StrCat(fields.PathOf("elements"), "[", i, "]"), place,
                 depth + 1));
      options.push_back(std::move(option));
    }
    return Choice(std::move(options));
  }

  absl::StatusOr<Expression> Repetition(const std::string& type,
                                        const Fields& fields,
                                        const Place& place, int depth) {
    int min = type == "plus" ? 1 : 0;
    int max = type == "optional" ? 1 : -1;
    if (type == "repeat") {
      SY_RETURN_IF_ERROR(fields.CheckNames({"content", "min", "max"}));
      SY_ASSIGN_OR_RETURN(min, fields.Count("min", 0));
      SY_ASSIGN_OR_RETURN(max, fields.Count("max", -1));
      if (max >= 0 && max < min) {
        return At(fields.PathOf("max"), "must not be below min");
      }
    } else {
      SY_RETURN_IF_ERROR(fields.CheckNames({"content"}));
    }
    SY_ASSIGN_OR_RETURN(const Json* const content, fields.Get("content"));
    SY_ASSIGN_OR_RETURN(
        Expression inner,
        Format(*content, fields.PathOf("content"), Within(place), depth + 1));
    return Repeat(Body(std::move(inner)), min, max);
  }

  absl::StatusOr<Tag> OneTag(const Json& json, const std::string& path,
                             const Place& place, int depth) {
    if (!json.is_object()) return At(path, "must be an object");
    const Fields fields(json, path);
    if (const Json* type = fields.Find("type");
        type != nullptr && *type != "tag") {
      return At(fields.PathOf("type"), "must be tag");
    }
    SY_RETURN_IF_ERROR(fields.CheckNames({"begin", "content", "end"}));
    Tag tag;
    SY_ASSIGN_OR_RETURN(tag.begin, fields.Text("begin"));
    SY_ASSIGN_OR_RETURN(const Json* const end, fields.Get("end"));
    SY_ASSIGN_OR_RETURN(const Json* const content, fields.Get("content"));
    // A tag without an end goes on as far as what is around it.
    Place inside = Within(place);
    if (*end != "") {
      const Json list = end->is_array() ? *end : Json::array({*end});
      const Json named = {{"end", list}};
      SY_ASSIGN_OR_RETURN(Texts ends, Fields(named, path).Markers("end"));
      if (ends.empty()) return At(fields.PathOf("end"), "is empty");
      inside = {std::make_shared<const Ends>(std::move(ends)), /*last=*/true};
    }
    SY_ASSIGN_OR_RETURN(
        Expression rest,
        Format(*content, fields.PathOf("content"), inside, depth + 1));
    tag.rest = Body(std::move(rest));
    return tag;
  }

  absl::StatusOr<std::vector<Tag>> Tags(const Fields& fields,
                                        const Place& place, int depth) {
    SY_ASSIGN_OR_RETURN(const Json* const list, fields.List("tags"));
    std::vector<Tag> tags;
    for (size_t i = 0; i < list->size(); ++i) {
      SY_ASSIGN_OR_RETURN(
          Tag tag,
          OneTag((*list)[i], absl::StrCat(fields.PathOf("tags"), "[", i, "]"),
                 place, depth));
      tags.push_back(std::move(tag));
    }
    return tags;
  }

  static Expression AnyTag(const std::vector<Tag>& tags) {
    std::vector<Expression> options;
    options.reserve(tags.size());
    for (const Tag& tag : tags) {
      options.push_back(Sequence({Literal(tag.begin), tag.rest}));
    }
    return Choice(std::move(options));
  }

  absl::StatusOr<Expression> SeparatedTags(const Fields& fields,
                                           const Place& place, int depth) {
    SY_RETURN_IF_ERROR(fields.CheckNames(
        {"tags", "separator", "at_least_one", "stop_after_first"}));
    SY_ASSIGN_OR_RETURN(const std::vector<Tag> tags,
                        Tags(fields, Within(place), depth));
    SY_ASSIGN_OR_RETURN(const std::string separator, fields.Text("separator"));
    SY_ASSIGN_OR_RETURN(const bool one, fields.Flag("at_least_one", false));
    SY_ASSIGN_OR_RETURN(const bool first,
                        fields.Flag("stop_after_first", false));
    const Expression any = Body(AnyTag(tags));
    Expression several = Sequence(
        {any, Repeat(Sequence({Literal(separator), any}), 0, first ? 0 : -1)});
    return one ? several : Optional(std::move(several));
  }

  absl::StatusOr<Expression> TriggeredTags(const Fields& fields,
                                           const Place& place, int depth) {
    SY_RETURN_IF_ERROR(fields.CheckNames(
        {"triggers", "tags", "excludes", "at_least_one", "stop_after_first"}));
    SY_ASSIGN_OR_RETURN(const Texts triggers, fields.Markers("triggers"));
    SY_ASSIGN_OR_RETURN(const std::vector<Tag> tags,
                        Tags(fields, Within(place), depth));
    SY_ASSIGN_OR_RETURN(const bool one, fields.Flag("at_least_one", false));
    SY_ASSIGN_OR_RETURN(const bool first,
                        fields.Flag("stop_after_first", false));
    Dispatch dispatch;
    SY_ASSIGN_OR_RETURN(dispatch.excludes, fields.Markers("excludes"));
    SY_ASSIGN_OR_RETURN(dispatch.branches,
                        ByTrigger(tags, triggers, fields.PathOf("tags")));
    dispatch.loop = !first;
    if (!one) return FreeTextWith(dispatch, place);
    if (first) return Closed(AnyTag(tags), place);
    SY_ASSIGN_OR_RETURN(Expression others, FreeTextWith(dispatch, place));
    return Sequence({AnyTag(tags), std::move(others)});
  }

  absl::StatusOr<Expression> PatternDispatch(const Fields& fields,
                                             const Place& place, int depth) {
    SY_RETURN_IF_ERROR(fields.CheckNames({"rules", "excludes", "loop"}));
    SY_ASSIGN_OR_RETURN(const Json* const rules, fields.List("rules"));
    Dispatch dispatch;
    for (size_t i = 0; i < rules->size(); ++i) {
      const Json& rule = (*rules)[i];
      const std::string path =
          absl::StrCat(fields.PathOf("rules"), "[", i, "]");
      if (!rule.is_array() || rule.size() != 2 || !rule[0].is_string() ||
          rule[0] == "") {
        return At(path,
                  "must be an array of a pattern, not empty, and a format");
      }
      SY_ASSIGN_OR_RETURN(
          Expression content,
          Format(rule[1], absl::StrCat(path, "[1]"), Within(place), depth + 1));
      dispatch.branches[rule[0].get<std::string>()].push_back(
          std::move(content));
    }
    SY_ASSIGN_OR_RETURN(dispatch.excludes, fields.Markers("excludes"));
    SY_ASSIGN_OR_RETURN(dispatch.loop, fields.Flag("loop", true));
    return FreeTextWith(dispatch, place);
  }

  // A trigger that no tag begins with stands in no text.
  absl::StatusOr<Branches> ByTrigger(const std::vector<Tag>& tags,
                                     const Texts& triggers,
                                     const std::string& path) {
    Branches branches;
    for (const std::string& trigger : triggers) branches[trigger];
    for (size_t i = 0; i < tags.size(); ++i) {
      SY_RETURN_IF_ERROR(budget_->Spend(static_cast<int64_t>(branches.size())));
      int found = 0;
      for (auto& [trigger, rests] : branches) {
        if (!absl::StartsWith(tags[i].begin, trigger)) continue;
        ++found;
        rests.push_back(Sequence(
            {Literal(tags[i].begin.substr(trigger.size())), tags[i].rest}));
      }
      if (found != 1) {
        return At(absl::StrCat(path, "[", i, "].begin"),
                  absl::StrCat("begins with ", found,
                               " of the triggers; it must be one"));
      }
    }
    return branches;
  }

  absl::StatusOr<Expression> FreeTextWith(const Dispatch& dispatch,
                                          const Place& place) {
    Texts stops = dispatch.excludes;
    std::vector<TextEnd> patterns;
    for (const auto& [pattern, rests] : dispatch.branches) {
      stops.push_back(pattern);
      if (!rests.empty()) patterns.push_back({pattern, RuleOf(Choice(rests))});
    }
    Texts without = stops;
    AppendEnds(place, &without);
    SY_ASSIGN_OR_RETURN(Dfa up_to_pattern,
                        TextUpTo(patterns, without, budget_));
    const Expression step =
        Automaton(std::make_shared<const Dfa>(std::move(up_to_pattern)));
    SY_ASSIGN_OR_RETURN(Expression text, FreeText(stops, place));
    if (!dispatch.loop) return Choice({text, Closed(step, place)});
    return Sequence({Repeat(step, 0, -1), std::move(text)});
  }

  absl::StatusOr<Expression> FreeText(const Texts& excludes,
                                      const Place& place) {
    Texts without = excludes;
    absl::StatusOr<Dfa> text = Dfa();
    if (place.closes()) {
      std::vector<TextEnd> ends;
      for (const std::string& end : place.ends->texts) ends.push_back({end});
      text = TextUpTo(ends, without, budget_);
    } else {
      AppendEnds(place, &without);
      text = TextWithout(without, budget_);
    }
    SY_RETURN_IF_ERROR(text.status());
    return Automaton(std::make_shared<const Dfa>(*std::move(text)));
  }

  // Automata stay small, and share rules.
  RuleId RuleOf(Expression what) {
    const RuleId rule = grammar_->AddRule();
    grammar_->rules[rule] = std::move(what);
    return rule;
  }
  Expression Body(Expression what) { return Rule(RuleOf(std::move(what))); }

  Grammar* const grammar_;
  Budget* const budget_;
  SchemaCompiler schemas_;
  XmlParameters parameters_;
};

}  // namespace

absl::StatusOr<Expression> StructuralTag(const Json& tag, Grammar* grammar,
                                         Budget* budget) {
  return Builder(grammar, budget).Build(tag);
}

}  // namespace switchyard::grammar
