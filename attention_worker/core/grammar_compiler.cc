#include "attention_worker/core/grammar_compiler.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/types/optional.h"
#include "base/thread.h"
#include "grammar/compile.h"

namespace switchyard::attention_worker {
namespace {

constexpr absl::Duration kIdleWait = absl::Hours(1);

GrammarCompiler::Result Stopping() {
  return absl::UnavailableError(
      "this worker is stopping; send the request to another one");
}

int64_t BytesOf(const GrammarCompiler::Result& result) {
  return result.ok() ? (*result)->TableBytes() : 0;
}

}  // namespace

GrammarCompiler::GrammarCompiler(
    std::shared_ptr<const grammar::Vocabulary> vocabulary)
    : vocabulary_(std::move(vocabulary)),
      thread_(StartThread("sy-grammar", [this] { Run(); })) {}

void GrammarCompiler::Compile(grammar::GrammarKind kind,
                              const std::string& text, int leading_newlines,
                              Done done) {
  std::string key =
      absl::StrCat(static_cast<int>(kind), " ", leading_newlines, " ", text);
  absl::optional<Result> known;
  {
    MutexLock lock(&mutex_);
    if (stopping_) {
      known = Stopping();
    } else if (const Result* kept = FindLocked(key)) {
      known = *kept;
    } else {
      jobs_.push_back(
          {kind, text, leading_newlines, std::move(key), std::move(done)});
      wake_.Signal();
      return;
    }
  }
  done(*std::move(known));
}

void GrammarCompiler::Stop() {
  {
    MutexLock lock(&mutex_);
    stopping_ = true;
    wake_.Signal();
  }
  MutexLock lock(&join_mutex_);
  if (thread_.joinable()) thread_.join();
}

void GrammarCompiler::Run() {
  while (true) {
    absl::optional<Job> job;
    absl::optional<Result> result;
    {
      MutexLock lock(&mutex_);
      while (jobs_.empty() && !stopping_) {
        wake_.WaitUntil(&mutex_, absl::Now() + kIdleWait);
      }
      if (jobs_.empty()) return;
      job = std::move(jobs_.front());
      jobs_.pop_front();
      if (stopping_) {
        result = Stopping();
      } else if (const Result* kept = FindLocked(job->key)) {
        result = *kept;  // somebody asked for the same just before
      }
    }
    if (!result) {
      result = grammar::CompileGrammar(job->kind, job->text,
                                       job->leading_newlines, vocabulary_);
      MutexLock lock(&mutex_);
      KeepLocked(job->key, *result);
    }
    job->done(*std::move(result));
  }
}

const GrammarCompiler::Result* GrammarCompiler::FindLocked(
    const std::string& key) {
  const auto it = by_key_.find(key);
  if (it == by_key_.end()) return nullptr;
  kept_.splice(kept_.begin(), kept_, it->second);
  return &it->second->result;
}

void GrammarCompiler::KeepLocked(const std::string& key, const Result& result) {
  kept_.push_front({key, result});
  by_key_[key] = kept_.begin();
  kept_bytes_ += BytesOf(result);
  while (kept_.size() > kMaxGrammars || kept_bytes_ > kMaxTableBytes) {
    kept_bytes_ -= BytesOf(kept_.back().result);
    by_key_.erase(kept_.back().key);
    kept_.pop_back();
  }
}

}  // namespace switchyard::attention_worker
