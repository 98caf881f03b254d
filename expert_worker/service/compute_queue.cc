#include "expert_worker/service/compute_queue.h"

#include <algorithm>
#include <map>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/check.h"
#include "kernels/quantized.h"

namespace switchyard::expert_worker {

ComputeQueue::ComputeQueue(const Options& options)
    : options_(options), buffers_(options.buffers) {
  SY_CHECK(options.hidden_size > 0 && options.max_bytes > 0);
  SY_CHECK(buffers_ != nullptr);
}

ComputeQueue::~ComputeQueue() { Close(); }

absl::Status ComputeQueue::CheckHeld(const ComputeRequest& request) const {
  std::vector<int> missing;
  for (const experts::ExpertRun& run : request.runs) {
    if (!options_.engine->Holds(request.layer, run.expert)) {
      missing.push_back(run.expert);
    }
  }
  if (missing.empty()) return absl::OkStatus();
  return absl::NotFoundError(absl::StrCat("this worker does not hold experts ",
                                          model::FormatExpertList(missing),
                                          " of layer ", request.layer));
}

absl::Status ComputeQueue::Submit(ComputeJob job) {
  if (absl::Status held = CheckHeld(job.request); !held.ok()) return held;
  Entry entry{.job = std::move(job), .bytes = 0};
  entry.bytes = (entry.job.request.num_rows + entry.job.request.num_outputs) *
                options_.hidden_size * static_cast<int64_t>(sizeof(float));
  MutexLock lock(&mutex_);
  if (closed_) return absl::UnavailableError("this worker is shutting down");
  if (bytes_ > 0 && entry.bytes > options_.max_bytes - bytes_) {
    return absl::ResourceExhaustedError(
        absl::StrCat("the queue holds ", bytes_, " of at most ",
                     options_.max_bytes, " bytes; no room for ", entry.bytes));
  }
  bytes_ += entry.bytes;
  options_.metrics->queued_bytes->Set(static_cast<double>(bytes_));
  entries_.push_back(std::move(entry));
  return absl::OkStatus();
}

void ComputeQueue::Close() {
  std::deque<Entry> dropped;
  {
    MutexLock lock(&mutex_);
    closed_ = true;
    dropped.swap(entries_);
    while (computing_) rested_.WaitUntil(&mutex_, absl::InfiniteFuture());
  }
  const absl::Time now = absl::Now();
  for (Entry& entry : dropped) {
    std::move(entry.job.done)(
        {.status = absl::UnavailableError("this worker is shutting down"),
         .outputs = {},
         .times = {.received = entry.job.received,
                   .queue = now - entry.job.received,
                   .compute = {}}});
  }
}

std::vector<ComputeQueue::Entry> ComputeQueue::TakeBatch() {
  std::vector<Entry> batch;
  if (entries_.empty()) return batch;
  const int layer = entries_.front().job.request.layer;
  int64_t outputs = 0;
  for (auto it = entries_.begin(); it != entries_.end();) {
    const ComputeRequest& request = it->job.request;
    const bool fits = batch.empty() || outputs + request.num_outputs <=
                                           options_.max_batch_outputs;
    if (request.layer != layer || !fits) {
      ++it;
      continue;
    }
    outputs += request.num_outputs;
    batch.push_back(std::move(*it));
    it = entries_.erase(it);
  }
  return batch;
}

bool ComputeQueue::Uses(int layer, int expert) {
  MutexLock lock(&mutex_);
  if (computing_layer_ == layer) return true;  // or another one of the layer
  for (const Entry& entry : entries_) {
    if (entry.job.request.layer != layer) continue;
    for (const experts::ExpertRun& run : entry.job.request.runs) {
      if (run.expert == expert) return true;
    }
  }
  return false;
}

bool ComputeQueue::HasPending() {
  MutexLock lock(&mutex_);
  return !entries_.empty();
}

void ComputeQueue::RunPending() {
  mutex_.Lock();
  if (computing_) {
    mutex_.Unlock();
    return;
  }
  computing_ = true;
  while (true) {
    std::vector<Entry> batch = TakeBatch();
    if (batch.empty()) break;
    computing_layer_ = batch.front().job.request.layer;
    mutex_.Unlock();
    int64_t bytes = 0;
    for (const Entry& entry : batch) bytes += entry.bytes;
    ComputeBatch(std::move(batch));
    mutex_.Lock();
    computing_layer_ = -1;
    bytes_ -= bytes;
    options_.metrics->queued_bytes->Set(static_cast<double>(bytes_));
  }
  computing_ = false;
  rested_.SignalAll();
  mutex_.Unlock();
}

void ComputeQueue::DropStale(std::vector<Entry>* batch, absl::Time now) {
  std::vector<Entry> live;
  for (Entry& entry : *batch) {
    ComputeOutcome outcome;
    outcome.times.received = entry.job.received;
    outcome.times.queue = now - entry.job.received;
    if (entry.job.abandoned->load()) {
      outcome.status = absl::CancelledError("nobody waits for this");
    } else if (now - entry.job.received >= entry.job.request.timeout) {
      outcome.status = absl::DeadlineExceededError(
          absl::StrCat("waited ", absl::FormatDuration(outcome.times.queue),
                       " in the queue, longer than its timeout of ",
                       absl::FormatDuration(entry.job.request.timeout)));
    } else {
      live.push_back(std::move(entry));
      continue;
    }
    std::move(entry.job.done)(std::move(outcome));
  }
  *batch = std::move(live);
}

void ComputeQueue::ComputeBatch(std::vector<Entry> batch) {
  const absl::Time start = absl::Now();
  DropStale(&batch, start);
  if (batch.empty()) return;
  std::vector<PooledBuffer> outputs(batch.size());
  const absl::Status status =
      batch.size() == 1
          ? ComputeOne(batch.front().job.request, &outputs.front())
          : ComputeMerged(batch, &outputs);
  const absl::Duration spent = absl::Now() - start;
  options_.metrics->batches->Increment();
  options_.metrics->compute_seconds->Observe(absl::ToDoubleSeconds(spent));
  options_.metrics->compute_seconds_total->Increment(
      absl::ToDoubleSeconds(spent));
  for (size_t i = 0; i < batch.size(); ++i) {
    const ComputeRequest& request = batch[i].job.request;
    const absl::Time received = batch[i].job.received;
    ComputeOutcome outcome{
        .status = status,
        .outputs = std::move(outputs[i]),
        .times = {
            .received = received, .queue = start - received, .compute = spent}};
    if (status.ok()) {
      options_.metrics->rows->Increment(static_cast<double>(request.num_rows));
      options_.metrics->outputs->Increment(
          static_cast<double>(request.num_outputs));
    } else {
      outcome.outputs = PooledBuffer();
    }
    options_.metrics->queue_seconds->Observe(
        absl::ToDoubleSeconds(outcome.times.queue));
    std::move(batch[i].job.done)(std::move(outcome));
  }
}

size_t ComputeQueue::OutputBytes(const ComputeRequest& request) const {
  return static_cast<size_t>(request.num_outputs * options_.hidden_size) *
         sizeof(float);
}

absl::Status ComputeQueue::ComputeOne(const ComputeRequest& request,
                                      PooledBuffer* outputs) {
  *outputs = buffers_->Take(OutputBytes(request));
  return options_.engine->Compute({.layer = request.layer,
                                   .num_rows = request.num_rows,
                                   .rows = request.rows.floats(),
                                   .runs = request.runs,
                                   .quantized = request.rows.quantized(),
                                   .rounded = request.rows.rounded()},
                                  outputs->span<float>());
}

ActivationRows ComputeQueue::MergeRows(const std::vector<Entry>& batch,
                                       int64_t num_rows) {
  const int64_t hidden = options_.hidden_size;
  const kernels::RowFormat format = batch.front().job.request.rows.format();
  if (format == kernels::RowFormat::kBF16) {
    PooledBuffer bf16 = buffers_->Take(static_cast<size_t>(num_rows * hidden) *
                                       sizeof(uint16_t));
    auto* to = bf16.data<uint16_t>();
    for (const Entry& entry : batch) {
      const ComputeRequest& request = entry.job.request;
      to = std::copy_n(request.rows.rounded(), request.num_rows * hidden, to);
    }
    return ActivationRows::Rounded(std::move(bf16));
  }
  if (format == kernels::RowFormat::kF32) {
    PooledBuffer floats =
        buffers_->Take(static_cast<size_t>(num_rows * hidden) * sizeof(float));
    float* to = floats.data<float>();
    for (const Entry& entry : batch) {
      const absl::Span<const float> rows = entry.job.request.rows.floats();
      to = std::copy(rows.begin(), rows.end(), to);
    }
    return ActivationRows::Floats(std::move(floats));
  }
  PooledBuffer buffer =
      buffers_->Take(ActivationRows::QuantizedBytes(num_rows, hidden));
  int8_t* values = buffer.data<int8_t>();
  auto* scales = reinterpret_cast<float*>(
      values + num_rows * kernels::PaddedColumns(hidden));
  for (const Entry& entry : batch) {
    const ComputeRequest& request = entry.job.request;
    const kernels::QuantizedRows& rows = request.rows.quantized();
    values = std::copy_n(
        rows.values, request.num_rows * kernels::PaddedColumns(hidden), values);
    scales = std::copy_n(rows.scales,
                         request.num_rows * kernels::NumGroups(hidden), scales);
  }
  return ActivationRows::Quantized(std::move(buffer), num_rows, hidden);
}

absl::Status ComputeQueue::ComputeMerged(const std::vector<Entry>& batch,
                                         std::vector<PooledBuffer>* outputs) {
  ComputeRequest merged;
  merged.layer = batch.front().job.request.layer;
  // Expert -> (request, its run), in the order of the requests.
  std::map<int, std::vector<std::pair<size_t, const experts::ExpertRun*>>> runs;
  std::vector<int64_t> first_row(batch.size());
  for (size_t i = 0; i < batch.size(); ++i) {
    const ComputeRequest& request = batch[i].job.request;
    first_row[i] = merged.num_rows;
    merged.num_rows += request.num_rows;
    merged.num_outputs += request.num_outputs;
    for (const experts::ExpertRun& run : request.runs) {
      runs[run.expert].emplace_back(i, &run);
    }
  }
  merged.rows = MergeRows(batch, merged.num_rows);
  for (const auto& [expert, parts] : runs) {
    experts::ExpertRun& run = merged.runs.emplace_back();
    run.expert = expert;
    for (const auto& [i, part] : parts) {
      for (const int32_t row : part->rows) {
        run.rows.push_back(static_cast<int32_t>(first_row[i] + row));
      }
    }
  }
  PooledBuffer all;
  absl::Status status = ComputeOne(merged, &all);
  if (!status.ok()) return status;
  std::vector<float*> to(batch.size());
  for (size_t i = 0; i < batch.size(); ++i) {
    (*outputs)[i] = buffers_->Take(OutputBytes(batch[i].job.request));
    to[i] = (*outputs)[i].data<float>();
  }
  // Experts ascend in every request, so each one's outputs come in its order.
  const float* next = all.data<float>();
  for (const auto& [expert, parts] : runs) {
    for (const auto& [i, part] : parts) {
      const int64_t count =
          static_cast<int64_t>(part->rows.size()) * options_.hidden_size;
      to[i] = std::copy_n(next, count, to[i]);
      next += count;
    }
  }
  return absl::OkStatus();
}

}  // namespace switchyard::expert_worker
