#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/strip.h"
#include "router/text/call_parser.h"
#include "router/text/xml_value.h"

namespace switchyard::router {
namespace {

constexpr absl::string_view kFunctionBegin = "<function=";
constexpr absl::string_view kFunctionEnd = "</function>";
constexpr absl::string_view kParameterBegin = "<parameter=";
constexpr absl::string_view kParameterEnd = "</parameter>";

// Longer names, and longer white space between two tags, make no tag: so what
// is looked at again with every piece of text stays short.
constexpr size_t kMaxNameBytes = 256;
constexpr size_t kMaxSpaceBytes = 64;

// What stands at the beginning of a text of which more may come.
struct Found {
  enum class Kind {
    kNo,
    kMore,  // undecided until more text comes
    kYes,
  };
  Kind kind = Kind::kNo;
  size_t length = 0;  // bytes of the tag, if kYes
  std::string name;   // of <function=NAME> or <parameter=NAME>

  bool yes() const { return kind == Kind::kYes; }
  bool more() const { return kind == Kind::kMore; }
};

Found FindTag(absl::string_view text, absl::string_view tag) {
  if (absl::StartsWith(text, tag)) return {Found::Kind::kYes, tag.size(), ""};
  if (absl::StartsWith(tag, text)) return {Found::Kind::kMore, 0, ""};
  return {};
}

// "<function=NAME>"; NAME is one line without angle brackets.
Found FindNamed(absl::string_view text, absl::string_view begin) {
  Found found = FindTag(text, begin);
  if (!found.yes()) return found;
  const absl::string_view rest = text.substr(begin.size());
  const size_t end = rest.substr(0, kMaxNameBytes).find_first_of("<>\n");
  if (end == absl::string_view::npos) {
    if (rest.size() >= kMaxNameBytes) return {};
    return {Found::Kind::kMore, 0, ""};
  }
  if (rest[end] != '>') return {};
  const absl::string_view name =
      absl::StripAsciiWhitespace(rest.substr(0, end));
  if (name.empty()) return {};
  return {Found::Kind::kYes, begin.size() + end + 1, std::string(name)};
}

// The offset of the first character that is not white space; npos if there is
// none in a text that may go on.
size_t SkipSpace(absl::string_view text, size_t begin) {
  for (size_t i = begin; i < text.size(); ++i) {
    if (!IsAsciiSpace(text[i]) || i - begin >= kMaxSpaceBytes) return i;
  }
  return absl::string_view::npos;
}

// "<tool_call>", white space, "<function=NAME>".
Found FindCall(absl::string_view text) {
  const Found outer = FindTag(text, kCallBegin);
  if (!outer.yes()) return outer;
  const size_t begin = SkipSpace(text, outer.length);
  if (begin == absl::string_view::npos) return {Found::Kind::kMore, 0, ""};
  Found function = FindNamed(text.substr(begin), kFunctionBegin);
  if (function.yes()) function.length += begin;
  return function;
}

void AppendJsonStringBody(absl::string_view text, std::string* out) {
  for (const char c : text) {
    switch (c) {
      case '"':
        absl::StrAppend(out, "\\\"");
        break;
      case '\\':
        absl::StrAppend(out, "\\\\");
        break;
      case '\n':
        absl::StrAppend(out, "\\n");
        break;
      case '\r':
        absl::StrAppend(out, "\\r");
        break;
      case '\t':
        absl::StrAppend(out, "\\t");
        break;
      default:
        if (static_cast<uint8_t>(c) < 0x20) {
          absl::StrAppendFormat(out, "\\u%04x", static_cast<uint8_t>(c));
        } else {
          out->push_back(c);
        }
    }
  }
}

// See output_parser.h for the rules. Works on a buffer of text whose meaning is
// still open; a step takes something off its front, or waits for more.
class XmlCallParser final : public CallParser {
 public:
  explicit XmlCallParser(const Json& tools) {
    if (!tools.is_array()) return;
    for (const Json& tool : tools) {
      const Json& function = FunctionOfTool(tool);
      if (!function.is_object()) continue;
      const auto name = function.find("name");
      if (name == function.end() || !name->is_string()) continue;
      ParameterTypes& types = tools_[name->get<std::string>()];
      const auto parameters = function.find("parameters");
      if (parameters == function.end() || !parameters->is_object()) continue;
      const auto properties = parameters->find("properties");
      if (properties == parameters->end() || !properties->is_object()) continue;
      for (const auto& [key, schema] : properties->items()) {
        types.emplace(key, XmlValueType::FromSchema(schema));
      }
    }
  }

  void Add(absl::string_view text, DeltaBuilder* out) override {
    buffer_.append(text.data(), text.size());
    Run(out);
  }

