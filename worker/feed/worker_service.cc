#include "worker/feed/worker_service.h"

#include <deque>
#include <optional>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "proto/status.h"
#include "steady.h"
#include "version.h"
#include "worker/feed/schema.h"
#include "worker/log.h"

namespace ballast {
namespace {

RowBatch ToRowBatch(v1::FeedUp::Rows* rows, uint32_t epoch, uint32_t partition) {
  RowBatch batch;
  batch.batch = {{epoch, partition, rows->seq()}, rows->rows(), rows->fingerprint()};
  batch.first_row_id = rows->first_row_id();
  batch.columns.reserve(static_cast<size_t>(rows->columns_size()));
  for (v1::Column& column : *rows->mutable_columns()) batch.columns.emplace_back(column.name(), std::move(*column.mutable_data()));
  return batch;
}

// One feed. Reads go to the queue; answers are written one at a time from `out_`.
class FeedReactor final : public grpc::ServerBidiReactor<v1::FeedUp, v1::FeedDown>, public FeedOutlet {
 public:
  FeedReactor(WorkerRuns* runs, WorkerMetrics* metrics) : runs_(runs), metrics_(metrics) { StartRead(&up_); }

  // ---- gRPC
  void OnReadDone(bool ok) override {
    if (!ok) {  // half-closed: after End its acknowledgements still follow
      if (!ended_) End(grpc::Status(grpc::StatusCode::CANCELLED, "the task closed its feed before the end"));
      return;
    }
    metrics_->Received(WireMethod::kFeed, up_.ByteSizeLong());
    if (Take()) StartRead(&up_);
  }

  void OnWriteDone(bool ok) override {
    absl::MutexLock lock(&mu_);
    writing_ = false;
    if (!ok && !status_.has_value()) status_ = grpc::Status(grpc::StatusCode::CANCELLED, "the task is gone");
    if (!ok) out_.clear();
    WriteNext();
  }

  void OnCancel() override {
    absl::MutexLock lock(&mu_);
    out_.clear();
    if (!status_.has_value()) status_ = grpc::Status::CANCELLED;
    WriteNext();
  }

  void OnDone() override {
    if (queue_ != nullptr) queue_->Close(feed_);
    delete this;
  }

  // ---- FeedOutlet
  void Welcome(std::shared_ptr<const RunSpec> spec, uint64_t credit_bytes) override {
    absl::MutexLock lock(&mu_);
    if (open_schema_ != spec->schema) {
      FaultLocked({"SCHEMA_DIFFERS",
                   absl::StrCat("the feed carries the columns \"", open_schema_, "\", run ", spec->name, " has \"", spec->schema, "\""),
                   false,
                   {{"expected", spec->schema}, {"found", open_schema_}}});
      return;
    }
    auto schema = ParseSchema(spec->schema);
    if (!schema.ok()) {
      FaultLocked({"BAD_SCHEMA", std::string(schema.status().message()), false, {}});
      return;
    }
    schema_ = *std::move(schema);
    batch_rows_ = spec->batch_rows;
    durable_ = spec->durability == Durability::kLog;
    welcomed_ = true;
    v1::FeedDown down;
    down.mutable_welcome()->mutable_hello()->set_protocol(kProtocol);
    down.mutable_welcome()->mutable_hello()->set_release(kVersion);
    down.mutable_welcome()->set_credit_bytes(credit_bytes);
    Say(std::move(down));
  }

  void Credit(uint64_t bytes) override {
    absl::MutexLock lock(&mu_);
    v1::FeedDown down;
    down.mutable_credit()->set_bytes(bytes);
    Say(std::move(down));
  }

  void Ack(uint64_t seq, Outcome outcome, uint64_t version, const std::string& reason) override {
    metrics_->BatchAcknowledged(outcome);
    absl::MutexLock lock(&mu_);
    v1::FeedDown down;
    v1::FeedDown::Ack* ack = down.mutable_ack();
    ack->set_seq(seq);
    ack->set_outcome(static_cast<v1::FeedDown::Ack::Outcome>(outcome));
    ack->set_version(version);
    ack->set_durable(durable_);
    ack->set_reason(reason);
    Say(std::move(down));
  }

