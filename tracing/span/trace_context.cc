#include "tracing/span/trace_context.h"

#include "absl/random/random.h"
#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"

namespace switchyard::tracing {
namespace {

// version "-" trace-id "-" parent-id "-" flags
constexpr size_t kTraceAt = 3;
constexpr size_t kSpanAt = 36;
constexpr size_t kFlagsAt = 53;
constexpr size_t kLength = 55;

// Lower-case hex, which is all that the standard allows.
absl::optional<uint64_t> ParseHex(absl::string_view digits) {
  uint64_t value = 0;
  for (const char c : digits) {
    if (!absl::ascii_isxdigit(static_cast<unsigned char>(c)) ||
        absl::ascii_isupper(static_cast<unsigned char>(c))) {
      return absl::nullopt;
    }
    value =
        value << 4 | static_cast<uint64_t>(c <= '9' ? c - '0' : c - 'a' + 10);
  }
  return value;
}

uint64_t NotZero(const std::function<uint64_t()>& random) {
  uint64_t bits = 0;
  while (bits == 0) bits = random();
  return bits;
}

}  // namespace

absl::optional<TraceContext> ParseTraceparent(absl::string_view header) {
  header = absl::StripAsciiWhitespace(header);
  if (header.size() < kLength || header[kTraceAt - 1] != '-' ||
      header[kSpanAt - 1] != '-' || header[kFlagsAt - 1] != '-') {
    return absl::nullopt;
  }
  const auto version = ParseHex(header.substr(0, 2));
  const auto high = ParseHex(header.substr(kTraceAt, 16));
  const auto low = ParseHex(header.substr(kTraceAt + 16, 16));
  const auto span = ParseHex(header.substr(kSpanAt, 16));
  const auto flags = ParseHex(header.substr(kFlagsAt, 2));
  if (!version || !high || !low || !span || !flags || *version == 0xff) {
    return absl::nullopt;
  }
  // Later versions may have more behind another dash; this one has not.
  if (header.size() > kLength && (*version == 0 || header[kLength] != '-')) {
    return absl::nullopt;
  }
  const TraceContext context = {*high, *low, *span, (*flags & 1) != 0};
  if (!context.valid()) return absl::nullopt;
  return context;
}

std::string FormatTraceparent(const TraceContext& context) {
  return absl::StrCat("00-", absl::Hex(context.trace_high, absl::kZeroPad16),
                      absl::Hex(context.trace_low, absl::kZeroPad16), "-",
                      absl::Hex(context.span, absl::kZeroPad16),
                      context.sampled ? "-01" : "-00");
}

TraceContext ChildOf(const TraceContext& parent,
                     const std::function<uint64_t()>& random) {
  TraceContext child = parent;
  child.span = NotZero(random);
  return child;
}

TraceContext NewTrace(bool sampled, const std::function<uint64_t()>& random) {
  return {random(), NotZero(random), NotZero(random), sampled};
}

uint64_t RandomBits() {
  thread_local absl::InsecureBitGen bits;
  return absl::Uniform<uint64_t>(bits);
}

}  // namespace switchyard::tracing
