#include "text/regex_search.h"

// The 8-bit library: UTF-8.
#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <algorithm>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/check.h"

namespace switchyard::text {
namespace {

// The work of a search is counted in items of the expression that PCRE2 comes
// to, over all places where it begins: its own limits hold for one place only.
// An item that is repeated may read all the text that is left, some bytes as
// fast as one item. A text brings a budget for each character, of which so much
// may be saved up: at 30 ns an item 0.1 ms a character, and 0.1 s at once.
constexpr int64_t kWorkPerCharacter = 4000;
constexpr int64_t kMostWork = 4'000'000;
constexpr int64_t kRepeatedBytesPerWork = 16;
// PCRE2's own limits, which come later: backtracking points of one place, and
// KiB of heap for them.
constexpr uint32_t kMatchLimit = 8'000'000;
constexpr uint32_t kHeapLimitKib = 16 << 10;
// So much of the text is dropped at once.
constexpr size_t kDropBytes = 4096;

struct Pcre2Deleter {
  void operator()(pcre2_code* p) const { pcre2_code_free(p); }
  void operator()(pcre2_match_data* p) const { pcre2_match_data_free(p); }
  void operator()(pcre2_match_context* p) const { pcre2_match_context_free(p); }
};
template <typename T>
using Pcre2Ptr = std::unique_ptr<T, Pcre2Deleter>;

std::string ErrorText(int error) {
  PCRE2_UCHAR text[256];  // longest message of PCRE2: about 100 bytes
  pcre2_get_error_message(error, text, sizeof(text));
  return reinterpret_cast<const char*>(text);
}

struct Budget {
  absl::string_view expression;
  int64_t left;
};

// Called before each item of the expression; `data` is a Budget.
int Charge(pcre2_callout_block* block, void* data) {
  Budget& budget = *static_cast<Budget*>(data);
  const absl::string_view item = budget.expression.substr(
      std::min(block->pattern_position, budget.expression.size()),
      block->next_item_length);
  const bool repeated =
      !item.empty() && absl::StrContains("*+?}", item.substr(item.size() - 1));
  budget.left -= 1;
  if (repeated) {
    budget.left -=
        static_cast<int64_t>(block->subject_length - block->current_position) /
        kRepeatedBytesPerWork;
  }
  return budget.left > 0 ? 0 : PCRE2_ERROR_CALLOUT;
}

}  // namespace

struct Regex::Code {
  Pcre2Ptr<pcre2_code> code;
  size_t lookbehind = 1;  // characters before a match that it looks at
};

Regex::Regex(std::string expression, std::unique_ptr<Code> code)
    : expression_(std::move(expression)), code_(std::move(code)) {}

Regex::~Regex() = default;

absl::StatusOr<std::shared_ptr<const Regex>> Regex::Compile(
    absl::string_view expression) {
  if (expression.size() > kMaxBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("the expression has ", expression.size(),
                     " bytes; at most ", kMaxBytes, " are allowed"));
  }
  int error = 0;
  PCRE2_SIZE offset = 0;
  // Callouts count the work. An interpreter counts alike everywhere, and makes
  // no machine code of what comes from outside: no JIT.
  auto code = std::make_unique<Code>();
  code->code.reset(pcre2_compile(
      reinterpret_cast<PCRE2_SPTR>(expression.data()), expression.size(),
      PCRE2_UTF | PCRE2_UCP | PCRE2_NEVER_BACKSLASH_C | PCRE2_AUTO_CALLOUT,
      &error, &offset, nullptr));
  if (code->code == nullptr) {
    return absl::InvalidArgumentError(
        absl::StrCat("the expression does not compile at byte ", offset, ": ",
                     ErrorText(error)));
  }
  uint32_t lookbehind = 0;
  SY_CHECK(pcre2_pattern_info(code->code.get(), PCRE2_INFO_MAXLOOKBEHIND,
                              &lookbehind) == 0);
  code->lookbehind = std::max<size_t>(lookbehind, 1);
  return std::shared_ptr<const Regex>(
      new Regex(std::string(expression), std::move(code)));
}

