// One choice's token ids -> text, cut at stop strings and expressions, split
// into reasoning, content and tool calls. Pure: no I/O, no threads.

#ifndef SWITCHYARD_ROUTER_OPENAI_CHOICE_TEXT_H_
#define SWITCHYARD_ROUTER_OPENAI_CHOICE_TEXT_H_

#include <cstdint>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/optional.h"
#include "router/openai/request.h"
#include "router/text/output_parser.h"
#include "router/text/stop_matcher.h"
#include "text/tokenizer.h"

namespace switchyard::router {

// Not thread-safe; borrows the tokenizer.
class ChoiceText {
 public:
  struct Options {
    const text::Tokenizer* tokenizer = nullptr;
    bool skip_special_tokens = true;
    std::vector<std::string> stop;
    StopMatcher::Expressions stop_regex;
    bool include_stop_str_in_output = false;
    std::vector<int32_t> stop_token_ids;  // their text is not shown
    // Of these tokens no text is a stop string or matches an expression.
    int64_t min_tokens = 0;
    // Absent: all text is content.
    absl::optional<OutputSyntax> syntax;
    // The beginning of one more call stops the output.
    int max_tool_calls = std::numeric_limits<int>::max();
    ReasoningOutput reasoning = ReasoningOutput::kStreamed;
  };
  explicit ChoiceText(Options options);

  // What one more token adds; nothing after stopped(), nor after an error.
  OutputDelta AddToken(int32_t id);
  // What was held back, at the end. Call once. A stop string cuts off, whatever
  // `end` says.
  OutputDelta Finish(TextEnd end);

  // INVALID_ARGUMENT: a stop expression takes too much time or memory.
  const absl::Status& status() const { return stop_.status(); }
  // A stop string came, a stop expression matched, or a call was one too many:
  // no more tokens are needed.
  bool stopped() const { return stop_.stopped() || too_many_calls_; }
  // The stop string that came, or the expression that matched; or "".
  const std::string& matched_stop() const { return stop_.matched(); }
  // The last token, if it was one of stop_token_ids.
  absl::optional<int32_t> stop_token() const { return stop_token_; }
  bool has_tool_calls() const { return has_tool_calls_; }
  // The last call's arguments are not complete. Known behind Finish().
  bool call_cut_off() const {
    return parser_ != nullptr && parser_->call_cut_off();
  }
  int64_t reasoning_tokens() const { return reasoning_tokens_; }

 private:
  OutputDelta AddText(const std::string& text);
  std::string ThroughStop(const std::string& text);
  OutputDelta Note(OutputDelta delta);
  void ShapeReasoning(bool end, OutputDelta* delta);

  const Options options_;
  text::IncrementalDetokenizer detokenizer_;
  StopMatcher stop_;
  std::unique_ptr<OutputParser> parser_;  // null without syntax
  absl::optional<int32_t> stop_token_;
  bool has_tool_calls_ = false;
  bool too_many_calls_ = false;
  std::string held_reasoning_;
  int64_t num_tokens_ = 0;
  int64_t reasoning_tokens_ = 0;
};

}  // namespace switchyard::router

#endif  // SWITCHYARD_ROUTER_OPENAI_CHOICE_TEXT_H_
