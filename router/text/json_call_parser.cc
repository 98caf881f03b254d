#include <utility>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/match.h"
#include "absl/types/optional.h"
#include "base/check.h"
#include "router/text/call_parser.h"
#include "router/text/json_scanner.h"

namespace switchyard::router {
namespace {

constexpr absl::string_view kNewlineCallEnd = "\n</tool_call>";

bool OnlyPunctuation(absl::string_view text) {
  for (const char c : text) {
    if (c != ',' && !IsAsciiSpace(c)) return false;
  }
  return true;
}

// See output_parser.h for the rules. A byte is looked at once, except the one
// that ends a block that is none.
class JsonCallParser final : public CallParser {
 public:
  explicit JsonCallParser(const Json& tools) {
    if (!tools.is_array()) return;
    for (const Json& tool : tools) {
      const Json& function = FunctionOfTool(tool);
      if (!function.is_object()) continue;
      const auto name = function.find("name");
      if (name != function.end() && name->is_string()) {
        known_names_.insert(name->get<std::string>());
      }
    }
  }

  void Add(absl::string_view text, DeltaBuilder* out) override {
    for (const char byte : text) PushByte(byte, out);
  }

  void Finish(TextEnd end, DeltaBuilder* out) override {
    switch (state_) {
      case State::kText:
        out->Content(std::exchange(tag_, ""));
        break;
      case State::kArguments:
        PushTagAsArguments(out);
        if (end == TextEnd::kCutOff) {
          std::string rest;
          scanner_->CutOff(&rest);
          out->Arguments(rest);
          out->CutOffCall();
        } else {
          CloseArguments(/*held_is_text=*/false, out);
        }
        break;
      default:
        if (committed_) break;
        // Without its end tag the block may still be a whole call.
        if (state_ == State::kAfter && EmitHeldCall(out)) break;
        if (end == TextEnd::kCutOff && IsNameAlone()) {
          out->BeginCall(*name_);
          out->CutOffCall();
        } else {
          out->Content(block_);
        }
        break;
    }
  }

 private:
  enum class State {
    kText,  // looking for <tool_call>; tag_ has what may become one
    // Within a block's outer object:
    kOpen,        // { must come
    kKeyOrEnd,    // just after {
    kKey,         // " must come
    kInKey,       // scanner_ reads the key
    kColon,       // : must come
    kValue,       // the value must come
    kInValue,     // scanner_ reads the value
    kCommaOrEnd,  // after a value
    kAfter,       // behind }; tag_ has the beginning of </tool_call>
    // The value of "arguments" of a committed call: goes out as it comes. tag_
    // has the beginning of "\n</tool_call>" within an unfinished string.
    kArguments,
  };

  void PushByte(char byte, DeltaBuilder* out) {
    if (state_ == State::kText) {
      PushText(byte, out);
    } else if (state_ == State::kArguments) {
      PushArguments(byte, out);
    } else {
      PushBlock(byte, out);
    }
  }

  // A call of one of the request's tools of whose arguments nothing is there.
  bool IsNameAlone() const {
    const bool in_arguments = key_ == "arguments" && state_ == State::kInValue;
    return name_.has_value() && known_names_.contains(*name_) &&
           !arguments_.has_value() && !in_arguments;
  }

  void PushText(char byte, DeltaBuilder* out) {
    tag_.push_back(byte);
    if (tag_ == kCallBegin) {
      BeginBlock();
    } else if (skip_end_tag_ && tag_ == kCallEnd) {
      skip_end_tag_ = false;
      tag_.clear();
    } else if (!absl::StartsWith(kCallBegin, tag_) &&
               !(skip_end_tag_ && absl::StartsWith(kCallEnd, tag_))) {
      // Within a tag no other can begin, except at the byte that does not fit.
      tag_.pop_back();
      out->Content(std::exchange(tag_, ""));
      if (byte == '<') {
        tag_.assign(1, '<');
      } else {
        out->Content(absl::string_view(&byte, 1));
      }
    }
  }

