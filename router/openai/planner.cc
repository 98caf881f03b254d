#include "router/openai/planner.h"

#include <algorithm>
#include <utility>
#include <variant>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "router/openai/errors.h"

namespace switchyard::router {
namespace {

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
                                             int64_t max_model_len) const {
  absl::StatusOr<Json> json = ParseJson(body);
  if (!json.ok()) {
    return absl::InvalidArgumentError(
        absl::StrCat("the request's body is not valid JSON: ",
                     std::string(json.status().message())));
  }
  GenerationPlan plan;
  plan.shape.api = api;
  SY_RETURN_IF_ERROR(api == Api::kChat ? PlanChat(*json, &plan)
                                       : PlanCompletions(*json, &plan));
  plan.shape.tokenizer = options_.tokenizer;
  plan.shape.logprobs = plan.params.logprobs;
  plan.shape.top_logprobs = plan.params.top_logprobs;
  plan.shape.return_token_ids = plan.params.return_token_ids;
  plan.shape.tokens_as_ids = plan.params.tokens_as_ids;
  plan.shape.usage_in_chunks = plan.params.stream && plan.params.include_usage;
  if (!plan.params.ignore_eos) plan.stop_token_ids = options_.eos_token_ids;
  for (const int32_t id : plan.params.stop_token_ids) {
    plan.stop_token_ids.push_back(id);
  }
  if (const auto most = plan.params.truncate_prompt_tokens) {
    const int64_t room =
        max_model_len -
        std::min(plan.params.max_tokens.value_or(1), max_model_len - 1);
    for (auto& prompt : plan.prompts) {
      Truncate(*most < 0 ? room : *most, &prompt, &plan.prefix_boundaries);
    }
  }
  SY_RETURN_IF_ERROR(SetMaxTokens(max_model_len, &plan));
  return plan;
}

absl::Status Planner::PlanChat(const Json& body, GenerationPlan* plan) const {
  SY_ASSIGN_OR_RETURN(ChatRequest request,
                      ParseChatRequest(body, options_.defaults));
  absl::StatusOr<std::string> text =
      RenderChat(options_.chat_format, request.prompt);
  if (!text.ok()) {
    return ParamError("messages", std::string(text.status().message()));
  }
  plan->prompts.push_back(options_.tokenizer->Encode(*text));
  plan->prefix_boundaries =
      MessageStarts(plan->prompts.back(), *options_.tokenizer);
  plan->syntax = SyntaxOf(options_.chat_format, request);
  if (!request.parallel_tool_calls) plan->max_tool_calls = 1;
  plan->params = std::move(request.params);
  if (request.thinking_budget && !NeverThinks(options_.chat_format)) {
    SY_ASSIGN_OR_RETURN(
        plan->params.sampling.thinking_budget,
        BudgetOf(options_.chat_format, request, *options_.tokenizer));
  }
  return absl::OkStatus();
}

absl::Status Planner::PlanCompletions(const Json& body,
                                      GenerationPlan* plan) const {
  SY_ASSIGN_OR_RETURN(CompletionRequest request,
                      ParseCompletionRequest(body, options_.defaults));
  for (Prompt& prompt : request.prompts) {
    std::string* text = std::get_if<std::string>(&prompt);
    std::vector<int32_t> ids =
        text != nullptr ? options_.tokenizer->Encode(*text)
                        : std::get<std::vector<int32_t>>(std::move(prompt));
    if (request.echo) {
      plan->echo.push_back(
          text != nullptr
              ? std::move(*text)
              : options_.tokenizer->Decode(ids, /*skip_special_tokens=*/false));
    }
    plan->prompts.push_back(std::move(ids));
  }
  plan->params = std::move(request.params);
  return absl::OkStatus();
}

absl::Status Planner::SetMaxTokens(int64_t max_model_len,
                                   GenerationPlan* plan) const {
  const char* param = plan->shape.api == Api::kChat ? "messages" : "prompt";
  for (const auto& prompt : plan->prompts) {
    const int64_t length = static_cast<int64_t>(prompt.size());
    if (length == 0) return ParamError(param, "has no tokens");
    if (length >= max_model_len) {
      return ParamError(
          param, absl::StrCat("the prompt has ", length,
                              " tokens, but this model's context holds ",
                              max_model_len,
                              " tokens, prompt and output together; shorten "
                              "the prompt"));
    }
    plan->max_tokens.push_back(
        std::min(plan->params.max_tokens.value_or(max_model_len),
                 max_model_len - length));
  }
  return absl::OkStatus();
}

}  // namespace switchyard::router
