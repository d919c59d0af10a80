#include "worker/serve/inference_service.h"

#include <algorithm>
#include <deque>
#include <thread>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "core/status.h"
#include "proto/status.h"
#include "steady.h"
#include "worker/serve/infer_tensors.h"

namespace ballast {
namespace {

grpc::ServerUnaryReactor* Finished(grpc::CallbackServerContext* context, const absl::Status& status) {
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  reactor->Finish(ToGrpc(status));
  return reactor;
}

absl::Status Stopping() { return WithReason(absl::UnavailableError("this worker is stopping"), "STOPPING"); }

// 0 for an empty one: the newest.
absl::StatusOr<uint64_t> ParseVersion(const std::string& text) {
  uint64_t version = 0;
  if (text.empty()) return version;
  if (!absl::SimpleAtoi(text, &version) || version == 0) {
    return WithReason(
        absl::InvalidArgumentError(absl::StrCat("model version \"", text, "\" is not the version of a manifest: a number from 1")),
        "BAD_INPUT");
  }
  return version;
}

void Describe(const ColumnSpec& spec, inference::ModelMetadataResponse::TensorMetadata* out) {
  out->set_name(spec.name);
  out->set_datatype(DatatypeOf(spec.dtype));
  out->add_shape(-1);
  out->mutable_shape()->Add(spec.shape.begin(), spec.shape.end());
}

absl::Status DescribeModel(ModelCache* cache, const inference::ModelMetadataRequest& request, inference::ModelMetadataResponse* response) {
  const auto version = ParseVersion(request.version());
  if (!version.ok()) return version.status();
  const auto model = cache->Get(request.name(), *version);
  if (!model.ok()) return model.status();
  const auto versions = cache->Versions(request.name());
  if (!versions.ok()) return versions.status();
  response->set_name(request.name());
  for (uint64_t v : *versions) response->add_versions(absl::StrCat(v));
  response->set_platform("pytorch_torchscript");
  for (const ColumnSpec& spec : (*model)->description().inputs) Describe(spec, response->add_inputs());
  for (const ColumnSpec& spec : (*model)->description().outputs) Describe(spec, response->add_outputs());
  return absl::OkStatus();
}

absl::Status IsReady(ModelCache* cache, const inference::ModelReadyRequest& request, inference::ModelReadyResponse* response) {
  const auto version = ParseVersion(request.version());
  if (!version.ok()) return version.status();
  const auto versions = cache->Versions(request.name());
  if (absl::IsNotFound(versions.status())) return absl::OkStatus();  // ready: false
  if (!versions.ok()) return versions.status();
  response->set_ready(*version == 0 ? !versions->empty() : std::find(versions->begin(), versions->end(), *version) != versions->end());
  return absl::OkStatus();
}

BatchView Slice(const BatchView& batch, uint32_t first, uint32_t rows) {
  BatchView slice;
  slice.rows = rows;
  for (const ColumnView& column : batch.columns) {
    const size_t row_bytes = column.data.size() / batch.rows;
    slice.columns.push_back({column.name, column.data.substr(first * row_bytes, rows * row_bytes)});
  }
  return slice;
}

// The scores of all rows. A forward sees kForwardRowsMax of them at most: its activations may need a thousand times the memory of a
// request.
absl::StatusOr<std::vector<OutputTensor>> ScoreRows(const ServedModel& model, const BatchView& batch) {
  std::vector<OutputTensor> all;
  for (uint32_t first = 0; first < batch.rows; first += kForwardRowsMax) {
    const uint32_t rows = std::min(kForwardRowsMax, batch.rows - first);
    auto outputs = model.Infer(Slice(batch, first, rows));
    if (!outputs.ok()) return WithReason(outputs.status(), "BAD_INPUT");
    if (first == 0) {
      all = *std::move(outputs);
    } else {
      for (size_t i = 0; i < all.size(); ++i) {
        all[i].data += (*outputs)[i].data;
        all[i].shape[0] += (*outputs)[i].shape[0];
      }
    }
    if (OutputBytes(all) > static_cast<uint64_t>(kInferenceMessageBytesMax)) {
      return WithReason(
          absl::ResourceExhaustedError(absl::StrCat("the scores of ", first + rows, " of ", batch.rows, " rows have ", OutputBytes(all),
                                                    " bytes, an answer may have ", kInferenceMessageBytesMax, ": send fewer rows")),
          "REQUEST_TOO_LARGE");
    }
  }
  return all;
}

absl::Status Score(ModelCache* cache, const inference::ModelInferRequest& request, inference::ModelInferResponse* response, int64_t* rows) {
  const auto version = ParseVersion(request.model_version());
  if (!version.ok()) return version.status();
  const auto model = cache->Get(request.model_name(), *version);
  if (!model.ok()) return model.status();
  const auto inputs = DecodeInputs(request, (*model)->description());
  if (!inputs.ok()) return inputs.status();
  *rows = inputs->batch.rows;
  auto outputs = ScoreRows(**model, inputs->batch);
  if (!outputs.ok()) return outputs.status();
  response->set_model_name(request.model_name());
  response->set_model_version(absl::StrCat((*model)->version()));
  response->set_id(request.id());
  return EncodeOutputs(request, *std::move(outputs), response);
}

}  // namespace

// Threads that compute, and the requests that wait for one.
class InferenceService::Pool {
 public:
  struct Job {
    uint64_t bytes = 0;
    std::function<absl::Status()> call;
    grpc::CallbackServerContext* context = nullptr;
    grpc::ServerUnaryReactor* reactor = nullptr;
  };

