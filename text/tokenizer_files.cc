#include "text/tokenizer_files.h"

#include <algorithm>
#include <memory>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "absl/types/optional.h"
#include "base/mapped_file.h"
#include "base/status_macros.h"
#include "nlohmann/json.hpp"
#include "text/pre_tokenizer.h"

namespace switchyard::text {
namespace {

// Keys sorted: finding one among many stays fast in a hostile file.
using SortedJson = nlohmann::json;

constexpr int64_t kMaxFileBytes = 256 << 20;
constexpr size_t kMaxJsonDepth = 64;

absl::Status Invalid(const std::string& path, absl::string_view place,
                     absl::string_view what) {
  return absl::InvalidArgumentError(
      absl::StrCat(path, ": ", place, ": ", what));
}

// Reads a file of 11 MB in one pass. Two parts of it are large, and go straight
// into TokenizerFiles: model.vocab (or, for vocab.json, the whole) and
// model.merges. The small rest becomes a tree.
class TokenizerJsonReader final : public nlohmann::json_sax<SortedJson> {
 public:
  TokenizerJsonReader(std::string path, bool root_is_vocab,
                      TokenizerFiles* files)
      : path_(std::move(path)), root_is_vocab_(root_is_vocab), files_(files) {}

  absl::Status Read(absl::string_view text) {
    const bool complete = SortedJson::sax_parse(
        text.begin(), text.end(), this, SortedJson::input_format_t::json,
        /*strict=*/true);
    if (!status_.ok()) return status_;
    if (!complete) return Invalid(path_, "$", "not JSON");
    return absl::OkStatus();
  }

  // Everything but vocab and merges, which are null here.
  const SortedJson& rest() const { return rest_; }
  bool saw_vocab() const { return saw_vocab_; }
  bool saw_merges() const { return saw_merges_; }

  bool null() override { return Scalar(nullptr); }
  bool boolean(bool value) override { return Scalar(value); }
  bool number_integer(number_integer_t value) override {
    if (state_ == State::kVocab) return VocabId(value);
    return Scalar(value);
  }
  bool number_unsigned(number_unsigned_t value) override {
    if (state_ == State::kVocab) {
      return VocabId(value > uint64_t{kMaxTokenId}
                         ? int64_t{kMaxTokenId} + 1
                         : static_cast<int64_t>(value));
    }
    return Scalar(value);
  }
  bool number_float(number_float_t value, const string_t&) override {
    return Scalar(value);
  }
  bool string(string_t& value) override {
    if (state_ == State::kMerges) return MergeLine(value);
    if (state_ == State::kMergePair) {
      pair_.push_back(std::move(value));
      return pair_.size() <= 2 || Fail("a merge has more than two parts");
    }
    return Scalar(std::move(value));
  }
  bool binary(binary_t&) override { return Fail("binary data"); }

  bool start_object(size_t) override {
    if (state_ != State::kTree) return Fail("an object is not expected here");
    if (AtVocab()) {
      saw_vocab_ = true;
      state_ = State::kVocab;
      return true;
    }
    return Open(SortedJson::object());
  }
  bool key(string_t& value) override {
    key_ = std::move(value);
    return true;
  }
  bool end_object() override {
    if (state_ == State::kVocab) {
      state_ = State::kTree;
      return true;
    }
    return Close();
  }

  bool start_array(size_t) override {
    if (state_ == State::kMerges) {
      pair_.clear();
      state_ = State::kMergePair;
      return true;
    }
    if (state_ != State::kTree) return Fail("a list is not expected here");
    if (AtModel() && key_ == "merges") {
      saw_merges_ = true;
      state_ = State::kMerges;
      return true;
    }
    return Open(SortedJson::array());
  }
  bool end_array() override {
    if (state_ == State::kMergePair) {
      state_ = State::kMerges;
      if (pair_.size() != 2) return Fail("a merge does not have two parts");
      files_->merges.emplace_back(std::move(pair_[0]), std::move(pair_[1]));
      return true;
    }
    if (state_ == State::kMerges) {
      state_ = State::kTree;
      return true;
    }
    return Close();
  }

