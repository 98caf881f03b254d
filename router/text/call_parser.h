// Tool calls in the model's text. Reasoning has been taken off before.

#ifndef SWITCHYARD_ROUTER_TEXT_CALL_PARSER_H_
#define SWITCHYARD_ROUTER_TEXT_CALL_PARSER_H_

#include <memory>
#include <string>

#include "absl/strings/string_view.h"
#include "base/json.h"
#include "router/text/output_parser.h"

namespace switchyard::router {

// Collects what a piece of text adds. Keeps white space around calls out of the
// content: behind it while a call may follow or has been found, and before it
// when a call came first. Not thread-safe.
class DeltaBuilder {
 public:
  void Content(absl::string_view text);
  // As it is; for text in which no calls are looked for.
  void VerbatimContent(absl::string_view text) {
    delta_.content.append(text.data(), text.size());
  }
  void Reasoning(absl::string_view text) {
    delta_.reasoning.append(text.data(), text.size());
  }
  void BeginCall(absl::string_view name);
  // More of the arguments of the latest call.
  void Arguments(absl::string_view text);
  // There will be no more of them, though they are not complete.
  void CutOffCall() { call_cut_off_ = true; }
  bool call_cut_off() const { return call_cut_off_; }
  // At the end of the text.
  void Finish();

  OutputDelta Take();

 private:
  OutputDelta delta_;
  std::string held_space_;
  bool has_content_ = false;
  int calls_ = 0;
  bool call_cut_off_ = false;
};

// Not thread-safe. What is given out depends on the text alone, not on its
// pieces.
class CallParser {
 public:
  virtual ~CallParser() = default;
  virtual void Add(absl::string_view text, DeltaBuilder* out) = 0;
  virtual void Finish(TextEnd end, DeltaBuilder* out) = 0;
};

// `tools` is the request's list, or null.
std::unique_ptr<CallParser> MakeJsonCallParser(const Json& tools);
std::unique_ptr<CallParser> MakeXmlCallParser(const Json& tools);

// {"type": "function", "function": {...}} or the function alone.
const Json& FunctionOfTool(const Json& tool);

inline bool IsAsciiSpace(char c) {
  return c == ' ' || c == '\t' || c == '\n' || c == '\r' || c == '\v' ||
         c == '\f';
}

inline constexpr absl::string_view kCallBegin = "<tool_call>";
inline constexpr absl::string_view kCallEnd = "</tool_call>";

}  // namespace switchyard::router

#endif  // SWITCHYARD_ROUTER_TEXT_CALL_PARSER_H_
