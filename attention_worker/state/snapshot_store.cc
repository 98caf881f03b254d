#include "attention_worker/state/snapshot_store.h"

#include <sys/stat.h>
#include <utime.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <system_error>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "base/check.h"
#include "base/log.h"
#include "base/status_macros.h"
#include "base/thread.h"

namespace switchyard::attention_worker {
namespace {

constexpr char kSuffix[] = ".state";
constexpr char kPartialSuffix[] = ".state.partial";
// Snapshots that wait to be written. Each holds its tokens and a page.
constexpr size_t kMaxQueue = 16;
constexpr absl::Duration kIdleWait = absl::Seconds(1);

// splitmix64's finisher (Steele, Lea, Flood 2014) as a chain. Two prefixes of
// one hash do not mix: a file holds its scope and its tokens.
uint64_t Chain(uint64_t hash, uint32_t next) {
  uint64_t z = hash + 0x9e3779b97f4a7c15 + next;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
  z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
  return z ^ (z >> 31);
}

uint64_t Chain(uint64_t hash, int32_t token) {
  return Chain(hash, static_cast<uint32_t>(token));
}

// What a scope's chain begins with; 0 where there is none.
uint64_t ChainOf(absl::string_view scope) {
  uint64_t hash = 0;
  for (const char c : scope) {
    hash = Chain(hash, uint32_t{static_cast<unsigned char>(c)});
  }
  return hash;
}

int64_t LastUse(const struct stat& info) {
  return static_cast<int64_t>(info.st_mtim.tv_sec) * 1'000'000'000 +
         info.st_mtim.tv_nsec;
}

}  // namespace

absl::StatusOr<std::unique_ptr<SnapshotStore>> SnapshotStore::Open(
    const Options& options, const StateShape& shape) {
  if (options.directory.empty() || options.budget_bytes <= 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("a directory for states needs a path and a budget above "
                     "0, not \"",
                     options.directory, "\" and ", options.budget_bytes));
  }
  std::error_code error;
  std::filesystem::create_directories(options.directory, error);
  if (error) {
    return absl::UnavailableError(absl::StrCat(
        "making the directory ", options.directory, ": ", error.message()));
  }
  std::unique_ptr<SnapshotStore> store(new SnapshotStore(options, shape));
  SY_RETURN_IF_ERROR(store->Scan());
  store->thread_ =
      StartThread("sy-snapshots", [raw = store.get()] { raw->Run(); });
  return store;
}

SnapshotStore::SnapshotStore(const Options& options, const StateShape& shape)
    : options_(options),
      shape_(shape),
      identity_({.model = options.model, .layout = LayoutOf(shape)}) {}

SnapshotStore::~SnapshotStore() {
  {
    MutexLock lock(&mutex_);
    stopping_ = true;
    changed_.SignalAll();
  }
  if (thread_.joinable()) thread_.join();
}

absl::Status SnapshotStore::Scan() {
  std::error_code error;
  std::filesystem::directory_iterator files(options_.directory, error);
  if (error) {
    return absl::UnavailableError(absl::StrCat(
        "reading the directory ", options_.directory, ": ", error.message()));
  }
  MutexLock lock(&mutex_);
  for (const std::filesystem::directory_entry& file : files) {
    const std::string path = file.path().string();
    if (absl::EndsWith(path, kPartialSuffix)) {
      std::filesystem::remove(path, error);
      continue;
    }
    struct stat info;
    if (!absl::EndsWith(path, kSuffix) || stat(path.c_str(), &info) != 0 ||
        !S_ISREG(info.st_mode)) {
      continue;
    }
    Entry entry{.path = path,
                .bytes = static_cast<int64_t>(info.st_size),
                .last_use = LastUse(info)};
    const absl::StatusOr<SnapshotHeader> header =
        ReadSnapshotHeader(path, shape_);
    if (!header.ok() && !absl::IsDataLoss(header.status())) {
      // It may be whole: no more than this process cannot read it now.
      LogWarning(absl::StrCat("passing over a kept state: ",
                              header.status().ToString()));
      ++stats_.errors;
      continue;
    }
    if (!header.ok()) {
      LogWarning(
          absl::StrCat("removing a kept state: ", header.status().ToString()));
      std::filesystem::remove(path, error);
      ++stats_.errors;
      continue;
    }
    ++stats_.files;
    stats_.bytes += entry.bytes;
    Key key{.num_tokens = header->num_tokens};
    const std::string name = file.path().stem().string();
    const bool named = absl::SimpleHexAtoi(
        name.substr(0, std::min<size_t>(16, name.size())), &key.hash);
    if (header->identity == identity_ && named && PathOf(key) == path) {
      entries_.emplace(key, std::move(entry));
    } else {
      foreign_.emplace(entry.last_use, std::move(entry));
    }
  }
  MakeRoom();
  return absl::OkStatus();
}