  void BeginBlock() {
    state_ = State::kOpen;
    block_ = std::exchange(tag_, "");
    committed_ = false;
    skip_end_tag_ = false;
    name_.reset();
    arguments_.reset();
  }

  // Back to kText. What is in the block, and `byte`, is text after all; of a
  // committed call only what came behind it, whose end tag is skipped then.
  void LeaveBlock(char byte, DeltaBuilder* out) {
    out->Content(std::exchange(block_, ""));
    tag_.clear();
    state_ = State::kText;
    skip_end_tag_ = committed_;
    PushText(byte, out);
  }

  void PushBlock(char byte, DeltaBuilder* out) {
    const bool in_scanner =
        state_ == State::kInKey || state_ == State::kInValue;
    if (!in_scanner && tag_.empty() && IsAsciiSpace(byte) && byte != '\v' &&
        byte != '\f') {
      block_.push_back(byte);
      return;
    }
    if (!Step(byte, out)) LeaveBlock(byte, out);
  }

  bool Take(char byte, State next) {
    block_.push_back(byte);
    state_ = next;
    // Nothing of a committed call's object is left to become text.
    if (committed_ && next == State::kAfter) block_.clear();
    return true;
  }

  // False: `byte` does not belong to a call.
  bool Step(char byte, DeltaBuilder* out) {
    switch (state_) {
      case State::kOpen:
        return byte == '{' && Take(byte, State::kKeyOrEnd);
      case State::kKeyOrEnd:
      case State::kKey:
        if (byte == '}' && state_ == State::kKeyOrEnd) {
          return Take(byte, State::kAfter);
        }
        if (byte != '"') return false;
        return BeginScan(byte, State::kInKey);
      case State::kInKey:
      case State::kInValue:
        return Scan(byte, out);
      case State::kColon:
        return byte == ':' && Take(byte, State::kValue);
      case State::kValue:
        if (byte == '{' && !committed_ && key_ == "arguments" &&
            name_.has_value() && known_names_.contains(*name_)) {
          Commit(out);
          PushArguments(byte, out);
          return true;
        }
        return BeginScan(byte, State::kInValue);
      case State::kCommaOrEnd:
        if (byte == ',') return Take(byte, State::kKey);
        return byte == '}' && Take(byte, State::kAfter);
      case State::kAfter:
        return StepAfter(byte, out);
      case State::kText:
      case State::kArguments:
        break;
    }
    SY_CHECK(false);
    return false;
  }

  // kDoneBefore at the very first byte cannot be.
  bool BeginScan(char byte, State state) {
    scanner_.emplace(JsonScanner::Mode::kStrict);
    value_begin_ = block_.size();
    if (scanner_->Push(byte, nullptr) == JsonScanner::Result::kError) {
      return false;
    }
    return Take(byte, state);
  }

  bool Scan(char byte, DeltaBuilder* out) {
    switch (scanner_->Push(byte, nullptr)) {
      case JsonScanner::Result::kError:
        return false;
      case JsonScanner::Result::kMore:
        block_.push_back(byte);
        return true;
      case JsonScanner::Result::kDone:
        block_.push_back(byte);
        if (EndScan()) return true;
        block_.pop_back();
        return false;
      case JsonScanner::Result::kDoneBefore:
        if (!EndScan()) return false;
        PushBlock(byte,
                  out);  // in a state without scanner: no deeper than this
        return true;
    }
    return false;
  }

  // A key or a value is complete.
  bool EndScan() {
    std::string raw = block_.substr(value_begin_);
    if (state_ == State::kInKey) {
      absl::StatusOr<Json> key = ParseJson(raw);
      if (!key.ok()) return false;
      key_ = key->get<std::string>();
      state_ = State::kColon;
      return true;
    }
    state_ = State::kCommaOrEnd;
    if (committed_) return true;
    if (key_ == "name") {
      absl::StatusOr<Json> name = ParseJson(raw);
      if (!name.ok() || !name->is_string()) return false;
      name_ = name->get<std::string>();
      return !name_->empty();
    }
    if (key_ == "arguments") arguments_ = std::move(raw);
    return true;
  }

