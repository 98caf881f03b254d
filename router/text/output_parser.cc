#include "router/text/output_parser.h"

#include <algorithm>
#include <utility>

#include "absl/strings/match.h"
#include "router/text/call_parser.h"

namespace switchyard::router {

void DeltaBuilder::Content(absl::string_view text) {
  size_t end = text.size();
  while (end > 0 && IsAsciiSpace(text[end - 1])) --end;
  const absl::string_view space = text.substr(end);
  text = text.substr(0, end);
  if (!text.empty()) {
    if (!has_content_ && calls_ > 0) {
      held_space_.clear();
      while (IsAsciiSpace(text[0])) text.remove_prefix(1);
    }
    delta_.content.append(std::exchange(held_space_, ""));
    delta_.content.append(text.data(), text.size());
    has_content_ = true;
  }
  held_space_.append(space.data(), space.size());
}

void DeltaBuilder::BeginCall(absl::string_view name) {
  OutputDelta::CallDelta call;
  call.index = calls_++;
  call.name = std::string(name);
  delta_.tool_calls.push_back(std::move(call));
}

void DeltaBuilder::Arguments(absl::string_view text) {
  if (text.empty()) return;
  const int index = calls_ - 1;
  if (delta_.tool_calls.empty() || delta_.tool_calls.back().index != index) {
    delta_.tool_calls.emplace_back();
    delta_.tool_calls.back().index = index;
  }
  delta_.tool_calls.back().arguments.append(text.data(), text.size());
}

void DeltaBuilder::Finish() {
  if (calls_ == 0) delta_.content.append(held_space_);
  held_space_.clear();
}

OutputDelta DeltaBuilder::Take() { return std::exchange(delta_, {}); }

const Json& FunctionOfTool(const Json& tool) {
  if (!tool.is_object()) return tool;
  const auto function = tool.find("function");
  return function != tool.end() && function->is_object() ? *function : tool;
}

namespace {

constexpr absl::string_view kThinkBegin = "<think>";
constexpr absl::string_view kThinkEnd = "</think>";

// For text in which no calls are looked for.
class NoCallParser final : public CallParser {
 public:
  void Add(absl::string_view text, DeltaBuilder* out) override {
    out->VerbatimContent(text);
  }
  void Finish(TextEnd, DeltaBuilder*) override {}
};

std::unique_ptr<CallParser> MakeCallParser(const OutputSyntax& syntax) {
  switch (syntax.tool_calls) {
    case ToolCallSyntax::kJson:
      return MakeJsonCallParser(syntax.tools);
    case ToolCallSyntax::kXml:
      return MakeXmlCallParser(syntax.tools);
    case ToolCallSyntax::kNone:
      break;
  }
  return std::make_unique<NoCallParser>();
}

// Takes the reasoning off; the rest goes to the parser of calls.
class OutputParserImpl final : public OutputParser {
 public:
  explicit OutputParserImpl(const OutputSyntax& syntax)
      : calls_(MakeCallParser(syntax)) {
    switch (syntax.thinking) {
      case OutputSyntax::Thinking::kNone:
        state_ = State::kContent;
        break;
      case OutputSyntax::Thinking::kMaybe:
        state_ = State::kMaybe;
        break;
      case OutputSyntax::Thinking::kOpened:
        state_ = State::kBegin;
        break;
    }
  }

  OutputDelta Add(absl::string_view text) override {
    while (!text.empty() && state_ != State::kContent) {
      PushByte(text[0]);
      text.remove_prefix(1);
    }
    if (!text.empty()) calls_->Add(text, &out_);
    return out_.Take();
  }

  OutputDelta Finish(TextEnd end) override {
    if (state_ == State::kMaybe) {
      calls_->Add(space_, &out_);
      calls_->Add(tag_, &out_);
    } else if (!tag_.empty()) {
      Reason(tag_);
    }
    calls_->Finish(end, &out_);
    out_.Finish();
    return out_.Take();
  }