  bool parse_error(size_t position, const std::string&,
                   const nlohmann::detail::exception& error) override {
    if (status_.ok()) {
      status_ = Invalid(path_, absl::StrCat("byte ", position), error.what());
    }
    return false;
  }

 private:
  enum class State { kTree, kVocab, kMerges, kMergePair };

  bool Fail(absl::string_view what) {
    std::string place;
    switch (state_) {
      case State::kTree:
        place = absl::StrCat("at \"", key_, "\"");
        break;
      case State::kVocab:
        place = absl::StrCat("vocab, \"", key_, "\"");
        break;
      case State::kMerges:
      case State::kMergePair:
        place = absl::StrCat("merges[", files_->merges.size(), "]");
        break;
    }
    status_ = Invalid(path_, place, what);
    return false;
  }

  bool AtModel() const {
    return !root_is_vocab_ && open_.size() == 2 && model_ == open_.back();
  }
  bool AtVocab() const {
    return root_is_vocab_ ? open_.empty() && rest_.is_null()
                          : AtModel() && key_ == "vocab";
  }

  bool VocabId(int64_t id) {
    if (id < 0 || id > kMaxTokenId) {
      return Fail(absl::StrCat("the id is not within 0 and ", kMaxTokenId));
    }
    if (!files_->vocab.try_emplace(std::move(key_), static_cast<int32_t>(id))
             .second) {
      return Fail("this token occurs twice");
    }
    return true;
  }

  bool MergeLine(const std::string& line) {
    const size_t space = line.find(' ');
    if (space == std::string::npos || space == 0 || space + 1 == line.size() ||
        line.find(' ', space + 1) != std::string::npos) {
      return Fail("a merge is two tokens with one space between them");
    }
    files_->merges.emplace_back(line.substr(0, space), line.substr(space + 1));
    return true;
  }

  // Where the next value goes; null and a failure where there is no room for
  // one.
  SortedJson* Place() {
    if (open_.empty()) return &rest_;
    SortedJson& parent = *open_.back();
    if (parent.is_array()) return &parent.emplace_back();
    return &parent[key_];
  }
  template <typename T>
  bool Scalar(T&& value) {
    if (state_ == State::kVocab) return Fail("the id is not an integer");
    if (state_ != State::kTree) return Fail("a merge must be text");
    *Place() = std::forward<T>(value);
    return true;
  }
  bool Open(SortedJson value) {
    if (root_is_vocab_) return Fail("not an object of token and id");
    if (open_.size() >= kMaxJsonDepth) return Fail("nested too deeply");
    SortedJson* place = Place();
    *place = std::move(value);
    if (open_.size() == 1 && key_ == "model") model_ = place;
    open_.push_back(place);
    return true;
  }
  bool Close() {
    open_.pop_back();
    return true;
  }