  bool StepAfter(char byte, DeltaBuilder* out) {
    // One bracket too many is common, and harmless.
    if (committed_ && tag_.empty() && (byte == '}' || byte == ']')) {
      return Take(byte, State::kAfter);
    }
    tag_.push_back(byte);
    if (!absl::StartsWith(kCallEnd, tag_)) {
      tag_.pop_back();
      return false;
    }
    block_.push_back(byte);
    if (tag_ != kCallEnd) return true;
    if (!committed_ && !EmitHeldCall(out)) out->Content(block_);
    block_.clear();
    tag_.clear();
    state_ = State::kText;
    return true;
  }

  void Commit(DeltaBuilder* out) {
    committed_ = true;
    out->BeginCall(*name_);
    block_.clear();
    tag_.clear();
    scanner_.emplace(JsonScanner::Mode::kRepair);
    state_ = State::kArguments;
  }

  // A whole block that was held. False: it is no call.
  bool EmitHeldCall(DeltaBuilder* out) {
    if (!name_.has_value()) return false;
    std::string arguments = arguments_.value_or("null");
    if (arguments[0] == '"') {
      // Some models write the object as JSON text within a string.
      absl::StatusOr<Json> text = ParseJson(arguments);
      if (!text.ok()) return false;
      arguments = text->get<std::string>();
      if (arguments.empty()) arguments = "{}";
      const absl::StatusOr<Json> inner = ParseJson(arguments);
      if (!inner.ok() || !inner->is_object()) return false;
    } else if (arguments == "null") {
      arguments = "{}";
    } else if (arguments[0] != '{') {
      return false;
    }
    out->BeginCall(*name_);
    out->Arguments(arguments);
    return true;
  }

  void PushArguments(char byte, DeltaBuilder* out) {
    if (!tag_.empty() || (byte == '\n' && scanner_->in_string())) {
      tag_.push_back(byte);
      if (tag_ == kNewlineCallEnd) {
        tag_.clear();
        CloseArguments(/*held_is_text=*/true, out);
        state_ = State::kText;
        return;
      }
      if (absl::StartsWith(kNewlineCallEnd, tag_)) return;
      tag_.pop_back();
      PushTagAsArguments(out);
      // In the string still: a newline and a part of the tag don't end it.
      PushArguments(byte, out);
      return;
    }
    ScanArguments(byte, out);
  }

  void PushTagAsArguments(DeltaBuilder* out) {
    for (const char c : std::exchange(tag_, "")) ScanArguments(c, out);
  }

  void ScanArguments(char byte, DeltaBuilder* out) {
    std::string certain;
    const JsonScanner::Result result = scanner_->Push(byte, &certain);
    out->Arguments(certain);
    if (result == JsonScanner::Result::kDone) {
      state_ = State::kCommaOrEnd;
    } else if (result == JsonScanner::Result::kError) {
      CloseArguments(/*held_is_text=*/true, out);
      LeaveBlock(byte, out);
    }
  }

  void CloseArguments(bool held_is_text, DeltaBuilder* out) {
    std::string end;
    scanner_->Close(&end);
    out->Arguments(end);
    if (held_is_text && !OnlyPunctuation(scanner_->held())) {
      out->Content(scanner_->held());
    }
  }

  absl::flat_hash_set<std::string> known_names_;
  State state_ = State::kText;
  std::string tag_;
  // The block from <tool_call> on; of a committed call, from behind its
  // arguments.
  std::string block_;
  bool committed_ = false;
  bool skip_end_tag_ = false;
  absl::optional<JsonScanner> scanner_;
  size_t value_begin_ = 0;  // in block_, of what scanner_ reads
  std::string key_;
  absl::optional<std::string> name_;
  absl::optional<std::string> arguments_;  // as written
};

}  // namespace

std::unique_ptr<CallParser> MakeJsonCallParser(const Json& tools) {
  return std::make_unique<JsonCallParser>(tools);
}

}  // namespace switchyard::router
