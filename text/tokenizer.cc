#include "text/tokenizer.h"

#include <algorithm>
#include <array>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "text/added_tokens.h"
#include "text/bpe.h"
#include "text/encode_work.h"
#include "text/normalizer.h"
#include "text/pre_tokenizer.h"
#include "text/tokenizer_files.h"
#include "text/utf8.h"

namespace switchyard::text {
namespace {

// GPT-2's alphabet: a visible character for each byte. Printable bytes of
// Latin-1 stand for themselves, the others are U+0100 and up, in order.
class ByteAlphabet {
 public:
  ByteAlphabet() {
    char32_t next = 0x100;
    for (int byte = 0; byte < 256; ++byte) {
      const bool printable = (byte >= 33 && byte <= 126) ||
                             (byte >= 161 && byte <= 172) || byte >= 174;
      const char32_t c = printable ? static_cast<char32_t>(byte) : next++;
      AppendUtf8(c, &characters_[byte]);
      byte_of_[c] = byte;
    }
  }
  const std::string& Character(uint8_t byte) const { return characters_[byte]; }

  // The bytes that a token stands for. One with a character from outside the
  // alphabet stands for itself, as in Hugging Face's ByteLevel decoder.
  std::string Bytes(absl::string_view token) const {
    std::string bytes;
    absl::string_view rest = token;
    while (!rest.empty()) {
      const Utf8Character c = DecodeUtf8(rest);
      if (c.kind != Utf8Character::Kind::kValid ||
          c.code_point >= byte_of_.size() || byte_of_[c.code_point] < 0) {
        return std::string(token);
      }
      bytes.push_back(static_cast<char>(byte_of_[c.code_point]));
      rest.remove_prefix(c.length);
    }
    return bytes;
  }

 private:
  // 68 bytes are not printable: U+0100 to U+0143.
  static constexpr size_t kAlphabetEnd = 0x144;
  static std::array<int, kAlphabetEnd> NoBytes() {
    std::array<int, kAlphabetEnd> bytes;
    bytes.fill(-1);
    return bytes;
  }
  std::array<std::string, 256> characters_;
  std::array<int, kAlphabetEnd> byte_of_ = NoBytes();
};

absl::Status Invalid(const std::string& path, absl::string_view what) {
  return absl::InvalidArgumentError(absl::StrCat(path, ": ", what));
}

class QwenTokenizer final : public Tokenizer {
 public:
  static absl::StatusOr<std::unique_ptr<Tokenizer>> Create(
      const TokenizerFiles& files) {
    std::unique_ptr<QwenTokenizer> tokenizer(new QwenTokenizer);
    SY_RETURN_IF_ERROR(tokenizer->AddVocab(files));
    SY_RETURN_IF_ERROR(tokenizer->AddMerges(files));
    SY_RETURN_IF_ERROR(tokenizer->AddAddedTokens(files));
    absl::StatusOr<std::unique_ptr<PreTokenizer>> pre_tokenizer =
        PreTokenizer::Create(files.expression);
    if (!pre_tokenizer.ok()) {
      return Invalid(
          files.vocab_path,
          absl::StrCat("pre_tokenizer: ", pre_tokenizer.status().message()));
    }
    tokenizer->pre_tokenizer_ = *std::move(pre_tokenizer);
    tokenizer->nfc_ = files.nfc;
    return std::unique_ptr<Tokenizer>(std::move(tokenizer));
  }

  std::vector<int32_t> Encode(absl::string_view text) const override {
    EncodeWork work;
    return EncodeCounted(text, &work);
  }

  std::vector<int32_t> EncodeCounted(absl::string_view text,
                                     EncodeWork* work) const {
    std::string repaired;
    if (!IsValidUtf8(text)) {
      repaired = ReplaceInvalidUtf8(text);
      text = repaired;
    }
    std::vector<int32_t> ids;
    ids.reserve(text.size() / 4);
    raw_added_.Split(
        text,
        [&](absl::string_view segment) { EncodeSegment(segment, &ids, work); },
        [&](int32_t id) { ids.push_back(id); });
    return ids;
  }

  std::string Decode(absl::Span<const int32_t> ids,
                     bool skip_special_tokens) const override {
    std::string bytes;
    for (const int32_t id : ids) {
      if (skip_special_tokens && IsSpecial(id)) continue;
      const absl::string_view token = TokenBytes(id);
      bytes.append(token.data(), token.size());
    }
    return ReplaceInvalidUtf8(bytes);
  }

  absl::string_view TokenBytes(int32_t id) const override {
    if (id < 0 || static_cast<size_t>(id) >= tokens_.size()) return "";
    return tokens_[id].bytes;
  }

  bool IsSpecial(int32_t id) const override {
    return id >= 0 && static_cast<size_t>(id) < tokens_.size() &&
           tokens_[id].special;
  }

  absl::optional<int32_t> AddedTokenId(absl::string_view text) const override {
    const auto found = added_ids_.find(text);
    if (found == added_ids_.end()) return absl::nullopt;
    return found->second;
  }

  int64_t vocab_size() const override {
    return static_cast<int64_t>(tokens_.size());
  }

 private:
  struct Token {
    std::string bytes;
    bool used = false;
    bool special = false;
  };

  QwenTokenizer() = default;

  Token& TokenAt(int32_t id) {
    if (static_cast<size_t>(id) >= tokens_.size()) tokens_.resize(id + 1);
    return tokens_[id];
  }

