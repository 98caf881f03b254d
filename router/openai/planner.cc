#include "router/openai/planner.h"

#include <algorithm>
#include <utility>
#include <variant>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "router/openai/errors.h"
#include "router/text/json_scanner.h"

namespace switchyard::router {
namespace {

// In one answer, which is a JSON document in memory: some 200 MB of it.
constexpr int64_t kMaxPromptLogprobs = int64_t{1} << 19;

// The arguments of a message's calls that are text and no JSON object.
std::vector<Json*> UnreadArguments(Json* message) {
  std::vector<Json*> unread;
  const auto calls = message->find("tool_calls");
  if (calls == message->end() || !calls->is_array()) return unread;
  for (Json& call : *calls) {
    Json& arguments = call["function"]["arguments"];
    if (arguments.is_string()) unread.push_back(&arguments);
  }
  return unread;
}

// Some templates take arguments apart. Those of a call that was cut off are no
// JSON (docs/decisions/0031), and a history with it must remain usable: here
// they are as much of an object as came. Text that begins none is left alone.
void CloseUnreadArguments(Json* messages) {
  for (Json& message : *messages) {
    for (Json* const arguments : UnreadArguments(&message)) {
      const auto& text = arguments->get_ref<const std::string&>();
      absl::StatusOr<Json> closed =
          ParseJson(text.empty() ? "{}" : CloseJson(text));
      if (closed.ok() && closed->is_object()) *arguments = *std::move(closed);
    }
  }
}

bool NeverThinks(ChatFormat format) {
  return format == ChatFormat::kInstruct || format == ChatFormat::kCoder;
}

OutputSyntax SyntaxOf(ChatFormat format, const ChatRequest& request) {
  OutputSyntax syntax;
  if (request.parse_tool_calls) {
    syntax.tool_calls = format == ChatFormat::kCoder ? ToolCallSyntax::kXml
                                                     : ToolCallSyntax::kJson;
    syntax.tools = request.prompt.tools;
  }
  if (!request.separate_reasoning || NeverThinks(format)) return syntax;
  syntax.thinking = PromptOpensThinking(format, request.prompt.kwargs)
                        ? OutputSyntax::Thinking::kOpened
                        : OutputSyntax::Thinking::kMaybe;
  return syntax;
}

OutputFormat::Reasoning ReasoningOf(ChatFormat format, const Json& kwargs) {
  if (NeverThinks(format)) return OutputFormat::Reasoning::kNone;
  if (PromptOpensThinking(format, kwargs)) {
    return OutputFormat::Reasoning::kOpened;
  }
  // Who asked for no thoughts gets none. Only the hybrid models open the
  // thought themselves.
  return format == ChatFormat::kHybrid &&
                 kwargs.value("enable_thinking", Json(true)) != false
             ? OutputFormat::Reasoning::kMaybe
             : OutputFormat::Reasoning::kNone;
}

absl::StatusOr<ThinkingBudget> BudgetOf(ChatFormat format,
                                        const ChatRequest& request,
                                        const text::Tokenizer& tokenizer) {
  const auto begin = tokenizer.AddedTokenId("<think>");
  const auto end = tokenizer.AddedTokenId("</think>");
  if (!begin || !end) {
    return ParamError("thinking_budget",
                      "this model's tokenizer has no tokens for <think> and "
                      "</think>");
  }
  ThinkingBudget budget;
  budget.tokens = *request.thinking_budget;
  if (!PromptOpensThinking(format, request.prompt.kwargs)) {
    budget.begin_id = *begin;
  }
  budget.end_id = *end;
  budget.closing_ids = tokenizer.Encode("\n</think>\n\n");
  return budget;
}

// Keeps the last `most` tokens.
void Truncate(int64_t most, std::vector<int32_t>* ids,
              std::vector<int64_t>* boundaries) {
  const int64_t size = static_cast<int64_t>(ids->size());
  if (size <= most) return;
  const int64_t dropped = size - most;
  ids->erase(ids->begin(), ids->begin() + dropped);
  std::vector<int64_t> kept;
  for (const int64_t boundary : *boundaries) {
    if (boundary > dropped) kept.push_back(boundary - dropped);
  }
  *boundaries = std::move(kept);
}

absl::Status AskForPromptLogprobs(GenerationPlan* plan) {
  const GenerationParams& params = plan->params;
  if (!params.prompt_logprobs) return absl::OkStatus();
  int64_t tokens = 0;
  for (const auto& prompt : plan->prompts) {
    tokens += static_cast<int64_t>(prompt.size());
  }
  const int64_t entries = tokens * params.n * (*params.prompt_logprobs + 1);
  if (entries > kMaxPromptLogprobs) {
    return ParamError(
        "prompt_logprobs",
        absl::StrCat("the answer would have ", entries, " logprobs of its ",
                     "prompt's tokens; at most ", kMaxPromptLogprobs,
                     " are served: ask for fewer, or for shorter prompts"));
  }
  plan->prompt_logprobs_from = 0;
  return absl::OkStatus();
}

// Other prompts share this one's messages up to one of these places.
std::vector<int64_t> MessageStarts(absl::Span<const int32_t> ids,
                                   const text::Tokenizer& tokenizer) {
  std::vector<int64_t> starts;
  const auto start = tokenizer.AddedTokenId("<|im_start|>");
  if (!start.has_value()) return starts;
  for (size_t i = 1; i < ids.size(); ++i) {
    if (ids[i] == *start) starts.push_back(static_cast<int64_t>(i));
  }
  return starts;
}

}  // namespace

absl::StatusOr<GenerationPlan> Planner::Plan(Api api, absl::string_view body,
                                             const PlanContext& context) const {
  SY_ASSIGN_OR_RETURN(const Json json, ParseBody(body));
  GenerationPlan plan;
  if (api == Api::kChat) {
    SY_ASSIGN_OR_RETURN(ChatRequest request,
                        ParseChatRequest(json, options_.defaults));
    SY_ASSIGN_OR_RETURN(plan,
                        PlanChat(std::move(request), context, "messages"));
  } else {
    SY_ASSIGN_OR_RETURN(CompletionRequest request,
                        ParseCompletionRequest(json, options_.defaults));
    SY_ASSIGN_OR_RETURN(plan,
                        PlanPrompts(std::move(request), context, "prompt"));
  }
  const GenerationParams& params = plan.params;
  // An echoed prompt's logprobs stand among those of the output.
  const bool echo_scored = plan.prompt_logprobs_from.has_value();
  SY_RETURN_IF_ERROR(AskForPromptLogprobs(&plan));
  const char* prefix = api == Api::kChat ? "chatcmpl-" : "cmpl-";
  plan.id = absl::StrCat(prefix, context.id);
  ResponseShape shape;
  shape.api = api;
  shape.id = params.request_id.empty() ? plan.id : params.request_id;
  shape.created = context.created;
  shape.model = context.model;
  shape.system_fingerprint = context.system_fingerprint;
  shape.logprobs = params.logprobs;
  shape.top_logprobs = params.top_logprobs;
  shape.prompt_in_logprobs = echo_scored;
  shape.prompt_logprobs = params.prompt_logprobs;
  shape.return_token_ids = params.return_token_ids;
  shape.tokens_as_ids = params.tokens_as_ids;
  shape.include_usage = params.include_usage;
  shape.continuous_usage_stats = params.continuous_usage_stats;
  shape.tokenizer = options_.tokenizer;
  plan.want_tokens = params.logprobs || params.return_token_ids;
  plan.names = {shape.id};
  plan.format = std::make_unique<OpenAiFormat>(std::move(shape));
  return plan;
}

absl::StatusOr<std::vector<int32_t>> Planner::ChatTokens(
    const ChatRequest& request, std::string* hidden_reasoning) const {
  absl::optional<ChatPrompt> closed;
  if (options_.chat_format == ChatFormat::kCoder) {
    closed = request.prompt;
    CloseUnreadArguments(&closed->messages);
  }
  absl::StatusOr<std::string> text =
      RenderChat(options_.chat_format, closed ? *closed : request.prompt,
                 hidden_reasoning);
  if (!text.ok()) {
    return ParamError("messages", std::string(text.status().message()));
  }
  return options_.tokenizer->Encode(*text);
}

absl::StatusOr<GenerationPlan> Planner::PlanChat(ChatRequest request,
                                                 const PlanContext& context,
                                                 const char* param) const {
  GenerationPlan plan;
  std::string hidden_reasoning;
  SY_ASSIGN_OR_RETURN(std::vector<int32_t> ids,
                      ChatTokens(request, &hidden_reasoning));
  plan.stripped_reasoning_tokens =
      static_cast<int64_t>(options_.tokenizer->Encode(hidden_reasoning).size());
  plan.prefix_boundaries = MessageStarts(ids, *options_.tokenizer);
  plan.prompts.push_back(std::move(ids));
  plan.syntax = SyntaxOf(options_.chat_format, request);
  if (!request.parallel_tool_calls) plan.max_tool_calls = 1;
  SY_ASSIGN_OR_RETURN(
      plan.output_format,
      FormatWithTools(request.tool_choice, request.prompt.tools,
                      options_.chat_format == ChatFormat::kCoder,
                      request.parallel_tool_calls,
                      std::move(request.params.output_format)));
  if (plan.output_format) {
    plan.output_format->reasoning =
        ReasoningOf(options_.chat_format, request.prompt.kwargs);
  }
  plan.params = std::move(request.params);
  if (request.thinking_budget && !NeverThinks(options_.chat_format)) {
    SY_ASSIGN_OR_RETURN(
        plan.params.sampling.thinking_budget,
        BudgetOf(options_.chat_format, request, *options_.tokenizer));
  }
  SY_RETURN_IF_ERROR(Complete(context, param, &plan));
  return plan;
}

absl::StatusOr<GenerationPlan> Planner::PlanPrompts(CompletionRequest request,
                                                    const PlanContext& context,
                                                    const char* param) const {
  GenerationPlan plan;
  plan.prefill_only = request.prefill_only;
  if (request.echo && request.params.logprobs) plan.prompt_logprobs_from = 0;
  for (Prompt& prompt : request.prompts) {
    std::string* text = std::get_if<std::string>(&prompt);
    std::vector<int32_t> ids =
        text != nullptr ? options_.tokenizer->Encode(*text)
                        : std::get<std::vector<int32_t>>(std::move(prompt));
    if (request.echo) {
      plan.echo.push_back(
          text != nullptr
              ? std::move(*text)
              : options_.tokenizer->Decode(ids, /*skip_special_tokens=*/false));
    }
    plan.prompts.push_back(std::move(ids));
  }
  plan.output_format = std::move(request.params.output_format);
  plan.params = std::move(request.params);
  SY_RETURN_IF_ERROR(Complete(context, param, &plan));
  return plan;
}

absl::Status Planner::Complete(const PlanContext& context, const char* param,
                               GenerationPlan* plan) const {
  GenerationParams& params = plan->params;
  const int64_t most = context.max_model_len;
  if (const auto kept = params.truncate_prompt_tokens) {
    const int64_t room =
        most - std::min(params.max_tokens.value_or(1), most - 1);
    for (auto& prompt : plan->prompts) {
      Truncate(*kept < 0 ? room : *kept, &prompt, &plan->prefix_boundaries);
    }
  }
  for (const auto& prompt : plan->prompts) {
    const int64_t length = static_cast<int64_t>(prompt.size());
    if (length == 0) return ParamError(param, "has no tokens");
    if (length >= most) {
      return ParamError(
          param, absl::StrCat("the prompt has ", length,
                              " tokens, but this model's context holds ", most,
                              " tokens, prompt and output together; shorten "
                              "the prompt"));
    }
    plan->max_tokens.push_back(
        std::min(params.max_tokens.value_or(most), most - length));
  }
  if (!params.has_seed) params.sampling.seed = context.seed;
  if (!params.ignore_eos) plan->stop_token_ids = options_.eos_token_ids;
  for (const int32_t id : params.stop_token_ids) {
    plan->stop_token_ids.push_back(id);
  }
  plan->id = context.id;
  plan->tokenizer = options_.tokenizer;
  return absl::OkStatus();
}

}  // namespace switchyard::router