  void Finish(TextEnd end, DeltaBuilder* out) override {
    final_ = true;
    Run(out);
    const bool in_value = state_ == State::kValue;
    const bool in_call = in_value || state_ == State::kBody;
    if (in_call && end == TextEnd::kCutOff) {
      if (in_value && !streaming_) {
        const std::string key = KeyText();
        out->Arguments(absl::StrCat(key, value_));
      }
      out->CutOffCall();
    } else if (in_call) {
      out->Arguments(in_value && streaming_ ? "\"}" : "}");
    }
    state_ = State::kText;
  }

 private:
  using ParameterTypes = absl::flat_hash_map<std::string, XmlValueType>;

  enum class State {
    kText,           // looking for a call
    kBody,           // within a function, between parameters
    kValue,          // within a parameter
    kAfterFunction,  // </tool_call> or another function may come
  };

  void Run(DeltaBuilder* out) {
    size_t begin = 0;
    while (begin < buffer_.size()) {
      const absl::string_view rest = absl::string_view(buffer_).substr(begin);
      const size_t taken = Step(rest, out);
      if (taken == kWait) break;
      begin += taken;
    }
    buffer_.erase(0, begin);
  }

  static constexpr size_t kWait = static_cast<size_t>(-1);

  // The bytes of `rest` (not empty) that are done with, or kWait. May be 0
  // after a change of state.
  size_t Step(absl::string_view rest, DeltaBuilder* out) {
    switch (state_) {
      case State::kText:
        return StepText(rest, out);
      case State::kBody:
        return StepBody(rest, out);
      case State::kValue:
        return StepValue(rest, out);
      case State::kAfterFunction:
        return StepAfterFunction(rest, out);
    }
    return kWait;
  }

  // More text may come, and `found` depends on it.
  bool Undecided(const Found& found) const { return found.more() && !final_; }

  size_t StepText(absl::string_view rest, DeltaBuilder* out) {
    const size_t bracket = rest.find('<');
    if (bracket != 0) {
      const absl::string_view plain = rest.substr(0, bracket);
      out->Content(plain);
      return plain.size();
    }
    const Found call = FindCall(rest);
    const Found bare = FindNamed(rest, kFunctionBegin);
    if (Undecided(call) || Undecided(bare)) return kWait;
    if (call.yes()) return BeginCall(call, out);
    // Without the outer tag it may also be talk about the format.
    if (bare.yes() && (tools_.empty() || tools_.contains(bare.name))) {
      return BeginCall(bare, out);
    }
    out->Content("<");
    return 1;
  }

  size_t BeginCall(const Found& call, DeltaBuilder* out) {
    out->BeginCall(call.name);
    out->Arguments("{");
    const auto types = tools_.find(call.name);
    types_ = types == tools_.end() ? nullptr : &types->second;
    given_.clear();
    in_junk_ = false;
    state_ = State::kBody;
    return call.length;
  }

  void EndCall(State next, DeltaBuilder* out) {
    out->Arguments("}");
    state_ = next;
  }

  size_t StepBody(absl::string_view rest, DeltaBuilder* out) {
    if (rest[0] != '<') {
      // Text that belongs nowhere is kept as content; white space only within
      // it.
      const absl::string_view plain = rest.substr(0, rest.find('<'));
      absl::string_view text = plain;
      if (!in_junk_) {
        while (!text.empty() && IsAsciiSpace(text[0])) text.remove_prefix(1);
      }
      in_junk_ = in_junk_ || !text.empty();
      out->Content(text);
      return plain.size();
    }
    const Found parameter = FindNamed(rest, kParameterBegin);
    const Found function_end = FindTag(rest, kFunctionEnd);
    const Found call_end = FindTag(rest, kCallEnd);
    const Found call = FindCall(rest);
    const Found function = FindNamed(rest, kFunctionBegin);
    for (const Found* found :
         {&parameter, &function_end, &call_end, &call, &function}) {
      if (Undecided(*found)) return kWait;
    }
    if (parameter.yes()) {
      BeginParameter(parameter.name);
      return parameter.length;
    }
    if (function_end.yes()) {
      EndCall(State::kAfterFunction, out);
      return function_end.length;
    }
    if (call_end.yes()) {
      EndCall(State::kText, out);
      return call_end.length;
    }
    if (call.yes() || function.yes()) {
      EndCall(State::kText, out);
      return BeginCall(call.yes() ? call : function, out);
    }
    // A tag cut off by the end of the text is no text.
    for (const Found* found :
         {&parameter, &function_end, &call_end, &call, &function}) {
      if (found->more()) return rest.size();
    }
    in_junk_ = true;
    out->Content("<");
    return 1;
  }

  void BeginParameter(const std::string& name) {
    state_ = State::kValue;
    in_junk_ = false;
    key_ = name;
    value_.clear();
    streaming_ = false;
    at_begin_ = true;
    at_line_begin_ = false;
    type_ = XmlValueType();
    if (types_ != nullptr) {
      const auto type = types_->find(name);
      if (type != types_->end()) type_ = type->second;
    }
  }