  void Fault(const FeedFault& fault) override {
    absl::MutexLock lock(&mu_);
    FaultLocked(fault);
  }

  void Finish() override {
    absl::MutexLock lock(&mu_);
    if (!status_.has_value()) status_ = grpc::Status::OK;
    WriteNext();
  }

 private:
  // Handles up_. False: read no more.
  bool Take() {
    if (queue_ == nullptr) return Open();
    switch (up_.kind_case()) {
      case v1::FeedUp::kRows:
        return Rows();
      case v1::FeedUp::kFlush:
        queue_->Flush(feed_);
        return true;
      case v1::FeedUp::kEnd:
        ended_ = true;
        queue_->End(feed_);
        return true;
      default:
        Fault({"PROTOCOL", "a feed sends open once, then rows, flush and end", false, {}});
        return false;
    }
  }

  bool Open() {
    if (up_.kind_case() != v1::FeedUp::kOpen) {
      Fault({"PROTOCOL", "the first message of a feed must be open", false, {}});
      return false;
    }
    const v1::FeedUp::Open& open = up_.open();
    if (open.hello().protocol() != kProtocol) {
      Fault({"PROTOCOL_DIFFERS",
             absl::StrCat("the client (release ", open.hello().release(), ") speaks protocol ", open.hello().protocol(),
                          ", this worker (release ", kVersion, ") protocol ", kProtocol, ": install the same major release on both sides"),
             false,
             {}});
      return false;
    }
    auto queue = runs_->QueueOf(open.run());
    if (!queue.ok()) {
      Fault({"WORKER_UNAVAILABLE", std::string(queue.status().message()), true, {}});
      return false;
    }
    epoch_ = open.epoch();
    partition_ = open.partition();
    {
      absl::MutexLock lock(&mu_);
      open_schema_ = open.schema();
    }
    LogInfo("feed opened",
            {{"run", open.run()}, {"epoch", absl::StrCat(epoch_)}, {"partition", absl::StrCat(partition_)}, {"attempt", open.attempt()}});
    queue_ = *std::move(queue);
    feed_ = queue_->Open(this, epoch_, partition_, SteadyNow());
    return true;
  }

  bool Rows() {
    RowBatch rows = ToRowBatch(up_.mutable_rows(), epoch_, partition_);
    std::optional<FeedFault> fault;
    {
      absl::MutexLock lock(&mu_);
      if (!welcomed_) {
        fault = {"PROTOCOL", "rows before the worker's welcome", false, {}};
      } else {
        fault = CheckRows(schema_, batch_rows_, rows);
      }
    }
    if (fault.has_value()) {
      LogWarning("rows refused", {{"reason", fault->reason}, {"message", fault->message}});
      Fault(*fault);
      return false;
    }
    metrics_->RowsReceived(rows.batch.rows, rows.Bytes());
    queue_->Add(feed_, std::move(rows));
    return true;
  }

  void FaultLocked(const FeedFault& fault) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    if (status_.has_value()) return;
    metrics_->FeedFaulted();
    v1::FeedDown down;
    down.mutable_fault()->set_reason(fault.reason);
    down.mutable_fault()->set_message(fault.message);
    down.mutable_fault()->set_retry(fault.retry);
    down.mutable_fault()->mutable_metadata()->insert(fault.metadata.begin(), fault.metadata.end());
    Say(std::move(down));
    status_ = grpc::Status::OK;  // after the fault was written
    WriteNext();
  }

  void End(grpc::Status status) {
    absl::MutexLock lock(&mu_);
    if (!status_.has_value()) status_ = std::move(status);
    WriteNext();
  }

