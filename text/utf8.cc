#include "text/utf8.h"

#include <cstdint>

namespace switchyard::text {
namespace {

struct Lead {
  int length = 0;          // of the whole sequence; 0: cannot begin one
  uint8_t second_min = 0;  // the second byte's range excludes overlong forms,
  uint8_t second_max = 0;  // surrogates and values above U+10FFFF
};

Lead LeadOf(uint8_t byte) {
  if (byte < 0x80) return {1, 0, 0};
  if (byte < 0xC2) return {};
  if (byte < 0xE0) return {2, 0x80, 0xBF};
  if (byte == 0xE0) return {3, 0xA0, 0xBF};
  if (byte == 0xED) return {3, 0x80, 0x9F};
  if (byte < 0xF0) return {3, 0x80, 0xBF};
  if (byte == 0xF0) return {4, 0x90, 0xBF};
  if (byte < 0xF4) return {4, 0x80, 0xBF};
  if (byte == 0xF4) return {4, 0x80, 0x8F};
  return {};
}

}  // namespace

Utf8Character DecodeUtf8(absl::string_view text) {
  using Kind = Utf8Character::Kind;
  const auto first = static_cast<uint8_t>(text[0]);
  if (first < 0x80) return {first, 1, Kind::kValid};
  const Lead lead = LeadOf(first);
  if (lead.length == 0) return {kReplacementCharacter, 1, Kind::kInvalid};
  char32_t code_point = first & (0x7F >> lead.length);
  for (int i = 1; i < lead.length; ++i) {
    if (static_cast<size_t>(i) == text.size()) {
      return {kReplacementCharacter, i, Kind::kIncomplete};
    }
    const auto byte = static_cast<uint8_t>(text[i]);
    const uint8_t low = i == 1 ? lead.second_min : 0x80;
    const uint8_t high = i == 1 ? lead.second_max : 0xBF;
    if (byte < low || byte > high) {
      return {kReplacementCharacter, i, Kind::kInvalid};
    }
    code_point = (code_point << 6) | (byte & 0x3F);
  }
  return {code_point, lead.length, Kind::kValid};
}

bool IsValidUtf8(absl::string_view text) {
  while (!text.empty()) {
    const Utf8Character character = DecodeUtf8(text);
    if (character.kind != Utf8Character::Kind::kValid) return false;
    text.remove_prefix(character.length);
  }
  return true;
}

std::string ReplaceInvalidUtf8(absl::string_view text) {
  std::string out;
  out.reserve(text.size());
  while (!text.empty()) {
    const Utf8Character character = DecodeUtf8(text);
    const absl::string_view bytes =
        character.kind == Utf8Character::Kind::kValid
            ? text.substr(0, character.length)
            : kReplacementUtf8;
    out.append(bytes.data(), bytes.size());
    text.remove_prefix(character.length);
  }
  return out;
}

void AppendUtf8(char32_t code_point, std::string* out) {
  const auto append = [out](char32_t byte) {
    out->push_back(static_cast<char>(byte));
  };
  if (code_point < 0x80) {
    append(code_point);
  } else if (code_point < 0x800) {
    append(0xC0 | code_point >> 6);
    append(0x80 | (code_point & 0x3F));
  } else if (code_point < 0x10000) {
    append(0xE0 | code_point >> 12);
    append(0x80 | (code_point >> 6 & 0x3F));
    append(0x80 | (code_point & 0x3F));
  } else {
    append(0xF0 | code_point >> 18);
    append(0x80 | (code_point >> 12 & 0x3F));
    append(0x80 | (code_point >> 6 & 0x3F));
    append(0x80 | (code_point & 0x3F));
  }
}

}  // namespace switchyard::text
