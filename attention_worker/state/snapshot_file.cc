#include "attention_worker/state/snapshot_file.h"

#include <sys/stat.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstring>
#include <system_error>
#include <utility>

#include "absl/strings/str_cat.h"
#include "attention_worker/state/kv_dtype.h"
#include "base/check.h"
#include "base/json.h"
#include "base/status_macros.h"

namespace switchyard::attention_worker {
namespace {

static_assert(std::endian::native == std::endian::little);

// Tokens of a sequence, by any model's configuration.
constexpr int64_t kMaxTokens = int64_t{1} << 24;

constexpr absl::string_view kMagic = "SYSTATE1";
constexpr absl::string_view kScopedMagic = "SYSTATE2";
static_assert(kMagic.size() == kSnapshotMagicBytes &&
              kScopedMagic.size() == kSnapshotMagicBytes);

std::string SnapshotJson(const SnapshotIdentity& identity,
                         const Prefix& prefix) {
  Json header;
  header["model"] = identity.model;
  header["layout"] = identity.layout;
  header["tokens"] = prefix.size();
  if (!prefix.scope.empty()) header["scope"] = std::string(prefix.scope);
  return DumpJson(header);
}

absl::Span<const uint8_t> Bytes(const void* data, int64_t bytes) {
  return {static_cast<const uint8_t*>(data), static_cast<size_t>(bytes)};
}

absl::Status FileError(const std::string& what, const std::string& path) {
  const int error = errno;
  const std::string message = absl::StrCat(
      what, " ", path, ": ", std::generic_category().message(error));
  if (error == ENOENT) return absl::NotFoundError(message);
  return error == ENOSPC || error == EDQUOT || error == EFBIG
             ? absl::ResourceExhaustedError(message)
             : absl::UnavailableError(message);
}

// Reads on, and keeps the sum of all that was read.
class Reader {
 public:
  static absl::StatusOr<Reader> Open(const std::string& path) {
    std::FILE* const file = std::fopen(path.c_str(), "rbe");
    if (file == nullptr) return FileError("opening", path);
    return Reader(path, file);
  }

  absl::Status Read(void* data, int64_t bytes) {
    const size_t size = static_cast<size_t>(bytes);
    if (std::fread(data, 1, size, file_.get()) != size) {
      return absl::DataLossError(absl::StrCat(path_, " is cut"));
    }
    sha256_->Update(Bytes(data, bytes));
    return absl::OkStatus();
  }

  absl::StatusOr<SnapshotHeader> ReadHeader() {
    char magic[kSnapshotMagicBytes];
    uint32_t size = 0;
    SY_RETURN_IF_ERROR(Read(magic, kSnapshotMagicBytes));
    SY_RETURN_IF_ERROR(Read(&size, sizeof size));
    const absl::string_view begin(magic, kSnapshotMagicBytes);
    if (!IsSnapshotMagic(begin) || size > kMaxSnapshotJsonBytes) {
      return absl::DataLossError(absl::StrCat(path_, " holds no state"));
    }
    std::string text(size, '\0');
    SY_RETURN_IF_ERROR(Read(text.data(), size));
    header_bytes_ =
        kSnapshotMagicBytes + static_cast<int64_t>(sizeof size) + size;
    return ParseSnapshotJson(path_, begin, text);
  }
  int64_t header_bytes() const { return header_bytes_; }

  // What is left is the checksum of all before it.
  absl::Status CheckEnd() {
    const std::string expected = sha256_->FinishHex();
    char found[kSnapshotHashBytes + 1];
    const size_t size = std::fread(found, 1, sizeof found, file_.get());
    if (size != kSnapshotHashBytes ||
        std::memcmp(found, expected.data(), kSnapshotHashBytes) != 0) {
      return absl::DataLossError(
          absl::StrCat(path_, " is damaged: its checksum is another"));
    }
    return absl::OkStatus();
  }

 private:
  struct Close {
    void operator()(std::FILE* file) const { std::fclose(file); }
  };
  Reader(std::string path, std::FILE* file)
      : path_(std::move(path)),
        file_(file),
        sha256_(std::make_unique<model::Sha256>()) {}