struct RegexSearch::Scratch {
  Pcre2Ptr<pcre2_match_data> match;
  Pcre2Ptr<pcre2_match_context> context;
};

RegexSearch::RegexSearch(std::shared_ptr<const Regex> regex)
    : regex_(std::move(regex)),
      scratch_(std::make_unique<Scratch>()),
      budget_(kMostWork) {
  scratch_->match.reset(
      pcre2_match_data_create_from_pattern(regex_->code_->code.get(), nullptr));
  scratch_->context.reset(pcre2_match_context_create(nullptr));
  SY_CHECK(scratch_->match != nullptr && scratch_->context != nullptr);
  pcre2_set_match_limit(scratch_->context.get(), kMatchLimit);
  pcre2_set_heap_limit(scratch_->context.get(), kHeapLimitKib);
}

RegexSearch::~RegexSearch() = default;
RegexSearch::RegexSearch(RegexSearch&&) noexcept = default;

absl::Status RegexSearch::AddCharacter(absl::string_view character) {
  SY_DCHECK(!found_);
  text_.append(character.data(), character.size());
  budget_ = std::min(budget_ + kWorkPerCharacter, kMostWork);
  uint32_t options =
      PCRE2_PARTIAL_SOFT | PCRE2_NOTEMPTY | PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT;
  if (begin_dropped_) options |= PCRE2_NOTBOL;
  pcre2_match_context* const context = scratch_->context.get();
  Budget budget = {regex_->expression_, budget_};
  pcre2_set_callout(context, &Charge, &budget);
  const int rc = pcre2_match(
      regex_->code_->code.get(), reinterpret_cast<PCRE2_SPTR>(text_.data()),
      text_.size(), open_, options, scratch_->match.get(), context);
  budget_ = budget.left;
  const PCRE2_SIZE* const offsets =
      pcre2_get_ovector_pointer(scratch_->match.get());
  if (rc >= 0) {
    // \K may move a match's begin before `open_` or behind its end.
    const size_t end = std::clamp<size_t>(offsets[1], open_, text_.size());
    open_ = std::clamp<size_t>(offsets[0], open_, end);
    match_bytes_ = end - open_;
    found_ = true;
    return absl::OkStatus();
  }
  if (rc == PCRE2_ERROR_PARTIAL) {
    open_ = std::clamp<size_t>(offsets[0], open_, text_.size());
    if (open_bytes() > kMaxOpenBytes) {
      return TooMuch(absl::StrCat("the output's last ", open_bytes(),
                                  " bytes could all be the beginning of a "
                                  "match"));
    }
  } else if (rc == PCRE2_ERROR_NOMATCH) {
    open_ = text_.size();
  } else if (rc == PCRE2_ERROR_CALLOUT) {
    return TooMuch("the search for a match takes too many steps");
  } else {
    return TooMuch(ErrorText(rc));
  }
  DropUnneeded();
  return absl::OkStatus();
}

void RegexSearch::DropUnneeded() {
  if (open_ < kDropBytes) return;
  size_t begin = open_;
  for (size_t left = regex_->code_->lookbehind; left > 0 && begin > 0; --left) {
    do {
      --begin;
    } while (begin > 0 && (static_cast<uint8_t>(text_[begin]) & 0xC0) == 0x80);
  }
  if (begin == 0) return;
  text_.erase(0, begin);
  open_ -= begin;
  begin_dropped_ = true;
}

absl::Status RegexSearch::TooMuch(absl::string_view what) const {
  return absl::InvalidArgumentError(
      absl::StrCat("the expression ", regex_->expression(),
                   " cannot be looked for: ", std::string(what),
                   "; bound its repetitions, or begin it with something "
                   "rarer"));
}

}  // namespace switchyard::text
