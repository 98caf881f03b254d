// One request's choices, from token ids to the answer: streams or collects
// them, cuts at stop strings, ends with usage, or with an error.
//
// Above: an API makes the plan. Below: TokenStream (workers), ChoiceText
// (text), AnswerFormat (what the API says), ResponseWriter (the client). Not
// here: JSON, HTTP routes.

#ifndef SWITCHYARD_ROUTER_OPENAI_GENERATION_H_
#define SWITCHYARD_ROUTER_OPENAI_GENERATION_H_

#include <cstdint>
#include <functional>
#include <limits>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "absl/types/optional.h"
#include "router/admission/admission.h"
#include "router/http/http_message.h"
#include "router/http/timer_queue.h"
#include "router/openai/answer_format.h"
#include "router/openai/choice_text.h"
#include "router/openai/request.h"
#include "router/openai/router_metrics.h"
#include "router/openai/stream_id.h"
#include "router/openai/token_stream.h"

namespace switchyard::router {

struct GenerationPlan {
  std::unique_ptr<AnswerFormat> format;
  std::string id;           // of the answer; unique, for workers and logs
  GenerationParams params;  // sampling.seed set, whoever chose it
  std::vector<std::vector<int32_t>> prompts;  // params.n choices each
  // Of a chat's prompt: where messages begin, as token indices, ascending.
  std::vector<int64_t> prefix_boundaries;
  int64_t stripped_reasoning_tokens = 0;  // Usage's
  std::vector<std::string> echo;  // text before each prompt's choices, or empty
  std::vector<int64_t> max_tokens;      // of each prompt, >= 1
  bool prefill_only = false;            // max_tokens are 1, and not shown
  std::vector<int32_t> stop_token_ids;  // end of sequence and the request's own
  absl::optional<OutputFormat> output_format;
  absl::optional<OutputSyntax> syntax;  // absent: text stays whole
  // Is told the tokens of prompts and outputs, once, however it ends; may be
  // null.
  std::function<void(int64_t tokens)> on_end;
  std::string traceparent;  // "": not traced
  int max_tool_calls = std::numeric_limits<int>::max();
  // Of each prompt, the first token whose logprob is wanted; absent: none.
  absl::optional<int64_t> prompt_logprobs_from;
  bool want_tokens = false;  // the format looks at tokens, not only at text
  const text::Tokenizer* tokenizer = nullptr;  // not owned; outlives this
  // Under which others may end the answer; not unique.
  std::vector<std::string> names;
  // Where the answer goes instead of to the client's connection, whose strand
  // it still lives on; null: to the client.
  std::function<std::shared_ptr<ResponseWriter>(
      std::shared_ptr<ResponseWriter> client)>
      wrap_writer;
  // With ids behind events, for a client that may come back.
  absl::optional<StreamId> stream_id;
  // Such a client has had these already.
  absl::optional<StreamPosition> resume;
};

struct GenerationEnvironment {
  WorkerPool* workers = nullptr;  // not owned, like the rest; outlive this
  TimerQueue* timers = nullptr;
  RouterMetrics* metrics = nullptr;
  MoveCosts* move_costs = nullptr;  // null: states are never moved
  absl::Duration keep_alive_interval = absl::Seconds(15);
  absl::Duration failover_timeout = absl::Seconds(30);
  // How long after a request's deadline its worker may still say why.
  absl::Duration deadline_grace = absl::Seconds(2);
};

// Lives on its connection's strand. Create with std::make_shared; whoever made
// it keeps it until `on_end`.
class Generation : public std::enable_shared_from_this<Generation> {
 public:
  // The first choice's seed is the request's, so that n = 1 and n = 4 begin
  // alike; the others' are drawn from it. Every prompt has the same ones.
  static uint64_t ChoiceSeed(uint64_t seed, int choice);

  Generation(const GenerationEnvironment* environment, GenerationPlan plan,
             absl::Time arrival, absl::Time deadline,
             std::unique_ptr<Admission::Ticket> ticket,
             std::shared_ptr<ResponseWriter> writer,
             std::function<void()> on_end);

  void Start();
  // Ends the answer with this error, as an event if it streams already.
  void Fail(const absl::Status& status);
  // Ends what is not done yet as if it were complete; `reason` is its
  // finish_reason.
  void Interrupt(const std::string& reason);
  // The client is gone.
  void Abandon();

  const std::vector<std::string>& names() const { return plan_.names; }

 private:
  struct Choice {
    std::unique_ptr<ChoiceText> text;
    std::shared_ptr<TokenStream> tokens;
    ChoiceResult result;
    size_t prompt = 0;
    bool sent_first = false;
    bool done = false;
    int64_t num_tokens = 0;
    int64_t num_events = 0;  // written, or passed over
    absl::Time last_token = absl::InfinitePast();
    TokenUsage usage;
  };

  void MakeChoice(size_t prompt, int number);
  TokenStream::Environment StreamEnvironment();
  void OnToken(size_t index, const TokenEvent& event);
  void OnTokensDone(size_t index, const absl::Status& status,
                    TokenFinish finish, const TokenUsage& usage);
  void FinishChoice(size_t index, TokenFinish finish,
                    const std::string& interrupted = "");
  void Collect(Choice* choice, const OutputDelta& delta);
  void Observe(Choice* choice);
  // What the client is told of tokens that a cache had: what the stream's first
  // run found.
  int64_t CachedTokens(int64_t found) const;
  void SendUpdate(Choice* choice, OutputDelta delta,
                  std::vector<TokenEvent> tokens);
  void SendFinish(Choice* choice);
  void Send(Choice* choice, ChoiceUpdate update);
  void SendWhole();
  void FinishAnswer();
  Usage UsageOf(const Choice& choice) const;
  Usage CountUsage() const;

  void StartStream();
  // SSE events, or "".
  void SendEvents(std::string events);
  // With ids, and without those that the client has had: the events of
  // `choice`, and those behind the last choice's end.
  std::string Numbered(Choice* choice, std::string events);
  std::string NumberedEnd(std::string events) const;
  std::string EventId(bool usage_sent) const;
  // Before the last bytes: a client that has its answer may ask again at once.
  void ReleaseTicket();
  void SetKeepAliveTimer();
  void OnKeepAliveTimer();
  void SetDeadlineTimer();
  void End();
  // Runs `function` on the strand at `when` if this still lives then.
  TimerQueue::Id At(absl::Time when, void (Generation::*function)());
  void OnDeadline();

  const GenerationEnvironment* const environment_;
  const GenerationPlan plan_;
  const absl::Time arrival_;
  const absl::Time deadline_;
  std::unique_ptr<Admission::Ticket> ticket_;
  std::shared_ptr<ResponseWriter> writer_;  // null after the end
  std::function<void()> on_end_;

  std::vector<Choice> choices_;
  bool streaming_ = false;    // the head is sent
  bool client_gone_ = false;  // a write said so
  bool charged_ = false;
  absl::Time last_write_;
  TimerQueue::Id keep_alive_timer_ = 0;
  TimerQueue::Id deadline_timer_ = 0;
};

}  // namespace switchyard::router

#endif  // SWITCHYARD_ROUTER_OPENAI_GENERATION_H_
