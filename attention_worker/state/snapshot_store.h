// Kept prefixes on disk, under a byte budget of their own: what memory has no
// room for, and what is to outlive the process.
//
// Writing is behind: a snapshot is copied by a thread of the store while it is
// in memory anyway, and given up if it is evicted meanwhile. So eviction never
// waits for a disk. Reading is done by the step thread, which waits: seconds at
// most, in the place of minutes of prefill.

#ifndef SWITCHYARD_ATTENTION_WORKER_STATE_SNAPSHOT_STORE_H_
#define SWITCHYARD_ATTENTION_WORKER_STATE_SNAPSHOT_STORE_H_

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <tuple>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "attention_worker/state/prefix.h"
#include "attention_worker/state/sequence_state.h"
#include "attention_worker/state/snapshot_file.h"
#include "attention_worker/state/state_shape.h"
#include "base/mutex.h"

namespace switchyard::attention_worker {

// Thread-safe, but Load() is one caller's.
class SnapshotStore {
 public:
  struct Options {
    std::string directory;     // made if it is not there; one process's alone
    int64_t budget_bytes = 0;  // of its files
    std::string model;         // Checkpoint::fingerprint()
  };
  struct Stats {
    int64_t files = 0;
    int64_t bytes = 0;
    int64_t saved = 0;    // since the start
    int64_t dropped = 0;  // not saved: too many at once, evicted meanwhile, or
                          // larger than the budget
    int64_t loaded = 0;
    int64_t errors = 0;  // files that could not be written or read
  };

  // Finds what former processes left; removes what they did not finish and what
  // is over the budget, the longest unused first. Files of other models stay,
  // and count. INVALID_ARGUMENT, UNAVAILABLE: no such directory can be made or
  // read.
  static absl::StatusOr<std::unique_ptr<SnapshotStore>> Open(
      const Options& options, const StateShape& shape);
  // Finishes the file that it is writing, no more.
  ~SnapshotStore();
  SnapshotStore(const SnapshotStore&) = delete;
  SnapshotStore& operator=(const SnapshotStore&) = delete;

  // Tokens of the longest stored prefix of this one; 0: none.
  int64_t LongestPrefix(const Prefix& prefix) const ABSL_LOCKS_EXCLUDED(mutex_);

  // Copies it to disk by and by. Never waits. Nobody may write any more to what
  // the snapshot's tokens fill.
  void SaveLater(const Prefix& prefix, const StateSnapshot& snapshot)
      ABSL_LOCKS_EXCLUDED(mutex_);

  // The state of just this prefix. Errors as ReadSnapshot(); a file that is
  // damaged is removed.
  absl::StatusOr<StateSnapshot> Load(const Prefix& prefix,
                                     absl::FunctionRef<StateBlock()> take_fixed,
                                     absl::FunctionRef<StateBlock()> take_page)
      ABSL_LOCKS_EXCLUDED(mutex_);

  Stats stats() const ABSL_LOCKS_EXCLUDED(mutex_);

  // Returns when all that was to be saved is, or at `deadline`, when it drops
  // the rest and waits for the file in work alone. Afterwards no block is held:
  // their StateMemory may go. False: something was dropped.
  bool Flush(absl::Time deadline) ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  struct Entry {
    std::string path;
    int64_t bytes = 0;
    int64_t last_use = 0;
  };
  struct Key {
    int64_t num_tokens = 0;
    uint64_t hash = 0;
    friend bool operator==(const Key&, const Key&) = default;
    friend bool operator<(const Key& a, const Key& b) {
      return std::tie(a.num_tokens, a.hash) < std::tie(b.num_tokens, b.hash);
    }
  };
  // Blocks by weak references: one at a time is held while it is written. The
  // last page is a copy, since others may write on behind its tokens.
  struct Job {
    Key key;
    std::string scope;
    std::vector<int32_t> tokens;
    std::weak_ptr<float> fixed;
    std::vector<std::weak_ptr<float>> pages;
    std::vector<float> last_page;
  };

  SnapshotStore(const Options& options, const StateShape& shape);
  absl::Status Scan() ABSL_LOCKS_EXCLUDED(mutex_);
  void Run() ABSL_LOCKS_EXCLUDED(mutex_);
  // OK and false: the snapshot was evicted meanwhile.
  absl::StatusOr<bool> Save(const Job& job, const std::string& path,
                            int64_t* bytes) const;
  std::string PathOf(const Key& key) const;
  void Remove(const Key& key) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void MakeRoom() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  static Key KeyOf(const Prefix& prefix);

  const Options options_;
  const StateShape shape_;
  const SnapshotIdentity identity_;
  mutable Mutex mutex_;
  CondVar changed_;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  bool saving_ ABSL_GUARDED_BY(mutex_) = false;
  std::deque<Job> queue_ ABSL_GUARDED_BY(mutex_);
  std::map<Key, Entry> entries_ ABSL_GUARDED_BY(mutex_);
  // Files of other models: by when they were used last.
  std::multimap<int64_t, Entry> foreign_ ABSL_GUARDED_BY(mutex_);
  Stats stats_ ABSL_GUARDED_BY(mutex_);
  std::thread thread_;
};

}  // namespace switchyard::attention_worker

#endif  // SWITCHYARD_ATTENTION_WORKER_STATE_SNAPSHOT_STORE_H_