  absl::Status AddVocab(const TokenizerFiles& files) {
    int32_t largest = -1;
    for (const auto& entry : files.vocab) {
      largest = std::max(largest, entry.second);
    }
    tokens_.resize(largest + 1);
    for (const auto& [text, id] : files.vocab) {
      Token& token = tokens_[id];
      if (token.used) {
        return Invalid(
            files.vocab_path,
            absl::StrCat("vocab: id ", id,
                         " belongs to two tokens, one of them \"", text, "\""));
      }
      token.used = true;
      token.bytes = alphabet_.Bytes(text);
    }
    for (int byte = 0; byte < 256; ++byte) {
      const std::string& character =
          alphabet_.Character(static_cast<uint8_t>(byte));
      const auto found = files.vocab.find(character);
      if (found == files.vocab.end()) {
        return Invalid(files.vocab_path,
                       absl::StrCat("vocab: no token for byte ", byte, " (\"",
                                    character, "\")"));
      }
      bpe_.SetByteToken(static_cast<uint8_t>(byte), found->second);
    }
    return absl::OkStatus();
  }

  absl::Status AddMerges(const TokenizerFiles& files) {
    bpe_.Reserve(files.merges.size());
    for (size_t rank = 0; rank < files.merges.size(); ++rank) {
      const auto& [left, right] = files.merges[rank];
      int32_t ids[3];
      const std::string parts[3] = {left, right, left + right};
      for (int i = 0; i < 3; ++i) {
        const auto found = files.vocab.find(parts[i]);
        if (found == files.vocab.end()) {
          return Invalid(files.merges_path,
                         absl::StrCat("merges[", rank, "]: \"", parts[i],
                                      "\" is not in the vocabulary"));
        }
        ids[i] = found->second;
      }
      if (!bpe_.AddMerge(ids[0], ids[1], ids[2], static_cast<int32_t>(rank))) {
        return Invalid(files.merges_path,
                       absl::StrCat("merges[", rank, "]: \"", left, " ", right,
                                    "\" is there twice"));
      }
    }
    return absl::OkStatus();
  }

  absl::Status AddAddedTokens(const TokenizerFiles& files) {
    for (const AddedToken& added : files.added) {
      const std::string place =
          absl::StrCat("added token ", added.id, " \"", added.content, "\": ");
      const auto ordinary = files.vocab.find(added.content);
      if (ordinary != files.vocab.end() && ordinary->second != added.id) {
        return Invalid(files.vocab_path,
                       absl::StrCat(place, "the vocabulary has it as id ",
                                    ordinary->second));
      }
      Token& token = TokenAt(added.id);
      if (token.used && ordinary == files.vocab.end()) {
        return Invalid(files.vocab_path,
                       absl::StrCat(place, "the id is taken by the token \"",
                                    token.bytes, "\""));
      }
      if (!added_ids_.try_emplace(added.content, added.id).second) {
        return Invalid(files.vocab_path, absl::StrCat(place, "it has two ids"));
      }
      token.used = true;
      token.special = added.special;
      token.bytes = added.content;
      if (added.normalized && files.nfc) {
        normalized_added_.Add(NormalizeNfc(added.content, nullptr), added.id);
      } else {
        raw_added_.Add(added.content, added.id);
      }
    }
    return absl::OkStatus();
  }

  // Text between added tokens.
  void EncodeSegment(absl::string_view segment, std::vector<int32_t>* ids,
                     EncodeWork* work) const {
    std::string normalized;
    if (nfc_) {
      normalized = NormalizeNfc(segment, &work->normalizer_steps);
      segment = normalized;
    }
    const auto encode_plain = [&](absl::string_view plain) {
      pre_tokenizer_->Split(
          plain,
          [&](absl::string_view word) {
            bpe_.Encode(word, ids, &work->merge_steps);
          },
          &work->scanner_steps);
    };
    if (normalized_added_.empty()) {
      if (!segment.empty()) encode_plain(segment);
      return;
    }
    normalized_added_.Split(segment, encode_plain,
                            [ids](int32_t id) { ids->push_back(id); });
  }

  const ByteAlphabet alphabet_;
  std::vector<Token> tokens_;  // by id
  absl::flat_hash_map<std::string, int32_t> added_ids_;
  AddedTokenMatcher raw_added_;
  AddedTokenMatcher normalized_added_;
  std::unique_ptr<PreTokenizer> pre_tokenizer_;
  BpeMerges bpe_;
  bool nfc_ = true;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Tokenizer>> Tokenizer::Load(
    const std::string& directory) {
  SY_ASSIGN_OR_RETURN(const TokenizerFiles files,
                      ReadTokenizerFiles(directory));
  return QwenTokenizer::Create(files);
}

std::vector<int32_t> EncodeCounted(const Tokenizer& tokenizer,
                                   absl::string_view text, EncodeWork* work) {
  return static_cast<const QwenTokenizer&>(tokenizer).EncodeCounted(text, work);
}

std::string IncrementalDetokenizer::Add(int32_t id) {
  if (skip_special_tokens_ && tokenizer_->IsSpecial(id)) return "";
  const absl::string_view bytes = tokenizer_->TokenBytes(id);
  pending_.append(bytes.data(), bytes.size());
  std::string out;
  absl::string_view rest = pending_;
  while (!rest.empty()) {
    const Utf8Character character = DecodeUtf8(rest);
    if (character.kind == Utf8Character::Kind::kIncomplete) break;
    const absl::string_view certain =
        character.kind == Utf8Character::Kind::kValid
            ? rest.substr(0, character.length)
            : kReplacementUtf8;
    out.append(certain.data(), certain.size());
    rest.remove_prefix(character.length);
  }
  pending_ = std::string(rest);
  return out;
}

std::string IncrementalDetokenizer::Flush() {
  if (pending_.empty()) return "";
  pending_.clear();
  return std::string(kReplacementUtf8);
}

}  // namespace switchyard::text