SnapshotStore::Key SnapshotStore::KeyOf(const Prefix& prefix) {
  Key key{.num_tokens = prefix.size(), .hash = ChainOf(prefix.scope)};
  for (const int32_t token : prefix.tokens) key.hash = Chain(key.hash, token);
  return key;
}

std::string SnapshotStore::PathOf(const Key& key) const {
  return (std::filesystem::path(options_.directory) /
          absl::StrFormat("%016x-%d%s", key.hash, key.num_tokens, kSuffix))
      .string();
}

int64_t SnapshotStore::LongestPrefix(const Prefix& prefix) const {
  const absl::Span<const int32_t> tokens = prefix.tokens;
  MutexLock lock(&mutex_);
  int64_t longest = 0;
  uint64_t hash = ChainOf(prefix.scope);
  int64_t length = 0;
  // By length, ascending; a length that has files costs one look.
  auto next = entries_.begin();
  while (next != entries_.end() && next->first.num_tokens <= prefix.size()) {
    const int64_t wanted = next->first.num_tokens;
    while (length < wanted) hash = Chain(hash, tokens[length++]);
    if (entries_.contains(Key{.num_tokens = wanted, .hash = hash})) {
      longest = wanted;
    }
    next = entries_.lower_bound(Key{.num_tokens = wanted + 1});
  }
  return longest;
}

void SnapshotStore::SaveLater(const Prefix& prefix,
                              const StateSnapshot& snapshot) {
  SY_CHECK(snapshot.fixed != nullptr && snapshot.num_tokens == prefix.size());
  const Key key = KeyOf(prefix);
  MutexLock lock(&mutex_);
  if (entries_.contains(key)) return;
  for (const Job& job : queue_) {
    if (job.key == key) return;
  }
  if (queue_.size() >= kMaxQueue || stopping_ ||
      SnapshotPayloadBytes(shape_, key.num_tokens) > options_.budget_bytes) {
    ++stats_.dropped;
    return;
  }
  Job job{.key = key,
          .scope = std::string(prefix.scope),
          .tokens = {prefix.tokens.begin(), prefix.tokens.end()},
          .fixed = snapshot.fixed,
          .pages = {},
          .last_page = {}};
  if (!snapshot.pages.empty()) {
    job.pages.assign(snapshot.pages.begin(), snapshot.pages.end() - 1);
    const float* const last = snapshot.pages.back().get();
    job.last_page.assign(last, last + shape_.PageFloats());
  }
  queue_.push_back(std::move(job));
  changed_.SignalAll();
}

absl::StatusOr<StateSnapshot> SnapshotStore::Load(
    const Prefix& prefix, absl::FunctionRef<StateBlock()> take_fixed,
    absl::FunctionRef<StateBlock()> take_page) {
  const Key key = KeyOf(prefix);
  std::string path;
  {
    MutexLock lock(&mutex_);
    const auto entry = entries_.find(key);
    if (entry == entries_.end()) {
      return absl::NotFoundError("no state of these tokens is kept");
    }
    path = entry->second.path;
    entry->second.last_use = absl::GetCurrentTimeNanos();
  }
  // The order in which files go survives a restart.
  utime(path.c_str(), nullptr);
  absl::StatusOr<StateSnapshot> snapshot =
      ReadSnapshot(path, identity_, shape_, prefix, take_fixed, take_page);
  MutexLock lock(&mutex_);
  if (snapshot.ok()) {
    ++stats_.loaded;
  } else if (absl::IsUnavailable(snapshot.status())) {
    ++stats_.errors;  // the disk's trouble, not the file's
  } else if (!absl::IsResourceExhausted(snapshot.status())) {
    ++stats_.errors;
    Remove(key);
  }
  return snapshot;
}