  const std::string path_;
  const bool root_is_vocab_;
  TokenizerFiles* const files_;
  absl::Status status_;
  State state_ = State::kTree;
  SortedJson rest_;
  std::vector<SortedJson*> open_;      // the objects and lists around
  const SortedJson* model_ = nullptr;  // the object at "model"
  std::string key_;
  std::vector<std::string> pair_;
  bool saw_vocab_ = false;
  bool saw_merges_ = false;
};

const SortedJson* Member(const SortedJson& object, absl::string_view key) {
  if (!object.is_object()) return nullptr;
  const auto found = object.find(std::string(key));
  return found == object.end() || found->is_null() ? nullptr : &*found;
}

std::string TypeOf(const SortedJson* object) {
  const SortedJson* type =
      object == nullptr ? nullptr : Member(*object, "type");
  return type != nullptr && type->is_string() ? type->get<std::string>() : "";
}

bool IsTrue(const SortedJson& object, absl::string_view key) {
  const SortedJson* value = Member(object, key);
  return value != nullptr && value->is_boolean() && value->get<bool>();
}

// Options of the format that no Qwen tokenizer uses, and that change the
// result.
absl::Status CheckModel(const std::string& path, const SortedJson& model) {
  if (TypeOf(&model) != "BPE") {
    return Invalid(path, "model.type", "only \"BPE\" is supported");
  }
  for (absl::string_view key :
       {"dropout", "unk_token", "continuing_subword_prefix",
        "end_of_word_suffix"}) {
    const SortedJson* value = Member(model, key);
    if (value != nullptr && *value != "") {
      return Invalid(path, absl::StrCat("model.", key),
                     "only null is supported");
    }
  }
  for (absl::string_view key : {"byte_fallback", "ignore_merges"}) {
    if (IsTrue(model, key)) {
      return Invalid(path, absl::StrCat("model.", key),
                     "only false is supported");
    }
  }
  return absl::OkStatus();
}

absl::Status ReadNormalizer(const std::string& path, const SortedJson& root,
                            TokenizerFiles* files) {
  const SortedJson* normalizer = Member(root, "normalizer");
  files->nfc = normalizer != nullptr;
  if (normalizer == nullptr || TypeOf(normalizer) == "NFC") {
    return absl::OkStatus();
  }
  return Invalid(path, "normalizer", "only null and NFC are supported");
}

// Accepts a Sequence of Split (by an expression, "Isolated") and ByteLevel.
absl::Status ReadPreTokenizer(const std::string& path, const SortedJson& root,
                              TokenizerFiles* files) {
  const SortedJson* sequence = Member(root, "pre_tokenizer");
  const SortedJson* parts =
      sequence == nullptr ? nullptr : Member(*sequence, "pretokenizers");
  if (TypeOf(sequence) != "Sequence" || parts == nullptr ||
      !parts->is_array() || parts->size() != 2 ||
      TypeOf(&(*parts)[0]) != "Split" || TypeOf(&(*parts)[1]) != "ByteLevel") {
    return Invalid(path, "pre_tokenizer",
                   "only a Sequence of Split and ByteLevel is supported");
  }
  const SortedJson& split = (*parts)[0];
  const SortedJson& byte_level = (*parts)[1];
  const SortedJson* behavior = Member(split, "behavior");
  if (behavior == nullptr || *behavior != "Isolated" ||
      IsTrue(split, "invert")) {
    return Invalid(path, "pre_tokenizer.pretokenizers[0]",
                   "only behavior \"Isolated\" without invert is supported");
  }
  const SortedJson* pattern = Member(split, "pattern");
  const SortedJson* regex =
      pattern == nullptr ? nullptr : Member(*pattern, "Regex");
  if (regex == nullptr || !regex->is_string()) {
    return Invalid(path, "pre_tokenizer.pretokenizers[0].pattern",
                   "only {\"Regex\": text} is supported");
  }
  files->expression = regex->get<std::string>();
  const SortedJson* use_regex = Member(byte_level, "use_regex");
  if (IsTrue(byte_level, "add_prefix_space") || use_regex == nullptr ||
      *use_regex != false) {
    return Invalid(path, "pre_tokenizer.pretokenizers[1]",
                   "only add_prefix_space false and use_regex false are "
                   "supported");
  }
  return absl::OkStatus();
}

absl::StatusOr<AddedToken> ReadAddedToken(const std::string& path,
                                          const std::string& place,
                                          const SortedJson& value, int64_t id) {
  AddedToken token;
  const SortedJson* content = Member(value, "content");
  if (content == nullptr || !content->is_string() ||
      content->get_ref<const std::string&>().empty()) {
    return Invalid(path, place, "no text as content");
  }
  token.content = content->get<std::string>();
  if (id < 0 || id > kMaxTokenId) {
    return Invalid(path, place,
                   absl::StrCat("the id is not within 0 and ", kMaxTokenId));
  }
  token.id = static_cast<int32_t>(id);
  for (absl::string_view key : {"lstrip", "rstrip", "single_word"}) {
    if (IsTrue(value, key)) {
      return Invalid(path, absl::StrCat(place, ".", key),
                     "only false is supported");
    }
  }
  token.special = IsTrue(value, "special");
  token.normalized = IsTrue(value, "normalized");
  return token;
}

// Adds `token`; one with the same id and content takes its flags.
absl::Status MergeAddedToken(const std::string& path, const std::string& place,
                             AddedToken token,
                             std::vector<AddedToken>* tokens) {
  const auto at = std::lower_bound(
      tokens->begin(), tokens->end(), token.id,
      [](const AddedToken& a, int32_t id) { return a.id < id; });
  if (at == tokens->end() || at->id != token.id) {
    tokens->insert(at, std::move(token));
    return absl::OkStatus();
  }
  if (at->content != token.content) {
    return Invalid(path, place,
                   absl::StrCat("id ", token.id, " is both \"", at->content,
                                "\" and \"", token.content, "\""));
  }
  *at = std::move(token);
  return absl::OkStatus();
}

absl::Status ReadAddedTokens(const std::string& path, const SortedJson& root,
                             TokenizerFiles* files) {
  const SortedJson* list = Member(root, "added_tokens");
  if (list == nullptr) return absl::OkStatus();
  if (!list->is_array()) return Invalid(path, "added_tokens", "not a list");
  for (size_t i = 0; i < list->size(); ++i) {
    const std::string place = absl::StrCat("added_tokens[", i, "]");
    const SortedJson* id = Member((*list)[i], "id");
    if (id == nullptr || !id->is_number_unsigned() ||
        id->get<uint64_t>() > uint64_t{kMaxTokenId}) {
      return Invalid(path, absl::StrCat(place, ".id"), "not a token id");
    }
    SY_ASSIGN_OR_RETURN(
        AddedToken token,
        ReadAddedToken(path, place, (*list)[i], id->get<int64_t>()));
    SY_RETURN_IF_ERROR(
        MergeAddedToken(path, place, std::move(token), &files->added));
  }
  return absl::OkStatus();
}

// NOT_FOUND becomes "no such file": nullopt.
absl::StatusOr<absl::optional<std::string>> ReadIfThere(
    const std::string& path) {
  absl::StatusOr<std::string> text = ReadFile(path, kMaxFileBytes);
  if (absl::IsNotFound(text.status())) return absl::optional<std::string>();
  if (!text.ok()) return text.status();
  return absl::optional<std::string>(*std::move(text));
}

}  // namespace

absl::Status ParseTokenizerJson(const std::string& path, absl::string_view text,
                                TokenizerFiles* files) {
  TokenizerJsonReader reader(path, /*root_is_vocab=*/false, files);
  SY_RETURN_IF_ERROR(reader.Read(text));
  const SortedJson& root = reader.rest();
  const SortedJson* model = Member(root, "model");
  if (model == nullptr) return Invalid(path, "model", "missing");
  SY_RETURN_IF_ERROR(CheckModel(path, *model));
  if (!reader.saw_vocab()) return Invalid(path, "model.vocab", "missing");
  if (!reader.saw_merges()) return Invalid(path, "model.merges", "missing");
  SY_RETURN_IF_ERROR(ReadNormalizer(path, root, files));
  SY_RETURN_IF_ERROR(ReadPreTokenizer(path, root, files));
  const SortedJson* decoder = Member(root, "decoder");
  if (decoder != nullptr && TypeOf(decoder) != "ByteLevel") {
    return Invalid(path, "decoder", "only ByteLevel is supported");
  }
  files->vocab_path = path;
  files->merges_path = path;
  return ReadAddedTokens(path, root, files);
}

absl::Status ParseVocabJson(const std::string& path, absl::string_view text,
                            TokenizerFiles* files) {
  TokenizerJsonReader reader(path, /*root_is_vocab=*/true, files);
  SY_RETURN_IF_ERROR(reader.Read(text));
  if (!reader.saw_vocab()) {
    return Invalid(path, "$", "not an object of token and id");
  }
  files->vocab_path = path;
  return absl::OkStatus();
}

absl::Status ParseMergesTxt(const std::string& path, absl::string_view text,
                            TokenizerFiles* files) {
  files->merges_path = path;
  int64_t line_number = 0;
  while (!text.empty()) {
    const size_t end = text.find('\n');
    absl::string_view line = text.substr(0, end);
    text.remove_prefix(end == absl::string_view::npos ? text.size() : end + 1);
    ++line_number;
    absl::ConsumeSuffix(&line, "\r");
    // Only the first line is a header: "#" also begins merges.
    if (line_number == 1 && absl::StartsWith(line, "#version")) continue;
    if (line.empty() && text.empty()) break;
    const size_t space = line.find(' ');
    if (space == absl::string_view::npos || space == 0 ||
        space + 1 == line.size() ||
        line.find(' ', space + 1) != absl::string_view::npos) {
      return Invalid(path, absl::StrCat("line ", line_number),
                     "not two tokens with one space between them");
    }
    files->merges.emplace_back(std::string(line.substr(0, space)),
                               std::string(line.substr(space + 1)));
  }
  return absl::OkStatus();
}

absl::Status ParseTokenizerConfig(const std::string& path,
                                  absl::string_view text,
                                  TokenizerFiles* files) {
  TokenizerFiles unused;
  TokenizerJsonReader reader(path, /*root_is_vocab=*/false, &unused);
  SY_RETURN_IF_ERROR(reader.Read(text));
  if (!reader.rest().is_object()) return Invalid(path, "$", "not an object");
  const SortedJson* decoder = Member(reader.rest(), "added_tokens_decoder");
  if (decoder == nullptr) return absl::OkStatus();
  if (!decoder->is_object()) {
    return Invalid(path, "added_tokens_decoder", "not an object");
  }
  for (const auto& [key, value] : decoder->items()) {
    const std::string place =
        absl::StrCat("added_tokens_decoder[\"", key, "\"]");
    int64_t id = 0;
    if (!absl::SimpleAtoi(key, &id)) {
      return Invalid(path, place, "the key is not a token id");
    }
    SY_ASSIGN_OR_RETURN(AddedToken token,
                        ReadAddedToken(path, place, value, id));
    SY_RETURN_IF_ERROR(
        MergeAddedToken(path, place, std::move(token), &files->added));
  }
  return absl::OkStatus();
}

absl::StatusOr<TokenizerFiles> ReadTokenizerFiles(
    const std::string& directory) {
  TokenizerFiles files;
  const std::string json_path = directory + "/tokenizer.json";
  SY_ASSIGN_OR_RETURN(const absl::optional<std::string> json,
                      ReadIfThere(json_path));
  if (json.has_value()) {
    SY_RETURN_IF_ERROR(ParseTokenizerJson(json_path, *json, &files));
  } else {
    const std::string vocab_path = directory + "/vocab.json";
    const std::string merges_path = directory + "/merges.txt";
    SY_ASSIGN_OR_RETURN(const absl::optional<std::string> vocab,
                        ReadIfThere(vocab_path));
    SY_ASSIGN_OR_RETURN(const absl::optional<std::string> merges,
                        ReadIfThere(merges_path));
    if (!vocab.has_value() || !merges.has_value()) {
      return absl::NotFoundError(absl::StrCat(
          directory,
          ": neither tokenizer.json nor vocab.json with merges.txt; "
          "copy them from the model's repository"));
    }
    SY_RETURN_IF_ERROR(ParseVocabJson(vocab_path, *vocab, &files));
    SY_RETURN_IF_ERROR(ParseMergesTxt(merges_path, *merges, &files));
    files.expression = std::string(kQwenExpression);
  }
  const std::string config_path = directory + "/tokenizer_config.json";
  SY_ASSIGN_OR_RETURN(const absl::optional<std::string> config,
                      ReadIfThere(config_path));
  if (config.has_value()) {
    SY_RETURN_IF_ERROR(ParseTokenizerConfig(config_path, *config, &files));
  }
  return files;
}

}  // namespace switchyard::text