  void Say(v1::FeedDown down) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    if (status_.has_value()) return;
    if (out_.size() >= kAnswersMax) {
      out_.clear();
      status_ = grpc::Status(grpc::StatusCode::RESOURCE_EXHAUSTED, absl::StrCat("the task left ", kAnswersMax, " answers unread"));
    } else {
      out_.push_back(std::move(down));
    }
    WriteNext();
  }

  void WriteNext() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    if (writing_ || finished_) return;
    if (!out_.empty()) {
      down_ = std::move(out_.front());
      out_.pop_front();
      writing_ = true;
      metrics_->Sent(WireMethod::kFeed, down_.ByteSizeLong());
      StartWrite(&down_);
    } else if (status_.has_value()) {
      finished_ = true;
      grpc::ServerBidiReactor<v1::FeedUp, v1::FeedDown>::Finish(*status_);
    }
  }

  WorkerRuns* const runs_;
  WorkerMetrics* const metrics_;

  // ---- reads only: one at a time
  v1::FeedUp up_;
  std::shared_ptr<FeedQueue> queue_;
  FeedQueue::FeedId feed_ = 0;
  uint32_t epoch_ = 0;
  uint32_t partition_ = 0;
  bool ended_ = false;

  absl::Mutex mu_;
  std::string open_schema_ ABSL_GUARDED_BY(mu_);
  std::vector<ColumnSpec> schema_ ABSL_GUARDED_BY(mu_);
  uint64_t batch_rows_ ABSL_GUARDED_BY(mu_) = 0;
  bool durable_ ABSL_GUARDED_BY(mu_) = true;
  bool welcomed_ ABSL_GUARDED_BY(mu_) = false;
  std::deque<v1::FeedDown> out_ ABSL_GUARDED_BY(mu_);
  v1::FeedDown down_ ABSL_GUARDED_BY(mu_);  // being written
  bool writing_ ABSL_GUARDED_BY(mu_) = false;
  std::optional<grpc::Status> status_ ABSL_GUARDED_BY(mu_);  // set: nothing more is said, it ends when out_ is empty
  bool finished_ ABSL_GUARDED_BY(mu_) = false;
};

class ResidualReactor final : public grpc::ServerWriteReactor<v1::ResidualTensor> {
 public:
  explicit ResidualReactor(absl::StatusOr<std::unique_ptr<ResidualReader>> reader) {
    if (!reader.ok()) {
      Finish(ToGrpc(reader.status()));
      return;
    }
    reader_ = *std::move(reader);
    Next();
  }
  void OnWriteDone(bool ok) override { ok ? Next() : Finish(grpc::Status::CANCELLED); }
  void OnDone() override { delete this; }

 private:
  void Next() {
    piece_.Clear();
    if (reader_->Next(&piece_)) {
      StartWrite(&piece_);
    } else {
      Finish(grpc::Status::OK);
    }
  }

  std::unique_ptr<ResidualReader> reader_;
  v1::ResidualTensor piece_;
};

class WorkerService final : public v1::Worker::CallbackService {
 public:
  WorkerService(WorkerRuns* runs, WorkerMetrics* metrics) : runs_(runs), metrics_(metrics) {}

  grpc::ServerBidiReactor<v1::FeedUp, v1::FeedDown>* Feed(grpc::CallbackServerContext*) override {
    return new FeedReactor(runs_, metrics_);
  }

  grpc::ServerWriteReactor<v1::ResidualTensor>* Residuals(grpc::CallbackServerContext*, const v1::RunRef* run) override {
    return new ResidualReactor(runs_->ResidualsOf(run->run()));
  }

 private:
  WorkerRuns* const runs_;
  WorkerMetrics* const metrics_;
};

}  // namespace

std::unique_ptr<v1::Worker::CallbackService> MakeWorkerService(WorkerRuns* runs, WorkerMetrics* metrics) {
  return std::make_unique<WorkerService>(runs, metrics);
}

}  // namespace ballast