SnapshotStore::Stats SnapshotStore::stats() const {
  MutexLock lock(&mutex_);
  return stats_;
}

bool SnapshotStore::Flush(absl::Time deadline) {
  MutexLock lock(&mutex_);
  bool all = true;
  while (!queue_.empty() || saving_) {
    if (!queue_.empty() && (stopping_ || absl::Now() >= deadline)) {
      stats_.dropped += static_cast<int64_t>(queue_.size());
      queue_.clear();
      all = false;
      continue;
    }
    changed_.WaitUntil(&mutex_, absl::Now() + kIdleWait);
  }
  return all;
}

void SnapshotStore::Remove(const Key& key) {
  const auto entry = entries_.find(key);
  if (entry == entries_.end()) return;
  std::error_code error;
  std::filesystem::remove(entry->second.path, error);
  stats_.bytes -= entry->second.bytes;
  --stats_.files;
  entries_.erase(entry);
}

void SnapshotStore::MakeRoom() {
  while (stats_.bytes > options_.budget_bytes) {
    const auto oldest = std::min_element(
        entries_.begin(), entries_.end(), [](const auto& a, const auto& b) {
          return a.second.last_use < b.second.last_use;
        });
    if (!foreign_.empty() &&
        (oldest == entries_.end() ||
         foreign_.begin()->first < oldest->second.last_use)) {
      const Entry& entry = foreign_.begin()->second;
      std::error_code error;
      std::filesystem::remove(entry.path, error);
      stats_.bytes -= entry.bytes;
      --stats_.files;
      foreign_.erase(foreign_.begin());
    } else {
      SY_CHECK(oldest != entries_.end());
      const Key key = oldest->first;
      Remove(key);
    }
  }
}

void SnapshotStore::Run() {
  while (true) {
    Job job;
    {
      MutexLock lock(&mutex_);
      while (queue_.empty() && !stopping_) {
        changed_.WaitUntil(&mutex_, absl::Now() + kIdleWait);
      }
      if (stopping_) return;
      job = std::move(queue_.front());
      queue_.pop_front();
      saving_ = true;
    }
    const std::string path = PathOf(job.key);
    int64_t bytes = 0;
    const absl::StatusOr<bool> saved = Save(job, path, &bytes);
    MutexLock lock(&mutex_);
    saving_ = false;
    if (!saved.ok()) {
      LogWarning(
          absl::StrCat("a state was not kept: ", saved.status().ToString()));
      ++stats_.errors;
    } else if (!*saved) {
      ++stats_.dropped;
    } else {
      ++stats_.saved;
      ++stats_.files;
      stats_.bytes += bytes;
      entries_.emplace(job.key, Entry{.path = path,
                                      .bytes = bytes,
                                      .last_use = absl::GetCurrentTimeNanos()});
      MakeRoom();
    }
    changed_.SignalAll();
  }
}

absl::StatusOr<bool> SnapshotStore::Save(const Job& job,
                                         const std::string& path,
                                         int64_t* bytes) const {
  SY_ASSIGN_OR_RETURN(
      std::unique_ptr<SnapshotWriter> writer,
      SnapshotWriter::Create(path, identity_, {job.scope, job.tokens}));
  {
    const StateBlock fixed = job.fixed.lock();
    if (fixed == nullptr) return false;
    SY_RETURN_IF_ERROR(writer->Append(fixed.get(), shape_.FixedBytes()));
  }
  for (const std::weak_ptr<float>& weak : job.pages) {
    const StateBlock page = weak.lock();
    if (page == nullptr) return false;
    SY_RETURN_IF_ERROR(writer->Append(page.get(), shape_.PageBytes()));
  }
  if (!job.last_page.empty()) {
    SY_RETURN_IF_ERROR(
        writer->Append(job.last_page.data(), shape_.PageBytes()));
  }
  SY_ASSIGN_OR_RETURN(*bytes, writer->Finish());
  return true;
}

}  // namespace switchyard::attention_worker
