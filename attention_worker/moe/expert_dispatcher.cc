#include "attention_worker/moe/expert_dispatcher.h"

#include <utility>

#include "attention_worker/moe/client_set.h"
#include "attention_worker/moe/dispatch_metrics.h"
#include "attention_worker/moe/dispatch_run.h"
#include "attention_worker/moe/reply_inbox.h"
#include "base/check.h"

namespace switchyard::attention_worker {
namespace {

class Dispatcher final : public ExpertDispatcher {
 public:
  explicit Dispatcher(ExpertDispatcherOptions options)
      : options_(std::move(options)),
        metrics_(options_.registry),
        inbox_(std::make_shared<ReplyInbox>(metrics_.late_replies,
                                            options_.pump, options_.clock)),
        clients_(inbox_),
        run_(options_, metrics_, &clients_, inbox_) {
    SY_CHECK(options_.fallback == nullptr ||
             options_.fallback->computes_in_forward());
    clients_.Set(std::move(options_.clients));
  }

  DispatchResult Dispatch(const DispatchRequest& request,
                          absl::FunctionRef<void()> overlap) override {
    return run_.Execute(request, overlap);
  }

  void SetClients(std::vector<std::shared_ptr<ExpertClient>> clients) override {
    clients_.Set(std::move(clients));
  }

  model::ExpertSet MissingExperts() const override {
    clients_.FreeRemoved();
    model::ExpertSet missing = options_.required;
    for (const auto& client : clients_.clients()) {
      const model::ExpertSet held = client->holdings();
      for (int layer = 0; layer < held.num_layers(); ++layer) {
        for (int expert = 0; expert < held.num_experts(); ++expert) {
          if (held.Contains(layer, expert) && missing.Contains(layer, expert)) {
            missing.Erase(layer, expert);
          }
        }
      }
    }
    return missing;
  }

 private:
  ExpertDispatcherOptions options_;  // but for `clients`
  const DispatchMetrics metrics_;
  const std::shared_ptr<ReplyInbox> inbox_;
  mutable ClientSet clients_;
  DispatchRun run_;  // of the dispatching thread
};

}  // namespace

size_t FirstHolder(int layer, int expert, absl::Span<const int> holders) {
  return 0;
}

std::unique_ptr<ExpertDispatcher> NewExpertDispatcher(
    ExpertDispatcherOptions options) {
  return std::make_unique<Dispatcher>(std::move(options));
}

}  // namespace switchyard::attention_worker
