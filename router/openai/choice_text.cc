#include "router/openai/choice_text.h"

#include <utility>

#include "absl/algorithm/container.h"

namespace switchyard::router {
namespace {

void AppendDelta(OutputDelta more, OutputDelta* delta) {
  delta->reasoning += more.reasoning;
  delta->content += more.content;
  for (auto& call : more.tool_calls) {
    delta->tool_calls.push_back(std::move(call));
  }
}

}  // namespace

ChoiceText::ChoiceText(Options options)
    : options_(std::move(options)),
      detokenizer_(options_.tokenizer, options_.skip_special_tokens),
      stop_(options_.stop, options_.stop_regex),
      parser_(options_.syntax ? OutputParser::Create(*options_.syntax)
                              : nullptr) {}

OutputDelta ChoiceText::AddToken(int32_t id) {
  if (stopped()) return {};
  ++num_tokens_;
  // The token that closes the reasoning counts as reasoning.
  if (parser_ != nullptr && parser_->in_reasoning()) ++reasoning_tokens_;
  if (absl::c_linear_search(options_.stop_token_ids, id)) {
    stop_token_ = id;
    return {};
  }
  stop_token_.reset();
  return AddText(ThroughStop(detokenizer_.Add(id)));
}

OutputDelta ChoiceText::Finish(TextEnd end) {
  std::string rest;
  if (!stopped()) rest = ThroughStop(detokenizer_.Flush());
  if (!stopped()) rest += stop_.Flush();
  OutputDelta delta = AddText(rest);
  if (stop_.stopped()) end = TextEnd::kCutOff;
  if (parser_ != nullptr) AppendDelta(Note(parser_->Finish(end)), &delta);
  ShapeReasoning(/*end=*/true, &delta);
  return delta;
}

std::string ChoiceText::ThroughStop(const std::string& text) {
  if (num_tokens_ <= options_.min_tokens) return text;
  std::string certain = stop_.Add(text);
  if (stopped() && options_.include_stop_str_in_output) {
    certain += stop_.matched_text();
  }
  return certain;
}

OutputDelta ChoiceText::AddText(const std::string& text) {
  OutputDelta delta;
  if (parser_ == nullptr) {
    delta.content = text;
    return delta;
  }
  delta = Note(parser_->Add(text));
  ShapeReasoning(/*end=*/false, &delta);
  return delta;
}

OutputDelta ChoiceText::Note(OutputDelta delta) {
  auto& calls = delta.tool_calls;
  if (!calls.empty()) has_tool_calls_ = true;
  const auto extra = absl::c_find_if(calls, [&](const auto& call) {
    return call.index >= options_.max_tool_calls;
  });
  if (extra != calls.end()) {
    too_many_calls_ = true;
    calls.erase(extra, calls.end());
  }
  return delta;
}

void ChoiceText::ShapeReasoning(bool end, OutputDelta* delta) {
  if (options_.reasoning == ReasoningOutput::kStreamed) return;
  held_reasoning_ += std::exchange(delta->reasoning, "");
  if (options_.reasoning == ReasoningOutput::kHidden) held_reasoning_.clear();
  if (end || (parser_ != nullptr && !parser_->in_reasoning())) {
    delta->reasoning = std::exchange(held_reasoning_, "");
  }
}

}  // namespace switchyard::router
