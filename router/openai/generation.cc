#include "router/openai/generation.h"

#include <algorithm>

#include "absl/algorithm/container.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"
#include "router/openai/errors.h"

namespace switchyard::router {

namespace {

constexpr char kEventEnd[] = "\n\n";

// The first token of a prompt has no logprob, and is not asked for.
void AskForPrompt(int64_t from, TokenRequest* request,
                  std::vector<TokenEvent>* scored) {
  const int64_t size = static_cast<int64_t>(request->prompt_ids.size());
  if (from == 0) {
    TokenEvent first;
    first.id = request->prompt_ids[0];
    scored->push_back(std::move(first));
  }
  if (std::max<int64_t>(from, 1) < size) {
    request->prompt_logprobs_from = std::max<int64_t>(from, 1);
  }
}

}  // namespace

uint64_t Generation::ChoiceSeed(uint64_t seed, int choice) {
  if (choice == 0) return seed;
  // SplitMix64 (Steele, Lea and Flood 2014): its step and its finaliser.
  uint64_t z = seed + 0x9E3779B97F4A7C15u * static_cast<uint64_t>(choice);
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
  return z ^ (z >> 31);
}

Generation::Generation(const GenerationEnvironment* environment,
                       GenerationPlan plan, absl::Time arrival,
                       absl::Time deadline,
                       std::unique_ptr<Admission::Ticket> ticket,
                       std::shared_ptr<ResponseWriter> writer,
                       std::function<void()> on_end)
    : environment_(environment),
      plan_(std::move(plan)),
      arrival_(arrival),
      deadline_(deadline),
      ticket_(std::move(ticket)),
      writer_(std::move(writer)),
      on_end_(std::move(on_end)),
      last_write_(arrival) {}

void Generation::Start() {
  const auto self = shared_from_this();
  int64_t prompt_tokens = 0;
  for (const auto& prompt : plan_.prompts) {
    prompt_tokens += static_cast<int64_t>(prompt.size());
  }
  environment_->metrics->OnAccepted(
      static_cast<int>(plan_.prompts.size()) * plan_.params.n,
      *absl::c_max_element(plan_.max_tokens), prompt_tokens,
      plan_.stripped_reasoning_tokens);
  writer_->OnGone([weak = weak_from_this()] {
    if (auto live = weak.lock()) live->Abandon();
  });
  if (plan_.params.stream) SetKeepAliveTimer();
  SetDeadlineTimer();
  for (size_t prompt = 0; prompt < plan_.prompts.size(); ++prompt) {
    for (int i = 0; i < plan_.params.n; ++i) MakeChoice(prompt, i);
  }
  // Only now: a callback may look at all of them.
  for (size_t i = 0; i < choices_.size(); ++i) {
    if (writer_ != nullptr) choices_[i].tokens->Start();
  }
}

void Generation::MakeChoice(size_t prompt, int number) {
  const size_t index = choices_.size();
  Choice choice;
  choice.prompt = prompt;
  choice.result.index = static_cast<int>(index);
  choice.result.prompt_ids = &plan_.prompts[prompt];
  if (prompt < plan_.echo.size()) {
    choice.result.message.content = plan_.echo[prompt];
  }
  choice.text = std::make_unique<ChoiceText>(ChoiceText::Options{
      .tokenizer = plan_.tokenizer,
      .skip_special_tokens = plan_.params.skip_special_tokens,
      .stop = plan_.params.stop,
      .stop_regex = plan_.params.stop_regex,
      .include_stop_str_in_output = plan_.params.include_stop_str_in_output,
      .stop_token_ids = plan_.stop_token_ids,
      .min_tokens = plan_.params.sampling.min_tokens,
      .syntax = plan_.syntax,
      .max_tool_calls = plan_.max_tool_calls,
      .reasoning = plan_.params.reasoning});

  TokenRequest request;
  request.id = absl::StrCat(plan_.id, ".", index);
  request.prompt_ids = plan_.prompts[prompt];
  request.prefix_boundaries = plan_.prefix_boundaries;
  request.sampling = plan_.params.sampling;
  request.sampling.seed = ChoiceSeed(plan_.params.sampling.seed, number);
  request.max_tokens = plan_.max_tokens[prompt];
  request.stop_token_ids = plan_.stop_token_ids;
  const auto& of_prompt = plan_.params.prompt_logprobs;
  request.want_logprobs = plan_.params.logprobs || of_prompt.has_value();
  request.num_top_logprobs =
      std::max(plan_.params.top_logprobs, of_prompt.value_or(0));
  request.deadline = deadline_;
  request.priority = plan_.params.priority;
  request.client = plan_.params.client;
  if (!plan_.params.cache_scopes.empty()) {
    request.cache_scope = plan_.params.cache_scopes[prompt];
  }
  request.traceparent = plan_.traceparent;
  request.output_format = plan_.output_format;
  // In a whole answer a prompt's first choice tells what the others show too.
  if (plan_.prompt_logprobs_from && (plan_.params.stream || number == 0)) {
    AskForPrompt(*plan_.prompt_logprobs_from, &request,
                 &choice.result.scored_prompt);
  }
  // The stream belongs to this: its callbacks come only while it lives.
  TokenStream::Callbacks callbacks;
  callbacks.on_prompt_token = [weak = weak_from_this(),
                               index](const TokenEvent& e) {
    if (auto live = weak.lock()) {
      live->choices_[index].result.scored_prompt.push_back(e);
    }
  };
  callbacks.on_token = [weak = weak_from_this(), index](const TokenEvent& e) {
    if (auto live = weak.lock()) live->OnToken(index, e);
  };
  callbacks.on_done = [weak = weak_from_this(), index](
                          const absl::Status& status, TokenFinish finish,
                          const TokenUsage& usage) {
    if (auto live = weak.lock()) {
      live->OnTokensDone(index, status, finish, usage);
    }
  };
  choice.tokens = std::make_shared<TokenStream>(
      StreamEnvironment(), std::move(request), std::move(callbacks));
  choices_.push_back(std::move(choice));
}

TokenStream::Environment Generation::StreamEnvironment() {
  TokenStream::Environment environment;
  environment.workers = environment_->workers;
  environment.timers = environment_->timers;
  environment.post = [writer = writer_](std::function<void()> function) {
    writer->Post(std::move(function));
  };
  environment.on_replay = [metrics = environment_->metrics] {
    metrics->OnReplay();
  };
  environment.on_wait = [metrics = environment_->metrics] {
    metrics->OnWaitForWorker();
  };
  environment.move_costs = environment_->move_costs;
  environment.on_state_moved = [metrics =
                                    environment_->metrics](int64_t bytes) {
    metrics->OnStateMoved(bytes);
  };
  environment.failover_timeout = environment_->failover_timeout;
  return environment;
}

void Generation::OnToken(size_t index, const TokenEvent& event) {
  if (writer_ == nullptr) return;
  Choice& choice = choices_[index];
  Observe(&choice);
  if (choice.num_tokens == 0) {
    choice.usage.cached_prompt_tokens =
        CachedTokens(event.cached_prompt_tokens.value_or(0));
  }
  if (plan_.prefill_only) return;
  ++choice.num_tokens;
  OutputDelta delta = choice.text->AddToken(event.id);
  if (!choice.text->status().ok()) return Fail(choice.text->status());
  if (!plan_.params.stream) {
    if (plan_.want_tokens) choice.result.tokens.push_back(event);
    Collect(&choice, delta);
  } else if (plan_.want_tokens || !delta.empty() || !choice.sent_first) {
    std::vector<TokenEvent> tokens;
    if (plan_.want_tokens) tokens.push_back(event);
    SendUpdate(&choice, std::move(delta), std::move(tokens));
  }
  // Also told by OnGone(), but that comes behind what is queued on the strand.
  if (client_gone_) return Abandon();
  if (!choice.text->stopped()) return;
  choice.tokens->Cancel();
  FinishChoice(index, TokenFinish::kStop);
}

int64_t Generation::CachedTokens(int64_t found) const {
  return plan_.resume ? plan_.resume->cached_tokens.value_or(found) : found;
}

void Generation::Observe(Choice* choice) {
  const absl::Time now = environment_->timers->Now();
  environment_->metrics->OnToken();
  if (choice->num_tokens > 0) {
    environment_->metrics->OnNextToken(now - choice->last_token);
  } else {
    environment_->metrics->OnFirstToken(now - arrival_);
    ticket_->SetRunning();
  }
  choice->last_token = now;
}

void Generation::OnTokensDone(size_t index, const absl::Status& status,
                              TokenFinish finish, const TokenUsage& usage) {
  if (writer_ == nullptr) return;
  if (!status.ok()) return Fail(status);
  choices_[index].usage = usage;
  choices_[index].usage.cached_prompt_tokens =
      CachedTokens(usage.cached_prompt_tokens);
  FinishChoice(index, finish);
}

void Generation::FinishChoice(size_t index, TokenFinish finish,
                              const std::string& interrupted) {
  Choice& choice = choices_[index];
  OutputDelta rest = choice.text->Finish(
      finish == TokenFinish::kStop && interrupted.empty() ? TextEnd::kByModel
                                                          : TextEnd::kCutOff);
  if (!choice.text->status().ok()) return Fail(choice.text->status());
  choice.done = true;
  choice.result.since_arrival = environment_->timers->Now() - arrival_;
  if (!choice.text->matched_stop().empty()) {
    choice.result.stop_reason = choice.text->matched_stop();
    choice.result.matched_stop = choice.result.stop_reason;
  } else if (const auto token = choice.text->stop_token()) {
    choice.result.matched_stop = *token;
    if (absl::c_linear_search(plan_.params.stop_token_ids, *token)) {
      choice.result.stop_reason = *token;
    }
  }
  // A stop string may be found only now, in what had been held back.
  const bool stopped = !plan_.prefill_only &&
                       (choice.text->stopped() || finish == TokenFinish::kStop);
  // Nobody is told to run a call that a stop string cut off.
  const bool calls =
      choice.text->has_tool_calls() && !choice.text->call_cut_off();
  choice.result.finish_reason = !interrupted.empty() ? interrupted
                                : !stopped           ? "length"
                                : calls              ? "tool_calls"
                                                     : "stop";
  choice.usage.prompt_tokens =
      static_cast<int64_t>(plan_.prompts[choice.prompt].size());
  environment_->metrics->OnChoiceDone(choice.result.finish_reason, choice.usage,
                                      choice.num_tokens,
                                      environment_->timers->Now() - arrival_);
  if (plan_.params.stream) {
    if (!rest.empty()) SendUpdate(&choice, std::move(rest), {});
    SendFinish(&choice);
  } else {
    Collect(&choice, rest);
  }
  if (absl::c_all_of(choices_, [](const Choice& c) { return c.done; })) {
    FinishAnswer();
  }
}

void Generation::Collect(Choice* choice, const OutputDelta& delta) {
  ParsedMessage& message = choice->result.message;
  message.reasoning += delta.reasoning;
  message.content += delta.content;
  for (const OutputDelta::CallDelta& call : delta.tool_calls) {
    const size_t at = static_cast<size_t>(call.index);
    if (message.tool_calls.size() <= at) message.tool_calls.resize(at + 1);
    if (call.name) message.tool_calls[at].name = *call.name;
    message.tool_calls[at].arguments += call.arguments;
  }
}

void Generation::SendUpdate(Choice* choice, OutputDelta delta,
                            std::vector<TokenEvent> tokens) {
  ChoiceUpdate update;
  update.first = !choice->sent_first;
  update.delta = std::move(delta);
  update.tokens = std::move(tokens);
  if (update.first) {
    choice->sent_first = true;
    update.delta.content =
        choice->result.message.content + update.delta.content;  // echo
    update.prompt_ids = choice->result.prompt_ids;
    update.scored_prompt = std::move(choice->result.scored_prompt);
  }
  Send(choice, std::move(update));
}

void Generation::SendFinish(Choice* choice) {
  if (!choice->sent_first) SendUpdate(choice, {}, {});
  ChoiceUpdate update;
  update.finish_reason = choice->result.finish_reason;
  update.stop_reason = choice->result.stop_reason;
  update.matched_stop = choice->result.matched_stop;
  Send(choice, std::move(update));
}

void Generation::Send(Choice* choice, ChoiceUpdate update) {
  update.index = choice->result.index;
  update.usage = UsageOf(*choice);
  update.since_arrival = environment_->timers->Now() - arrival_;
  SendEvents(Numbered(
      choice, plan_.format->Update(update, [this]() { return CountUsage(); })));
}

Usage Generation::UsageOf(const Choice& choice) const {
  Usage usage;
  usage.prompt_tokens =
      static_cast<int64_t>(plan_.prompts[choice.prompt].size());
  usage.cached_tokens = choice.usage.cached_prompt_tokens;
  usage.stripped_reasoning_tokens = plan_.stripped_reasoning_tokens;
  usage.completion_tokens = choice.num_tokens;
  usage.reasoning_tokens = choice.text->reasoning_tokens();
  return usage;
}

Usage Generation::CountUsage() const {
  Usage usage;
  usage.stripped_reasoning_tokens = plan_.stripped_reasoning_tokens;
  size_t counted_prompts = 0;
  for (const Choice& choice : choices_) {
    usage.completion_tokens += choice.num_tokens;
    usage.reasoning_tokens += choice.text->reasoning_tokens();
    // Of the choices of one prompt, the first tells what its prompt cost.
    if (choice.prompt < counted_prompts) continue;
    ++counted_prompts;
    usage.prompt_tokens +=
        static_cast<int64_t>(plan_.prompts[choice.prompt].size());
    usage.cached_tokens += choice.usage.cached_prompt_tokens;
  }
  return usage;
}

void Generation::FinishAnswer() {
  if (!plan_.params.stream) return SendWhole();
  if (!streaming_) StartStream();
  std::string last = NumberedEnd(plan_.format->End(CountUsage()));
  ReleaseTicket();
  writer_->Write(std::move(last));
  writer_->Finish();
  End();
}

void Generation::SendWhole() {
  std::vector<ChoiceResult> results;
  results.reserve(choices_.size());
  for (Choice& choice : choices_) {
    choice.result.usage = UsageOf(choice);
    results.push_back(std::move(choice.result));
    const size_t first = choice.prompt * static_cast<size_t>(plan_.params.n);
    if (first + 1 < results.size()) {
      results.back().scored_prompt = results[first].scored_prompt;
    }
  }
  HttpResponse response = plan_.format->Whole(results, CountUsage());
  ReleaseTicket();
  writer_->Send(std::move(response));
  End();
}

void Generation::StartStream() {
  streaming_ = true;
  HttpResponse head;
  head.content_type = "text/event-stream; charset=utf-8";
  head.headers = {{"Cache-Control", "no-cache"}, {"X-Accel-Buffering", "no"}};
  if (plan_.stream_id) {
    head.headers.emplace_back("x-stream-id", FormatStreamId(*plan_.stream_id));
  }
  writer_->StartStream(head);
}

std::string Generation::EventId(bool usage_sent) const {
  StreamPosition position;
  position.stream = *plan_.stream_id;
  for (const Choice& choice : choices_) {
    position.events.push_back(choice.num_events);
  }
  position.usage_sent = usage_sent;
  if (choices_.size() == 1) {
    position.cached_tokens = choices_[0].usage.cached_prompt_tokens;
  }
  return FormatEventId(position);
}

std::string Generation::Numbered(Choice* choice, std::string events) {
  if (!plan_.stream_id) return events;
  const int64_t had =
      plan_.resume
          ? plan_.resume->events[static_cast<size_t>(choice->result.index)]
          : 0;
  std::string numbered;
  for (const absl::string_view event :
       absl::StrSplit(events, kEventEnd, absl::SkipEmpty())) {
    if (++choice->num_events <= had) continue;
    absl::StrAppend(&numbered, "id: ", EventId(/*usage_sent=*/false), "\n",
                    event, kEventEnd);
  }
  return numbered;
}

std::string Generation::NumberedEnd(std::string events) const {
  if (!plan_.stream_id) return events;
  const std::vector<absl::string_view> parts =
      absl::StrSplit(events, kEventEnd, absl::SkipEmpty());
  std::string numbered;
  for (size_t i = 0; i < parts.size(); ++i) {
    // Behind the last one there is nothing to go on with.
    const bool last = i + 1 == parts.size();
    if (!last && plan_.resume && plan_.resume->usage_sent) continue;
    if (!last) {
      absl::StrAppend(&numbered, "id: ", EventId(/*usage_sent=*/true), "\n");
    }
    absl::StrAppend(&numbered, parts[i], kEventEnd);
  }
  return numbered;
}

void Generation::SendEvents(std::string events) {
  if (events.empty()) return;
  if (!streaming_) StartStream();
  last_write_ = environment_->timers->Now();
  if (!writer_->Write(std::move(events))) client_gone_ = true;
}

TimerQueue::Id Generation::At(absl::Time when, void (Generation::*function)()) {
  return environment_->timers->RunAt(
      when, [writer = writer_, weak = weak_from_this(), function] {
        writer->Post([weak, function] {
          if (auto live = weak.lock()) (live.get()->*function)();
        });
      });
}

void Generation::SetKeepAliveTimer() {
  keep_alive_timer_ = At(last_write_ + environment_->keep_alive_interval,
                         &Generation::OnKeepAliveTimer);
}

void Generation::OnKeepAliveTimer() {
  if (writer_ == nullptr) return;
  const absl::Time now = environment_->timers->Now();
  if (now >= last_write_ + environment_->keep_alive_interval) {
    if (!streaming_) StartStream();
    last_write_ = now;
    writer_->Write(plan_.format->KeepAlive());
  }
  SetKeepAliveTimer();
}

void Generation::SetDeadlineTimer() {
  if (deadline_ == absl::InfiniteFuture()) return;
  deadline_timer_ =
      At(deadline_ + environment_->deadline_grace, &Generation::OnDeadline);
}

void Generation::OnDeadline() {
  Fail(absl::DeadlineExceededError(
      absl::StrCat("the request was not finished within ",
                   absl::FormatDuration(deadline_ - arrival_),
                   ", and its attention worker did not say why")));
}

void Generation::Fail(const absl::Status& status) {
  if (writer_ == nullptr) return;
  const auto self = shared_from_this();
  for (Choice& choice : choices_) choice.tokens->Cancel();
  environment_->metrics->OnFailed();
  const ApiError error = ToApiError(status);
  ReleaseTicket();
  if (streaming_) {
    writer_->Write(plan_.format->StreamedError(error));
    writer_->Finish();
  } else {
    writer_->Send(plan_.format->Error(error));
  }
  End();
}

void Generation::Interrupt(const std::string& reason) {
  const auto self = shared_from_this();
  for (size_t i = 0; i < choices_.size() && writer_ != nullptr; ++i) {
    if (choices_[i].done) continue;
    choices_[i].tokens->Cancel();
    FinishChoice(i, TokenFinish::kStop, reason);
  }
}

void Generation::Abandon() {
  if (writer_ == nullptr) return;
  const auto self = shared_from_this();
  for (Choice& choice : choices_) choice.tokens->Cancel();
  environment_->metrics->OnAborted();
  plan_.format->Abandoned();
  End();
}

void Generation::ReleaseTicket() {
  if (plan_.on_end && !charged_) {
    charged_ = true;
    const Usage usage = CountUsage();
    plan_.on_end(usage.prompt_tokens + usage.completion_tokens);
  }
  ticket_.reset();
}

void Generation::End() {
  environment_->timers->Cancel(keep_alive_timer_);
  environment_->timers->Cancel(deadline_timer_);
  ReleaseTicket();
  writer_.reset();
  // May destroy this, unless a caller up the stack holds it.
  const std::function<void()> on_end = std::move(on_end_);
  on_end();
}

}  // namespace switchyard::router
