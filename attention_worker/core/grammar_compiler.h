// Compiles the grammars of requests, each once, away from the step thread.
//
// Above: core/engine.cc. Below: grammar/compile.h.

#ifndef SWITCHYARD_ATTENTION_WORKER_CORE_GRAMMAR_COMPILER_H_
#define SWITCHYARD_ATTENTION_WORKER_CORE_GRAMMAR_COMPILER_H_

#include <deque>
#include <functional>
#include <list>
#include <memory>
#include <string>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "base/mutex.h"
#include "grammar/compiled_grammar.h"
#include "grammar/grammar_kind.h"
#include "grammar/vocabulary.h"

namespace switchyard::attention_worker {

// Life: the constructor starts the thread "sy-grammar"; Stop(), or the
// destructor, ends it. Thread-safe. Its queue is as bounded as the requests
// that wait in it: the engine's.
class GrammarCompiler {
 public:
  using Result =
      absl::StatusOr<std::shared_ptr<const grammar::CompiledGrammar>>;
  // Called once, by the thread that asked or by the compiler's.
  using Done = std::function<void(Result)>;

  // What is remembered, the least recently used one going first.
  static constexpr size_t kMaxGrammars = 64;
  static constexpr int64_t kMaxTableBytes = int64_t{256} << 20;  // of them all

  explicit GrammarCompiler(
      std::shared_ptr<const grammar::Vocabulary> vocabulary);
  ~GrammarCompiler() { Stop(); }

  // INVALID_ARGUMENT as CompileGrammar(); UNAVAILABLE after Stop().
  void Compile(grammar::GrammarKind kind, const std::string& text,
               int leading_newlines, Done done) ABSL_LOCKS_EXCLUDED(mutex_);

  // What waits ends with UNAVAILABLE; what is being compiled ends first.
  // Idempotent.
  void Stop() ABSL_LOCKS_EXCLUDED(mutex_, join_mutex_);

 private:
  struct Job {
    grammar::GrammarKind kind;
    std::string text;
    int leading_newlines = 0;
    std::string key;
    Done done;
  };
  struct Kept {
    std::string key;
    Result result;
  };

  void Run() ABSL_LOCKS_EXCLUDED(mutex_);
  const Result* FindLocked(const std::string& key)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void KeepLocked(const std::string& key, const Result& result)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const std::shared_ptr<const grammar::Vocabulary> vocabulary_;

  Mutex mutex_;
  CondVar wake_;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::deque<Job> jobs_ ABSL_GUARDED_BY(mutex_);
  std::list<Kept> kept_ ABSL_GUARDED_BY(mutex_);  // last used first
  absl::flat_hash_map<std::string, std::list<Kept>::iterator> by_key_
      ABSL_GUARDED_BY(mutex_);
  int64_t kept_bytes_ ABSL_GUARDED_BY(mutex_) = 0;

  Mutex join_mutex_;
  std::thread thread_ ABSL_GUARDED_BY(join_mutex_);
};

}  // namespace switchyard::attention_worker

#endif  // SWITCHYARD_ATTENTION_WORKER_CORE_GRAMMAR_COMPILER_H_
