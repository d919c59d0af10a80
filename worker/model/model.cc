#include "worker/model/model.h"

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/Parallel.h>
#include <caffe2/serialize/read_adapter_interface.h>
#include <torch/csrc/autograd/function_hook.h>
#include <torch/csrc/autograd/grad_mode.h>
#include <torch/csrc/autograd/variable.h>
#include <torch/csrc/jit/api/module.h>
#include <torch/csrc/jit/runtime/graph_executor.h>
#include <torch/csrc/jit/serialization/import.h>

#include <cmath>
#include <cstring>
#include <functional>
#include <mutex>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "worker/model/module_tensors.h"
#include "worker/model/torch_convert.h"

namespace ballast {
namespace {

constexpr char kDescriptionFile[] = "ballast.json";

// The archive's bytes for torch's reader, without a copy.
class ViewReader : public caffe2::serialize::ReadAdapterInterface {
 public:
  explicit ViewReader(std::string_view bytes) : bytes_(bytes) {}
  size_t size() const override { return bytes_.size(); }
  size_t read(uint64_t pos, void* buf, size_t n, const char* what) const override {
    TORCH_CHECK(pos <= bytes_.size() && n <= bytes_.size() - pos, "read past the end of the archive: ", what);
    std::memcpy(buf, bytes_.data() + pos, n);
    return n;
  }

 private:
  const std::string_view bytes_;
};

class GradientHook : public torch::autograd::PostAccumulateGradHook {
 public:
  explicit GradientHook(std::function<void()> call) : call_(std::move(call)) {}
  void operator()(const at::Tensor&) override { call_(); }

 private:
  const std::function<void()> call_;
};

void Seed(uint64_t seed) {
  at::Generator generator = at::detail::getDefaultCPUGenerator();
  const std::lock_guard<std::mutex> lock(generator.mutex());
  generator.set_current_seed(seed);
}

// Elementwise losses [rows, ...] as their mean in each row.
at::Tensor MeanOfRows(const at::Tensor& losses) { return losses.dim() <= 1 ? losses : losses.flatten(1).mean(1); }

}  // namespace

class Model::Impl {
 public:
  absl::Status Load(std::string_view archive, absl::Span<const TensorSpec> tensors);
  absl::Status BeginContribution(std::shared_ptr<const ParameterStore> values);
  absl::StatusOr<double> TrainBatch(const BatchView& batch, uint64_t seed, ContributionSink* last_sink);
  absl::Status FinishContribution(ContributionSink* sink);
  absl::Status SetInferValues(std::shared_ptr<const ParameterStore> values);
  absl::StatusOr<std::vector<OutputTensor>> Infer(const BatchView& batch);
  absl::Status InitialValues(ParameterStore* out) const;

  const ModelDescription& description() const { return description_; }
  const std::vector<TensorSpec>& tensors() const { return tensors_; }

 private:
  struct Gradient {
    at::Tensor sum;    // over the batches that succeeded; undefined: none had a gradient
    at::Tensor batch;  // of the batch in work, dense; where it is the last one: with `sum` in it, handed over already
    bool delivered = false;
  };

  absl::Status CheckStore(const ParameterStore& values) const;
  absl::StatusOr<std::vector<c10::IValue>> Arguments(const BatchView& batch) const;
  absl::StatusOr<at::Tensor> RowLosses(const BatchView& batch);
  absl::StatusOr<at::Tensor> BuiltInLosses(const BatchView& batch, std::vector<c10::IValue> arguments);
  absl::StatusOr<double> ForwardBackward(const BatchView& batch, uint64_t seed);
  void OnGradient(size_t parameter);  // inside backward
  absl::Status CollectGradients();    // after it
  void DropBatch();

  torch::jit::Module module_;
  ModelDescription description_;
  std::vector<TensorSpec> tensors_;
  ModuleTensors bound_;

