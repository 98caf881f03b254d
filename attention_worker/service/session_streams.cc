#include "attention_worker/service/session_streams.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "attention_worker/state/snapshot_decoder.h"
#include "attention_worker/state/snapshot_file.h"
#include "base/status_macros.h"
#include "model/sha256.h"
#include "rpc/status_conversion.h"

namespace switchyard::attention_worker {
namespace {

// With the checksum behind it the last one is no longer than 1 MiB.
constexpr size_t kPartBytes = (1 << 20) - 64;
// What is copied between two steps, and so what a call keeps: a millisecond or
// two of the step thread's time.
constexpr size_t kWindowBytes = 8 << 20;

absl::Status Stopped() {
  return absl::UnavailableError("this worker is stopping");
}

// One thing goes on at a time: a task of the step thread, or a write, each of
// which starts the next. So there is no lock. gRPC calls OnDone() only after
// Finish(), which is the last thing that is done here.
class SaveStream final : public SaveReactor {
 public:
  SaveStream(Engine* engine, SaveOrder order)
      : engine_(engine), order_(std::move(order)) {}

  void Start() {
    engine_->BetweenSteps([this](StateTransfers* transfers) {
      const absl::Status status = Find(transfers);
      if (!status.ok()) return End(status);
      Send();
    });
  }

  void OnWriteDone(bool ok) override {
    if (!ok) return End(absl::CancelledError("the client is gone"));
    message_.Clear();
    if (!window_.empty()) return Send();
    if (complete_) return End(absl::OkStatus());
    engine_->BetweenSteps([this](StateTransfers* transfers) {
      const absl::Status status = Fill(transfers);
      if (!status.ok()) return End(status);
      Send();
    });
  }

  void OnDone() override { delete this; }

 private:
  absl::Status Find(StateTransfers* transfers) {
    if (transfers == nullptr) return Stopped();
    SY_ASSIGN_OR_RETURN(state_, order_.request_id.empty()
                                    ? transfers->Find(order_.prefix.view())
                                    : transfers->HandOver(order_.request_id));
    window_ = SnapshotPreamble(
        {.model = order_.model, .layout = LayoutOf(engine_->state_shape())},
        state_.prefix.view());
    message_.set_num_tokens(state_.prefix.tokens.size());
    message_.set_total_bytes(window_.size() +
                             static_cast<uint64_t>(state_.bytes) +
                             static_cast<uint64_t>(kSnapshotHashBytes));
    return Fill(transfers);
  }

  // Appends the next bytes of the state to the window.
  absl::Status Fill(StateTransfers* transfers) {
    if (transfers == nullptr) return Stopped();
    const size_t before = window_.size();
    const size_t size = static_cast<size_t>(
        std::min(state_.bytes - copied_, static_cast<int64_t>(kWindowBytes)));
    window_.resize(before + size);
    SY_RETURN_IF_ERROR(transfers->Read(
        state_, copied_, absl::MakeSpan(window_).subspan(before)));
    copied_ += static_cast<int64_t>(size);
    return absl::OkStatus();
  }

  // The next part of the window; behind the last one, the checksum of all.
  void Send() {
    const size_t size = std::min(kPartBytes, window_.size() - sent_);
    const auto part = absl::string_view(window_).substr(sent_, size);
    sha256_.Update(part);
    message_.set_data(part.data(), part.size());
    sent_ += size;
    if (sent_ == window_.size()) {
      window_.clear();
      sent_ = 0;
      complete_ = copied_ == state_.bytes;
      if (complete_) *message_.mutable_data() += sha256_.FinishHex();
    }
    StartWrite(&message_);
  }

  void End(const absl::Status& status) {
    order_.place.reset();
    Finish(rpc::ToGrpcStatus(status));
  }