  bool call_cut_off() const override { return out_.call_cut_off(); }

  bool in_reasoning() const override {
    return state_ == State::kBegin || state_ == State::kReasoning;
  }

 private:
  enum class State {
    kMaybe,      // white space so far; <think> may come
    kBegin,      // newlines and <think> so far
    kReasoning,  // until </think>
    kEnded,      // newlines so far
    kContent,
  };

  void PushByte(char byte) {
    switch (state_) {
      case State::kMaybe:
        return PushMaybe(byte);
      case State::kBegin:
        return PushBegin(byte);
      case State::kReasoning:
        return PushReasoning(byte);
      case State::kEnded:
        if (byte == '\n') return;
        state_ = State::kContent;
        [[fallthrough]];
      case State::kContent:
        calls_->Add(absl::string_view(&byte, 1), &out_);
    }
  }

  void PushMaybe(char byte) {
    if (tag_.empty() && IsAsciiSpace(byte)) {
      space_.push_back(byte);
      return;
    }
    tag_.push_back(byte);
    if (tag_ == kThinkBegin) {
      tag_.clear();
      state_ = State::kBegin;
    } else if (!absl::StartsWith(kThinkBegin, tag_)) {
      state_ = State::kContent;
      calls_->Add(space_, &out_);
      calls_->Add(std::exchange(tag_, ""), &out_);
    }
  }

  // The prompt opened <think>; some models repeat it.
  void PushBegin(char byte) {
    if (tag_.empty() && byte == '\n') return;
    tag_.push_back(byte);
    if (tag_ == kThinkBegin) {
      tag_.clear();
    } else if (!absl::StartsWith(kThinkBegin, tag_)) {
      state_ = State::kReasoning;
      for (const char c : std::exchange(tag_, "")) PushByte(c);
    }
  }

  void PushReasoning(char byte) {
    tag_.push_back(byte);
    if (tag_ == kThinkEnd) {
      tag_.clear();
      held_newlines_ = 0;
      state_ = State::kEnded;
    } else if (!absl::StartsWith(kThinkEnd, tag_)) {
      tag_.pop_back();
      if (!tag_.empty()) Reason(std::exchange(tag_, ""));
      if (byte == '<') {
        tag_.assign(1, '<');
      } else if (byte == '\n') {
        ++held_newlines_;
      } else {
        Reason(absl::string_view(&byte, 1));
      }
    }
  }

  // Newlines at the end of the reasoning are not part of it.
  void Reason(absl::string_view text) {
    if (held_newlines_ > 0) {
      out_.Reasoning(std::string(std::exchange(held_newlines_, 0), '\n'));
    }
    out_.Reasoning(text);
  }

  const std::unique_ptr<CallParser> calls_;
  State state_;
  std::string space_;  // before a possible <think>
  std::string tag_;    // what may become <think> or </think>
  size_t held_newlines_ = 0;
  DeltaBuilder out_;
};

}  // namespace

std::unique_ptr<OutputParser> OutputParser::Create(OutputSyntax syntax) {
  return std::make_unique<OutputParserImpl>(syntax);
}

ParsedMessage ParseOutput(const OutputSyntax& syntax, absl::string_view text) {
  const std::unique_ptr<OutputParser> parser = OutputParser::Create(syntax);
  ParsedMessage message;
  const OutputDelta deltas[] = {parser->Add(text),
                                parser->Finish(TextEnd::kByModel)};
  for (const OutputDelta& delta : deltas) {
    message.reasoning += delta.reasoning;
    message.content += delta.content;
    for (const OutputDelta::CallDelta& call : delta.tool_calls) {
      if (call.name.has_value()) message.tool_calls.push_back({*call.name, ""});
      message.tool_calls.back().arguments += call.arguments;
    }
  }
  return message;
}

}  // namespace switchyard::router