  std::string path_;
  std::unique_ptr<std::FILE, Close> file_;
  std::unique_ptr<model::Sha256> sha256_;
  int64_t header_bytes_ = 0;
};

}  // namespace

bool IsSnapshotMagic(absl::string_view magic) {
  return magic == kMagic || magic == kScopedMagic;
}

absl::StatusOr<SnapshotHeader> ParseSnapshotJson(absl::string_view what,
                                                 absl::string_view magic,
                                                 absl::string_view text) {
  const absl::StatusOr<Json> json = ParseJson(text);
  if (!json.ok() || !json->is_object()) {
    return absl::DataLossError(
        absl::StrCat(what, " has a header that is no JSON object"));
  }
  const auto model = json->find("model"), layout = json->find("layout"),
             tokens = json->find("tokens");
  if (model == json->end() || !model->is_string() || layout == json->end() ||
      !layout->is_string() || tokens == json->end() ||
      !tokens->is_number_integer() || *tokens < 1 || *tokens > kMaxTokens) {
    return absl::DataLossError(
        absl::StrCat(what, " has a header without model, layout and tokens"));
  }
  SnapshotHeader header{.identity = {.model = model->get<std::string>(),
                                     .layout = layout->get<std::string>()},
                        .scope = "",
                        .num_tokens = tokens->get<int64_t>()};
  if (magic == kMagic) return header;
  const auto scope = json->find("scope");
  if (scope != json->end() && scope->is_string()) {
    header.scope = scope->get<std::string>();
  }
  if (header.scope.empty() || header.scope.size() > kMaxScopeBytes) {
    return absl::DataLossError(
        absl::StrCat(what, " has a header without a scope"));
  }
  return header;
}

std::string SnapshotPreamble(const SnapshotIdentity& identity,
                             const Prefix& prefix) {
  const absl::Span<const int32_t> tokens = prefix.tokens;
  const std::string text = SnapshotJson(identity, prefix);
  const uint32_t size = static_cast<uint32_t>(text.size());
  std::string preamble(prefix.scope.empty() ? kMagic : kScopedMagic);
  preamble.append(reinterpret_cast<const char*>(&size), sizeof size);
  preamble += text;
  preamble.append(reinterpret_cast<const char*>(tokens.data()),
                  tokens.size() * sizeof(int32_t));
  return preamble;
}

std::string LayoutOf(const StateShape& shape) {
  return absl::StrCat("1: ", KvDTypeName(shape.kv.dtype), " keys of ",
                      shape.num_full_layers, " full and ",
                      shape.num_linear_layers, " linear layers, pages of ",
                      kPageTokens, " tokens with ", shape.PageBytes(),
                      " bytes, fixed part of ", shape.FixedBytes(), " bytes",
                      shape.drafts() ? ", with the MTP head" : "");
}

absl::StatusOr<std::unique_ptr<SnapshotWriter>> SnapshotWriter::Create(
    const std::string& path, const SnapshotIdentity& identity,
    const Prefix& prefix) {
  SY_CHECK(!prefix.tokens.empty());
  std::FILE* const file = std::fopen((path + ".partial").c_str(), "wbe");
  if (file == nullptr) return FileError("making", path + ".partial");
  std::unique_ptr<SnapshotWriter> writer(new SnapshotWriter(path, file));
  const std::string preamble = SnapshotPreamble(identity, prefix);
  SY_RETURN_IF_ERROR(
      writer->Append(preamble.data(), static_cast<int64_t>(preamble.size())));
  return writer;
}

SnapshotWriter::~SnapshotWriter() {
  if (file_ == nullptr) return;
  std::fclose(file_);
  std::remove(partial().c_str());
}

absl::Status SnapshotWriter::Append(const void* data, int64_t bytes) {
  const size_t size = static_cast<size_t>(bytes);
  if (std::fwrite(data, 1, size, file_) != size) {
    return FileError("writing", partial());
  }
  sha256_.Update(Bytes(data, bytes));
  bytes_ += bytes;
  return absl::OkStatus();
}

absl::StatusOr<int64_t> SnapshotWriter::Finish() {
  const std::string hash = sha256_.FinishHex();
  const bool written =
      std::fwrite(hash.data(), 1, hash.size(), file_) == hash.size();
  const bool closed = std::fclose(std::exchange(file_, nullptr)) == 0;
  if (!written || !closed) {
    const absl::Status status = FileError("writing", partial());
    std::remove(partial().c_str());
    return status;
  }
  if (std::rename(partial().c_str(), path_.c_str()) != 0) {
    const absl::Status status = FileError("renaming", partial());
    std::remove(partial().c_str());
    return status;
  }
  return bytes_ + kSnapshotHashBytes;
}

int64_t SnapshotStateBytes(const StateShape& shape, int64_t tokens) {
  return shape.FixedBytes() + StateShape::PagesFor(tokens) * shape.PageBytes();
}

int64_t SnapshotPayloadBytes(const StateShape& shape, int64_t tokens) {
  return tokens * static_cast<int64_t>(sizeof(int32_t)) +
         SnapshotStateBytes(shape, tokens);
}

absl::StatusOr<SnapshotHeader> ReadSnapshotHeader(const std::string& path,
                                                  const StateShape& shape) {
  SY_ASSIGN_OR_RETURN(Reader reader, Reader::Open(path));
  SY_ASSIGN_OR_RETURN(SnapshotHeader header, reader.ReadHeader());
  struct stat info;
  if (stat(path.c_str(), &info) != 0) return FileError("looking at", path);
  if (header.identity.layout == LayoutOf(shape) &&
      info.st_size != reader.header_bytes() +
                          SnapshotPayloadBytes(shape, header.num_tokens) +
                          kSnapshotHashBytes) {
    return absl::DataLossError(absl::StrCat(path, " is cut"));
  }
  return header;
}

absl::StatusOr<StateSnapshot> ReadSnapshot(
    const std::string& path, const SnapshotIdentity& identity,
    const StateShape& shape, const Prefix& prefix,
    absl::FunctionRef<StateBlock()> take_fixed,
    absl::FunctionRef<StateBlock()> take_page) {
  const absl::Span<const int32_t> tokens = prefix.tokens;
  SY_ASSIGN_OR_RETURN(Reader reader, Reader::Open(path));
  SY_ASSIGN_OR_RETURN(const SnapshotHeader header, reader.ReadHeader());
  if (header.identity != identity) {
    return absl::FailedPreconditionError(
        absl::StrCat(path, " is of model ", header.identity.model, ", layout ",
                     header.identity.layout, "; this worker has model ",
                     identity.model, ", layout ", identity.layout));
  }
  std::vector<int32_t> found(
      std::min<size_t>(header.num_tokens, tokens.size()));
  if (header.num_tokens == static_cast<int64_t>(tokens.size())) {
    SY_RETURN_IF_ERROR(reader.Read(
        found.data(), static_cast<int64_t>(found.size() * sizeof(int32_t))));
  }
  if (absl::string_view(header.scope) != prefix.scope ||
      header.num_tokens != prefix.size() ||
      !std::equal(found.begin(), found.end(), tokens.begin())) {
    return absl::FailedPreconditionError(
        absl::StrCat(path, " is of other tokens, or of another scope"));
  }
  StateSnapshot snapshot;
  snapshot.num_tokens = header.num_tokens;
  snapshot.fixed = take_fixed();
  const auto no_memory = [] {
    return absl::ResourceExhaustedError("no memory for a kept state");
  };
  if (snapshot.fixed == nullptr) return no_memory();
  SY_RETURN_IF_ERROR(reader.Read(snapshot.fixed.get(), shape.FixedBytes()));
  const int64_t pages =
      shape.PageBytes() == 0 ? 0 : StateShape::PagesFor(header.num_tokens);
  for (int64_t i = 0; i < pages; ++i) {
    snapshot.pages.push_back(take_page());
    if (snapshot.pages.back() == nullptr) return no_memory();
    SY_RETURN_IF_ERROR(
        reader.Read(snapshot.pages.back().get(), shape.PageBytes()));
  }
  SY_RETURN_IF_ERROR(reader.CheckEnd());
  return snapshot;
}

}  // namespace switchyard::attention_worker