  size_t StepValue(absl::string_view rest, DeltaBuilder* out) {
    if (std::exchange(at_begin_, false) && rest[0] == '\n') {
      at_line_begin_ = true;
      return 1;
    }
    const size_t mark = rest.find_first_of("\n<");
    if (mark != 0) {
      const absl::string_view plain = rest.substr(0, mark);
      AppendValue(plain, out);
      return plain.size();
    }
    // A newline right before a tag that ends the value is not part of it.
    const size_t newline = rest[0] == '\n' ? 1 : 0;
    const absl::string_view tag = rest.substr(newline);
    if (tag.empty()) return final_ ? rest.size() : kWait;
    const Found end = FindTag(tag, kParameterEnd);
    if (Undecided(end)) return kWait;
    if (end.yes()) {
      EndParameter(out);
      return newline + end.length;
    }
    if (newline == 1 || at_line_begin_) {
      const Found next = FindImplicitEnd(tag);
      if (Undecided(next)) return kWait;
      if (next.yes()) {
        EndParameter(out);
        return newline;
      }
      if (next.more()) return rest.size();
    }
    // Cut off within the closing tag.
    if (end.more()) return rest.size();
    AppendValue(rest.substr(0, 1), out);
    return 1;
  }

  // A tag, at the beginning of a line, that shows that </parameter> was
  // forgotten. The value may hold the like, so it must fit.
  Found FindImplicitEnd(absl::string_view text) const {
    Found next = FindNamed(text, kParameterBegin);
    if (next.yes() && types_ != nullptr &&
        (!types_->contains(next.name) || given_.contains(next.name) ||
         next.name == key_)) {
      next = Found();
    }
    if (next.kind != Found::Kind::kNo) return next;
    const Found call_end = FindTag(text, kCallEnd);
    if (call_end.kind != Found::Kind::kNo) return call_end;
    const Found function_end = FindTag(text, kFunctionEnd);
    if (!function_end.yes()) return function_end;
    const size_t begin = SkipSpace(text, function_end.length);
    if (begin == absl::string_view::npos) {
      // At the end of the text it is one.
      return final_ ? function_end : Found{Found::Kind::kMore, 0, ""};
    }
    return FindTag(text.substr(begin), kCallEnd);
  }

  void AppendValue(absl::string_view text, DeltaBuilder* out) {
    at_line_begin_ = false;
    if (streaming_) {
      std::string escaped;
      AppendJsonStringBody(text, &escaped);
      out->Arguments(escaped);
      return;
    }
    value_.append(text.data(), text.size());
    if (!type_.IsText(value_)) return;
    // Certainly a string: it need not wait for its end.
    std::string begin = KeyText();
    begin.push_back('"');
    AppendJsonStringBody(value_, &begin);
    out->Arguments(begin);
    streaming_ = true;
  }

  // `"KEY": `, after a comma if it isn't the first.
  std::string KeyText() {
    std::string text = given_.empty() ? "\"" : ", \"";
    AppendJsonStringBody(key_, &text);
    absl::StrAppend(&text, "\": ");
    given_.insert(key_);
    return text;
  }

  void EndParameter(DeltaBuilder* out) {
    if (streaming_) {
      out->Arguments("\"");
    } else {
      const std::string key = KeyText();
      out->Arguments(absl::StrCat(key, type_.ToJson(value_)));
    }
    streaming_ = false;
    state_ = State::kBody;
  }

  size_t StepAfterFunction(absl::string_view rest, DeltaBuilder* out) {
    const size_t begin = SkipSpace(rest, 0);
    if (begin == absl::string_view::npos) return final_ ? rest.size() : kWait;
    const absl::string_view tag = rest.substr(begin);
    const Found call_end = FindTag(tag, kCallEnd);
    const Found function = FindNamed(tag, kFunctionBegin);
    if (Undecided(call_end) || Undecided(function)) return kWait;
    if (function.yes()) return begin + BeginCall(function, out);
    state_ = State::kText;
    if (call_end.yes()) return begin + call_end.length;
    return call_end.more() ? rest.size() : 0;
  }

  absl::flat_hash_map<std::string, ParameterTypes> tools_;  // by function
  State state_ = State::kText;
  std::string buffer_;
  bool final_ = false;  // no more text will come

  // Of the current call:
  const ParameterTypes* types_ = nullptr;  // null: not one of the request's
  absl::flat_hash_set<std::string> given_;
  bool in_junk_ = false;

  // Of the current parameter:
  std::string key_;
  XmlValueType type_;
  std::string value_;       // until streaming_
  bool streaming_ = false;  // goes out as it comes
  bool at_begin_ = false;
  bool at_line_begin_ = false;  // behind the first newline, which is dropped
};

}  // namespace

std::unique_ptr<CallParser> MakeXmlCallParser(const Json& tools) {
  return std::make_unique<XmlCallParser>(tools);
}

}  // namespace switchyard::router