  std::vector<Gradient> gradients_;     // by index into bound_.parameters()
  std::vector<at::Tensor> handed_out_;  // of a last batch that failed: the sink may still read them
  ContributionSink* sink_ = nullptr;    // during a last batch
  absl::Status backward_;               // what OnGradient found
  uint64_t batches_ = 0;                // in the contribution
  bool last_done_ = false;
};

absl::Status Model::Impl::Load(std::string_view archive, absl::Span<const TensorSpec> tensors) {
  torch::jit::ExtraFilesMap extra = {{kDescriptionFile, ""}};
  module_ = torch::jit::load(std::make_shared<ViewReader>(archive), at::kCPU, extra);
  if (extra[kDescriptionFile].empty())
    return absl::InvalidArgumentError("model: no description in the archive: make it with ballast.export");
  auto description = ParseDescription(extra[kDescriptionFile]);
  if (!description.ok()) return description.status();
  description_ = *std::move(description);
  if (const std::string method = description_.LossMethod(); !method.empty() && !module_.find_method(method).has_value()) {
    return absl::InvalidArgumentError(absl::StrCat("model: the archive has no method ", method));
  }
  tensors_ = tensors.empty() ? ToTensorSpecs(description_) : std::vector<TensorSpec>(tensors.begin(), tensors.end());
  auto bound = ModuleTensors::Bind(module_, description_, tensors_);
  if (!bound.ok()) return bound.status();
  bound_ = *std::move(bound);
  gradients_.resize(bound_.parameters().size());
  for (size_t i = 0; i < gradients_.size(); ++i) {
    const ModuleTensors::Parameter& parameter = bound_.parameters()[i];
    if (!parameter.trained) {
      parameter.live.requires_grad_(false);
      continue;
    }
    torch::autograd::impl::set_post_acc_grad_hooks(parameter.live, std::make_unique<GradientHook>([this, i] { OnGradient(i); }));
  }
  return absl::OkStatus();
}

absl::Status Model::Impl::CheckStore(const ParameterStore& values) const {
  bool fits = values.tensors() == tensors_.size();
  for (size_t i = 0; fits && i < tensors_.size(); ++i)
    fits = values.dtype(i) == tensors_[i].dtype && values.elements(i) == tensors_[i].Elements();
  return fits ? absl::OkStatus() : absl::InvalidArgumentError("model: the values are not those of the run's tensors");
}

absl::Status Model::Impl::InitialValues(ParameterStore* out) const {
  if (bound_.in_use()) return absl::FailedPreconditionError("model: its initial values are gone, load it again");
  if (absl::Status status = CheckStore(*out); !status.ok()) return status;
  bound_.Read(out);
  return absl::OkStatus();
}

absl::Status Model::Impl::BeginContribution(std::shared_ptr<const ParameterStore> values) {
  if (absl::Status status = CheckStore(*values); !status.ok()) return status;
  DropBatch();
  for (Gradient& gradient : gradients_) gradient = Gradient{};
  handed_out_.clear();
  bound_.ClearBuffers();
  bound_.Use(std::move(values));
  module_.train();
  batches_ = 0;
  last_done_ = false;
  return absl::OkStatus();
}

absl::StatusOr<std::vector<c10::IValue>> Model::Impl::Arguments(const BatchView& batch) const {
  if (batch.rows == 0) return absl::InvalidArgumentError("a batch of no rows");
  std::vector<c10::IValue> arguments;
  for (const ColumnSpec& spec : description_.inputs) {
    auto tensor = ColumnTensor(batch, spec);
    if (!tensor.ok()) return tensor.status();
    arguments.emplace_back(*std::move(tensor));
  }
  return arguments;
}

absl::StatusOr<at::Tensor> Model::Impl::BuiltInLosses(const BatchView& batch, std::vector<c10::IValue> arguments) {
  auto label = ColumnTensor(batch, *description_.label);
  if (!label.ok()) return label.status();
  auto outputs = OutputTensors(module_.forward(std::move(arguments)), description_.outputs);
  if (!outputs.ok()) return outputs.status();
  const at::Tensor& prediction = outputs->front();
  if (description_.loss == "cross_entropy") {
    return MeanOfRows(at::cross_entropy_loss(prediction, label->to(at::kLong), /*weight=*/{}, at::Reduction::None));
  }
  // A label of [rows] beside a prediction of [rows, 1] would broadcast to [rows, rows].
  const at::Tensor target = label->to(prediction.scalar_type()).reshape(prediction.sizes());
  if (description_.loss == "bce_with_logits") {
    return MeanOfRows(at::binary_cross_entropy_with_logits(prediction, target, /*weight=*/{}, /*pos_weight=*/{}, at::Reduction::None));
  }
  return MeanOfRows(at::mse_loss(prediction, target, at::Reduction::None));
}

absl::StatusOr<at::Tensor> Model::Impl::RowLosses(const BatchView& batch) {
  auto arguments = Arguments(batch);
  if (!arguments.ok()) return arguments.status();
  at::Tensor losses;
  if (const std::string method = description_.LossMethod(); !method.empty()) {
    if (description_.label.has_value()) {
      auto label = ColumnTensor(batch, *description_.label);
      if (!label.ok()) return label.status();
      arguments->emplace_back(*std::move(label));
    }
    const c10::IValue result = module_.get_method(method)(*std::move(arguments));
    if (!result.isTensor())
      return absl::InvalidArgumentError(absl::StrCat("loss method ", method, " returned ", result.tagKind(), ", not a tensor"));
    losses = result.toTensor();
  } else {
    auto computed = BuiltInLosses(batch, *std::move(arguments));
    if (!computed.ok()) return computed.status();
    losses = *std::move(computed);
  }
  if (losses.dim() != 1 || losses.size(0) != batch.rows) {
    return absl::InvalidArgumentError(
        absl::StrCat("the loss has shape [", absl::StrJoin(losses.sizes(), ","), "], it must be one per row: [", batch.rows, "]"));
  }
  return losses;
}

absl::StatusOr<double> Model::Impl::ForwardBackward(const BatchView& batch, uint64_t seed) {
  // Optimised graphs differentiate by formulas of their own: slower in the first calls and not eager's bits.
  torch::jit::GraphOptimizerEnabledGuard unoptimized(false);
  at::AutoGradMode grad(true);
  bound_.ResetBuffers();
  Seed(seed);
  auto losses = RowLosses(batch);
  if (!losses.ok()) return losses.status();
  const double loss_sum = losses->detach().sum(at::kDouble).item<double>();
  if (!std::isfinite(loss_sum)) return absl::InvalidArgumentError(absl::StrCat("the loss is not finite: ", loss_sum));
  if (absl::Status status = bound_.CheckForward(); !status.ok()) return status;
  if (losses->requires_grad()) losses->sum().backward();  // false: nothing in this model is trained by gradients
  if (absl::Status status = CollectGradients(); !status.ok()) return status;
  return loss_sum;
}

void Model::Impl::OnGradient(size_t parameter) {
  if (sink_ == nullptr || !backward_.ok()) return;
  at::NoGradGuard no_grad;
  Gradient& gradient = gradients_[parameter];
  const ModuleTensors::Parameter& bound = bound_.parameters()[parameter];
  gradient.batch = DenseF32(bound.live.grad());
  if (!AllFinite(SpanF32(gradient.batch))) {
    backward_ = absl::InvalidArgumentError(absl::StrCat("the gradient of ", tensors_[bound.tensor].name, " is infinite or NaN"));
    gradient.batch = at::Tensor();
    return;
  }
  if (gradient.sum.defined()) gradient.batch.add_(gradient.sum);
  sink_->OnF32(bound.tensor, SpanF32(gradient.batch));
}

absl::Status Model::Impl::CollectGradients() {
  if (!backward_.ok()) return backward_;
  at::NoGradGuard no_grad;
  for (size_t i = 0; sink_ == nullptr && i < gradients_.size(); ++i) {
    const at::Tensor& grad = bound_.parameters()[i].live.grad();
    if (!grad.defined()) continue;
    gradients_[i].batch = DenseF32(grad);
    if (AllFinite(SpanF32(gradients_[i].batch))) continue;
    return absl::InvalidArgumentError(
        absl::StrCat("the gradient of ", tensors_[bound_.parameters()[i].tensor].name, " is infinite or NaN"));
  }
  for (Gradient& gradient : gradients_) {  // nothing fails from here on
    if (!gradient.batch.defined()) continue;
    if (sink_ == nullptr && gradient.sum.defined()) {
      gradient.sum.add_(gradient.batch);
    } else {
      gradient.sum = gradient.batch;
    }
    gradient.delivered = sink_ != nullptr;
  }
  return absl::OkStatus();
}

void Model::Impl::DropBatch() {
  for (size_t i = 0; i < gradients_.size(); ++i) {
    bound_.parameters()[i].live.mutable_grad().reset();
    gradients_[i].batch = at::Tensor();
  }
}

absl::StatusOr<double> Model::Impl::TrainBatch(const BatchView& batch, uint64_t seed, ContributionSink* last_sink) {
  if (!bound_.in_use() || last_done_) return absl::FailedPreconditionError("model: TrainBatch outside of a contribution");
  sink_ = last_sink;
  backward_ = absl::OkStatus();
  absl::StatusOr<double> loss_sum = absl::InternalError("");
  try {
    loss_sum = ForwardBackward(batch, seed);
  } catch (const std::exception& e) {
    loss_sum = TorchStatus(e);
  }
  sink_ = nullptr;
  if (loss_sum.ok()) {
    bound_.AccumulateBuffers(batch.rows);
    ++batches_;
    last_done_ = last_sink != nullptr;
  } else {
    for (const Gradient& gradient : gradients_) {
      if (gradient.batch.defined()) handed_out_.push_back(gradient.batch);
    }
  }
  DropBatch();
  return loss_sum;
}

absl::Status Model::Impl::FinishContribution(ContributionSink* sink) {
  if (batches_ == 0) return absl::FailedPreconditionError("model: a contribution without a batch");
  for (size_t i = 0; i < gradients_.size(); ++i) {
    Gradient& gradient = gradients_[i];
    if (gradient.sum.defined() && !gradient.delivered) sink->OnF32(bound_.parameters()[i].tensor, SpanF32(gradient.sum));
    gradient.delivered = true;
  }
  bound_.DeliverBuffers(sink);
  last_done_ = true;
  return absl::OkStatus();
}

absl::Status Model::Impl::SetInferValues(std::shared_ptr<const ParameterStore> values) {
  if (absl::Status status = CheckStore(*values); !status.ok()) return status;
  bound_.Use(std::move(values));
  module_.eval();
  return absl::OkStatus();
}

absl::StatusOr<std::vector<OutputTensor>> Model::Impl::Infer(const BatchView& batch) {
  if (!bound_.in_use() || module_.is_training()) return absl::FailedPreconditionError("model: Infer before SetInferValues");
  torch::jit::GraphOptimizerEnabledGuard unoptimized(false);
  at::NoGradGuard no_grad;
  bound_.ResetBuffers();
  auto arguments = Arguments(batch);
  if (!arguments.ok()) return arguments.status();
  auto tensors = OutputTensors(module_.forward(*std::move(arguments)), description_.outputs);
  if (!tensors.ok()) return tensors.status();
  std::vector<OutputTensor> outputs;
  for (size_t i = 0; i < tensors->size(); ++i) outputs.push_back(ToBytes(description_.outputs[i], (*tensors)[i]));
  return outputs;
}

// The public face: torch's exceptions end here.
namespace {
template <typename Call>
auto Guarded(Call call) -> decltype(call()) {
  try {
    return call();
  } catch (const std::exception& e) {
    return TorchStatus(e);
  }
}
}  // namespace

Model::Model(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Model::~Model() = default;

absl::StatusOr<std::unique_ptr<Model>> Model::Load(std::string_view archive, absl::Span<const TensorSpec> tensors) {
  auto impl = std::make_unique<Impl>();
  if (absl::Status status = Guarded([&] { return impl->Load(archive, tensors); }); !status.ok()) return status;
  return std::unique_ptr<Model>(new Model(std::move(impl)));
}

const ModelDescription& Model::description() const { return impl_->description(); }
const std::vector<TensorSpec>& Model::tensors() const { return impl_->tensors(); }

absl::Status Model::InitialValues(ParameterStore* out) const {
  return Guarded([&] { return impl_->InitialValues(out); });
}

absl::Status Model::BeginContribution(std::shared_ptr<const ParameterStore> values) {
  return Guarded([&] { return impl_->BeginContribution(std::move(values)); });
}

absl::StatusOr<double> Model::TrainBatch(const BatchView& batch, uint64_t seed, ContributionSink* last_sink) {
  return impl_->TrainBatch(batch, seed, last_sink);
}

absl::Status Model::FinishContribution(ContributionSink* sink) {
  return Guarded([&] { return impl_->FinishContribution(sink); });
}

absl::Status Model::SetInferValues(std::shared_ptr<const ParameterStore> values) {
  return Guarded([&] { return impl_->SetInferValues(std::move(values)); });
}

absl::StatusOr<std::vector<OutputTensor>> Model::Infer(const BatchView& batch) {
  return Guarded([&] { return impl_->Infer(batch); });
}

void SetComputeThreads(int threads) { at::set_num_threads(threads); }

}  // namespace ballast