  Engine* const engine_;
  SaveOrder order_;
  OutgoingState state_;
  model::Sha256 sha256_;
  int64_t copied_ = 0;     // bytes of the state
  bool complete_ = false;  // all was sent, or is in the message
  std::string window_;
  size_t sent_ = 0;  // bytes of the window
  v1::SaveStateReply message_;
};

// The same: a read or a task, one at a time.
class LoadStream final : public LoadReactor {
 public:
  LoadStream(Engine* engine, LoadOrder order, v1::LoadStateReply* response)
      : engine_(engine),
        order_(std::move(order)),
        response_(response),
        decoder_(
            {.model = order_.model, .layout = LayoutOf(engine->state_shape())},
            engine->state_shape(), order_.max_tokens) {}

  void Start() { StartRead(&message_); }

  void OnReadDone(bool ok) override {
    if (!ok) {
      return End(absl::DataLossError(
          absl::StrCat("the state that was sent is cut: it ended after ",
                       bytes_, " bytes")));
    }
    bytes_ += static_cast<int64_t>(message_.data().size());
    const absl::Status status = decoder_.Feed(message_.data(), &window_);
    if (!status.ok()) return End(status);
    // What can be refused is refused before the bulk comes.
    const bool begin = decoder_.has_tokens() && !number_.has_value();
    if (begin || decoder_.done() || window_.size() >= kWindowBytes) {
      return engine_->BetweenSteps(
          [this](StateTransfers* transfers) { Take(transfers); });
    }
    StartRead(&message_);
  }

  void OnDone() override { delete this; }

 private:
  void Take(StateTransfers* transfers) {
    const absl::Status status = Keep(transfers);
    if (absl::IsAlreadyExists(status)) {
      response_->set_already_held(true);
      return End(absl::OkStatus());
    }
    if (!status.ok() || decoder_.done()) return End(status);
    StartRead(&message_);
  }

  absl::Status Keep(StateTransfers* transfers) {
    if (transfers == nullptr) {
      number_.reset();
      return Stopped();
    }
    if (!number_.has_value()) {
      SY_ASSIGN_OR_RETURN(number_, transfers->Begin(decoder_.prefix()));
    }
    SY_RETURN_IF_ERROR(transfers->Write(*number_, window_));
    window_.clear();
    return decoder_.done() ? transfers->Commit(*number_) : absl::OkStatus();
  }

  void End(const absl::Status& status) {
    if (status.ok()) {
      response_->set_num_tokens(decoder_.prefix().tokens.size());
    } else if (number_.has_value()) {
      engine_->BetweenSteps([number = *number_](StateTransfers* transfers) {
        if (transfers != nullptr) transfers->Abandon(number);
      });
    }
    order_.place.reset();
    Finish(rpc::ToGrpcStatus(status));
  }

  Engine* const engine_;
  LoadOrder order_;
  v1::LoadStateReply* const response_;
  SnapshotDecoder decoder_;
  std::optional<int64_t> number_;  // StateTransfers'
  std::string window_;             // decoded, not yet taken
  int64_t bytes_ = 0;
  v1::LoadStateRequest message_;
};

class FailedSave final : public SaveReactor {
 public:
  explicit FailedSave(const absl::Status& status) {
    Finish(rpc::ToGrpcStatus(status));
  }
  void OnDone() override { delete this; }
};

class FailedLoad final : public LoadReactor {
 public:
  explicit FailedLoad(const absl::Status& status) {
    Finish(rpc::ToGrpcStatus(status));
  }
  void OnDone() override { delete this; }
};

}  // namespace

SaveReactor* NewSaveStream(Engine* engine, SaveOrder order) {
  auto* stream = new SaveStream(engine, std::move(order));
  stream->Start();
  return stream;
}

LoadReactor* NewLoadStream(Engine* engine, LoadOrder order,
                           v1::LoadStateReply* response) {
  auto* stream = new LoadStream(engine, std::move(order), response);
  stream->Start();
  return stream;
}

SaveReactor* NewSaveStream(const absl::Status& status) {
  return new FailedSave(status);
}

LoadReactor* NewLoadStream(const absl::Status& status) {
  return new FailedLoad(status);
}

}  // namespace switchyard::attention_worker