  explicit Pool(const InferenceOptions& options) : options_(options) {
    for (int i = 0; i < std::max(1, options.threads); ++i) threads_.emplace_back([this] { Run(); });
  }

  // Not OK: the job was not taken and its reactor is not finished.
  absl::Status Add(Job job) {
    absl::MutexLock lock(&mu_);
    if (stopping_) return Stopping();
    if (queue_.size() >= static_cast<size_t>(options_.queued_max) || queued_bytes_ + job.bytes > options_.queued_bytes_max) {
      return WithReason(absl::ResourceExhaustedError(absl::StrCat(queue_.size(), " requests with ", queued_bytes_, " bytes wait already")),
                        "INFERENCE_BUSY");
    }
    queued_bytes_ += job.bytes;
    queue_.push_back(std::move(job));
    return absl::OkStatus();
  }

  void Stop() {
    std::deque<Job> refused;
    {
      absl::MutexLock lock(&mu_);
      if (stopping_) return;
      stopping_ = true;
      refused.swap(queue_);
    }
    for (Job& job : refused) job.reactor->Finish(ToGrpc(Stopping()));
    for (std::thread& thread : threads_) thread.join();
  }

  bool stopping() const {
    absl::MutexLock lock(&mu_);
    return stopping_;
  }

 private:
  bool Wake() const ABSL_SHARED_LOCKS_REQUIRED(mu_) { return stopping_ || !queue_.empty(); }

  void Run() {
    for (;;) {
      Job job;
      {
        absl::MutexLock lock(&mu_);
        mu_.Await(absl::Condition(this, &Pool::Wake));
        if (stopping_) return;
        job = std::move(queue_.front());
        queue_.pop_front();
        queued_bytes_ -= job.bytes;
      }
      const bool wanted = !job.context->IsCancelled();
      job.reactor->Finish(ToGrpc(wanted ? job.call() : absl::CancelledError("the client gave up")));
    }
  }

  const InferenceOptions options_;
  std::vector<std::thread> threads_;
  mutable absl::Mutex mu_;
  std::deque<Job> queue_ ABSL_GUARDED_BY(mu_);
  uint64_t queued_bytes_ ABSL_GUARDED_BY(mu_) = 0;
  bool stopping_ ABSL_GUARDED_BY(mu_) = false;
};

InferenceService::InferenceService(InferenceOptions options, std::shared_ptr<ModelCache> cache, InferenceProbe probe)
    : options_(std::move(options)), cache_(std::move(cache)), probe_(std::move(probe)), pool_(std::make_unique<Pool>(options_)) {}

InferenceService::~InferenceService() { Stop(); }

void InferenceService::Stop() { pool_->Stop(); }

grpc::ServerUnaryReactor* InferenceService::Queue(grpc::CallbackServerContext* context, uint64_t bytes,
                                                  std::function<absl::Status()> call) {
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  absl::Status status = pool_->Add({bytes, std::move(call), context, reactor});
  if (!status.ok()) reactor->Finish(ToGrpc(status));
  return reactor;
}

grpc::ServerUnaryReactor* InferenceService::ServerLive(grpc::CallbackServerContext* context, const inference::ServerLiveRequest*,
                                                       inference::ServerLiveResponse* response) {
  response->set_live(true);
  return Finished(context, absl::OkStatus());
}

grpc::ServerUnaryReactor* InferenceService::ServerReady(grpc::CallbackServerContext* context, const inference::ServerReadyRequest*,
                                                        inference::ServerReadyResponse* response) {
  response->set_ready(!pool_->stopping());
  return Finished(context, absl::OkStatus());
}

grpc::ServerUnaryReactor* InferenceService::ServerMetadata(grpc::CallbackServerContext* context, const inference::ServerMetadataRequest*,
                                                           inference::ServerMetadataResponse* response) {
  response->set_name(options_.server_name);
  response->set_version(options_.server_version);
  return Finished(context, absl::OkStatus());
}

grpc::ServerUnaryReactor* InferenceService::ModelReady(grpc::CallbackServerContext* context, const inference::ModelReadyRequest* request,
                                                       inference::ModelReadyResponse* response) {
  return Queue(context, 0, [this, request, response] { return IsReady(cache_.get(), *request, response); });
}

grpc::ServerUnaryReactor* InferenceService::ModelMetadata(grpc::CallbackServerContext* context,
                                                          const inference::ModelMetadataRequest* request,
                                                          inference::ModelMetadataResponse* response) {
  return Queue(context, 0, [this, request, response] { return DescribeModel(cache_.get(), *request, response); });
}

grpc::ServerUnaryReactor* InferenceService::ModelInfer(grpc::CallbackServerContext* context, const inference::ModelInferRequest* request,
                                                       inference::ModelInferResponse* response) {
  const uint64_t bytes = request->ByteSizeLong();
  if (bytes > options_.request_bytes_max) {
    return Finished(context,
                    WithReason(absl::ResourceExhaustedError(absl::StrCat("a request of ", bytes, " bytes, at most ",
                                                                         options_.request_bytes_max, " are taken: send fewer rows")),
                               "REQUEST_TOO_LARGE"));
  }
  return Queue(context, bytes, [this, request, response] {
    const absl::Time begin = SteadyNow();
    int64_t rows = 0;
    const absl::Status status = Score(cache_.get(), *request, response, &rows);
    probe_.on_infer(absl::ToDoubleSeconds(SteadyNow() - begin), rows, status.ok());
    return status;
  });
}

}  // namespace ballast
