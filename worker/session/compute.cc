#include "worker/session/compute.h"

#include <utility>

#include "core/record/hash.h"

namespace ballast {
namespace {

BatchView ViewOf(const RowBatch& rows) {
  BatchView view;
  view.rows = rows.batch.rows;
  view.columns.reserve(rows.columns.size());
  for (const auto& [name, data] : rows.columns) view.columns.push_back({name, data});
  return view;
}

}  // namespace

uint64_t BatchSeed(uint64_t run_seed, const BatchId& id) {
  return Hasher().AddU64(run_seed).AddU64(id.epoch).AddU64(id.partition).AddU64(id.seq).Value();
}

Compute::Compute(Options options) : options_(std::move(options)) {
  thread_ = std::thread([this] { Loop(); });
}

Compute::~Compute() {
  {
    absl::MutexLock lock(&mu_);
    stop_ = true;
  }
  thread_.join();
}

void Compute::Run(ComputeJob job) {
  absl::MutexLock lock(&mu_);
  job_ = std::move(job);
}

void Compute::Loop() {
  absl::StatusOr<std::unique_ptr<Model>> model = options_.load();
  if (model.ok()) model_ = *std::move(model);
  options_.loaded(model.status());
  while (true) {
    ComputeJob job;
    {
      const auto due = [this]() ABSL_NO_THREAD_SAFETY_ANALYSIS { return stop_ || job_.has_value(); };
      absl::MutexLock lock(&mu_);
      mu_.Await(absl::Condition(&due));
      if (stop_) return;
      job = *std::exchange(job_, std::nullopt);
    }
    options_.done(Do(job));
  }
}

ComputeResult Compute::Do(const ComputeJob& job) {
  ComputeResult result;
  if (model_ == nullptr) {
    result.status = absl::FailedPreconditionError("the model is not loaded");
    return result;
  }
  return job.initial ? Initial(job) : Train(job);
}

ComputeResult Compute::Initial(const ComputeJob& job) {
  ComputeResult result;
  ParameterStore values(options_.spec->tensors);
  result.status = options_.initial(*model_, &values);
  if (!result.status.ok()) return result;
  ContributionEncoder* encoder = options_.encoder;
  encoder->Begin(job.finish, /*exact=*/true);
  for (uint32_t i = 0; i < values.tensors(); ++i) {
    if (values.dtype(i) == DType::kI64) {
      encoder->OnI64(i, values.I64(i));
    } else {
      encoder->OnF32(i, values.F32(i));
    }
  }
  encoder->Finish();
  return result;
}

ComputeResult Compute::Train(const ComputeJob& job) {
  ComputeResult result;
  ContributionEncoder* encoder = options_.encoder;
  if (job.begin != nullptr) result.status = model_->BeginContribution(job.begin);
  if (job.finish != nullptr) encoder->Begin(job.finish, /*exact=*/false);
  if (result.status.ok() && job.batch != nullptr) {
    const absl::StatusOr<double> loss = model_->TrainBatch(ViewOf(*job.batch), BatchSeed(options_.spec->seed, job.batch->batch.id),
                                                           job.finish == nullptr ? nullptr : encoder);
    result.status = loss.status();
    if (loss.ok()) result.loss_sum = *loss;
  }
  if (job.finish == nullptr) return result;
  if (result.status.ok()) result.finish = model_->FinishContribution(encoder);
  if (!result.status.ok() || !result.finish.ok()) {
    encoder->Abandon();
    result.given_up = true;
    return result;
  }
  encoder->Finish();
  result.residual_norm = options_.residuals->Norm();
  return result;
}

}  // namespace ballast
