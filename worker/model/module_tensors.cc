#include "worker/model/module_tensors.h"

#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <map>
#include <set>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "worker/model/torch_convert.h"

namespace ballast {
namespace {

// A buffer may hold infinities from the start, as an attention mask does; a forward that makes one is broken.
bool FiniteOrAsBefore(absl::Span<const float> now, absl::Span<const float> before) {
  for (size_t i = 0; i < now.size(); ++i) {
    if (!std::isfinite(now[i]) && now[i] != before[i]) return false;
  }
  return true;
}

absl::Status Bad(absl::string_view what) { return absl::InvalidArgumentError(absl::StrCat("model: ", what)); }

// The values of one tensor where they lie, as a tensor of the store's dtype.
at::Tensor View(const ParameterStore& values, uint32_t tensor, const TensorSpec& spec) {
  if (spec.dtype == DType::kF32) return at::from_blob(const_cast<float*>(values.F32(tensor).data()), spec.shape, at::kFloat);
  return at::from_blob(const_cast<int64_t*>(values.I64(tensor).data()), spec.shape, at::kLong);
}

// Names in the module that the run does not know: training would leave them where the file has them.
absl::Status CheckComplete(const torch::jit::Module& module, const std::vector<TensorSpec>& tensors) {
  std::set<std::string> known;
  for (const TensorSpec& spec : tensors) {
    known.insert(spec.name);
    known.insert(spec.aliases.begin(), spec.aliases.end());
  }
  for (const auto& parameter : module.named_parameters()) {
    if (!known.contains(parameter.name)) return Bad(absl::StrCat("parameter ", parameter.name, " is not a tensor of the run"));
  }
  for (const auto& buffer : module.named_buffers()) {
    if (!known.contains(buffer.name)) return Bad(absl::StrCat("buffer ", buffer.name, " is not a tensor of the run"));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<ModuleTensors> ModuleTensors::Bind(const torch::jit::Module& module, const ModelDescription& description,
                                                  const std::vector<TensorSpec>& tensors) {
  if (description.tensors.size() != tensors.size()) {
    return Bad(absl::StrCat("it has ", description.tensors.size(), " tensors, the run ", tensors.size()));
  }
  if (absl::Status status = CheckComplete(module, tensors); !status.ok()) return status;
  ModuleTensors bound;
  bound.tensors_ = tensors;
  std::map<std::string, const ModelTensor*> described;
  for (const ModelTensor& tensor : description.tensors) described[tensor.name] = &tensor;
  for (uint32_t i = 0; i < tensors.size(); ++i) {
    const auto it = described.find(tensors[i].name);
    if (it == described.end()) return Bad(absl::StrCat("it has no tensor ", tensors[i].name));
    if (absl::Status status = bound.BindOne(module, *it->second, tensors[i], i); !status.ok()) return status;
  }
  return bound;
}

absl::StatusOr<ModuleTensors::Place> ModuleTensors::Resolve(const torch::jit::Module& module, const std::string& name) {
  torch::jit::Module owner = module;
  std::vector<std::string> path = absl::StrSplit(name, '.');
  for (size_t i = 0; i + 1 < path.size(); ++i) {
    if (!owner.hasattr(path[i]) || !owner.attr(path[i]).isModule()) return Bad(absl::StrCat("no tensor ", name, " in the archive"));
    owner = owner.attr(path[i]).toModule();
  }
  if (!owner.hasattr(path.back()) || !owner.attr(path.back()).isTensor()) return Bad(absl::StrCat("no tensor ", name, " in the archive"));
  return Place{std::move(owner), std::move(path.back())};
}

absl::Status ModuleTensors::BindOne(const torch::jit::Module& module, const ModelTensor& described, const TensorSpec& spec,
                                    uint32_t index) {
  std::vector<Place> places;
  std::vector<std::string> names = {spec.name};
  names.insert(names.end(), described.aliases.begin(), described.aliases.end());
  for (const std::string& name : names) {
    auto place = Resolve(module, name);
    if (!place.ok()) return place.status();
    places.push_back(*std::move(place));
  }
  const at::Tensor tensor = places.front().owner.attr(places.front().attribute).toTensor();
  const bool is_float = at::isFloatingType(tensor.scalar_type());
  if (tensor.sizes().vec() != spec.shape || is_float != (spec.dtype == DType::kF32) || NameOf(tensor.scalar_type()) != described.dtype) {
    return Bad(absl::StrCat(spec.name, " is ", NameOf(tensor.scalar_type()), "[", absl::StrJoin(tensor.sizes(), ","),
                            "] in the archive, described as ", described.dtype, "[", absl::StrJoin(spec.shape, ","), "]"));
  }
  // All names refer to one tensor, also where the archive held several over the same storage.
  for (Place& place : places) place.owner.setattr(place.attribute, tensor);
  const auto& type = places.front().owner.type();
  if (type->is_parameter(type->getAttributeSlot(places.front().attribute))) {
    const bool trained = spec.rule == UpdateRule::kOpt && described.requires_grad;
    if (trained && !tensor.requires_grad()) return Bad(absl::StrCat(spec.name, " has rule OPT and requires no gradient"));
    parameters_.push_back({index, tensor, trained});
    return absl::OkStatus();
  }
  if (spec.rule == UpdateRule::kOpt) return Bad(absl::StrCat(spec.name, " is a buffer: its rule cannot be OPT"));
  Buffer buffer;
  buffer.tensor = index;
  buffer.places = std::move(places);
  buffer.type = tensor.scalar_type();
  buffers_.push_back(std::move(buffer));
  return absl::OkStatus();
}

void ModuleTensors::Read(ParameterStore* out) const {
  at::NoGradGuard no_grad;
  const auto read = [&](uint32_t index, const at::Tensor& tensor) { View(*out, index, tensors_[index]).copy_(tensor.detach()); };
  for (const Parameter& parameter : parameters_) read(parameter.tensor, parameter.live);
  for (const Buffer& buffer : buffers_) read(buffer.tensor, buffer.Current());
}

void ModuleTensors::Use(std::shared_ptr<const ParameterStore> values) {
  at::NoGradGuard no_grad;
  values_ = std::move(values);
  parameter_versions_.clear();
  for (Parameter& parameter : parameters_) {
    const at::Tensor view = View(*values_, parameter.tensor, tensors_[parameter.tensor]);
    parameter.live.set_data(view.to(parameter.live.scalar_type()));  // a float32 parameter reads the store itself
    parameter_versions_.push_back(static_cast<uint32_t>(parameter.live._version()));
  }
}

void ModuleTensors::ResetBuffers() {
  at::NoGradGuard no_grad;
  for (Buffer& buffer : buffers_) {
    const at::Tensor fresh = View(*values_, buffer.tensor, tensors_[buffer.tensor]).to(buffer.type, /*non_blocking=*/false, /*copy=*/true);
    for (Place& place : buffer.places) place.owner.setattr(place.attribute, fresh);
  }
}

absl::Status ModuleTensors::CheckForward() const {
  for (size_t i = 0; i < parameters_.size(); ++i) {
    if (static_cast<uint32_t>(parameters_[i].live._version()) != parameter_versions_[i]) {
      return Bad(absl::StrCat("forward changes the parameter ", tensors_[parameters_[i].tensor].name, " in place"));
    }
  }
  for (const Buffer& buffer : buffers_) {
    const at::Tensor now = buffer.Current();
    const TensorSpec& spec = tensors_[buffer.tensor];
    if (now.sizes().vec() != spec.shape || at::isFloatingType(now.scalar_type()) != (spec.dtype == DType::kF32)) {
      return Bad(absl::StrCat("forward changes shape or dtype of the buffer ", spec.name));
    }
    if (spec.dtype == DType::kF32 && !FiniteOrAsBefore(SpanF32(DenseF32(now)), values_->F32(buffer.tensor))) {
      return Bad(absl::StrCat("forward makes the buffer ", spec.name, " infinite or NaN"));
    }
  }
  return absl::OkStatus();
}

void ModuleTensors::AccumulateF32(uint32_t rows, Buffer* buffer) const {
  const at::Tensor dense = DenseF32(buffer->Current());
  const auto now = SpanF32(dense);
  const auto before = values_->F32(buffer->tensor);
  const UpdateRule rule = tensors_[buffer->tensor].rule;
  buffer->changed |= now != before;
  buffer->sum_f64.resize(now.size());
  for (size_t i = 0; i < now.size(); ++i) {
    double& sum = buffer->sum_f64[i];
    if (rule == UpdateRule::kMean) sum += static_cast<double>(rows) * now[i];
    if (rule == UpdateRule::kSum && now[i] != before[i]) sum += static_cast<double>(now[i]) - before[i];
    if (rule == UpdateRule::kSet) sum = now[i];
  }
}

void ModuleTensors::AccumulateI64(Buffer* buffer) const {
  const at::Tensor dense = buffer->Current().to(at::kLong).contiguous();
  const absl::Span<const int64_t> now(dense.const_data_ptr<int64_t>(), static_cast<size_t>(dense.numel()));
  const auto before = values_->I64(buffer->tensor);
  const bool grows = tensors_[buffer->tensor].rule == UpdateRule::kSum;
  buffer->changed |= now != before;
  buffer->sum_i64.resize(now.size());
  for (size_t i = 0; i < now.size(); ++i) {
    // Unsigned: a counter that wraps is the module's business, not undefined behaviour of ours.
    const uint64_t growth = static_cast<uint64_t>(buffer->sum_i64[i]) + static_cast<uint64_t>(now[i]) - static_cast<uint64_t>(before[i]);
    buffer->sum_i64[i] = grows ? static_cast<int64_t>(growth) : now[i];
  }
}

void ModuleTensors::AccumulateBuffers(uint32_t rows) {
  for (Buffer& buffer : buffers_) {
    if (tensors_[buffer.tensor].dtype == DType::kF32) {
      AccumulateF32(rows, &buffer);
    } else {
      AccumulateI64(&buffer);
    }
  }
}

void ModuleTensors::ClearBuffers() {
  for (Buffer& buffer : buffers_) {
    std::fill(buffer.sum_f64.begin(), buffer.sum_f64.end(), 0.0);
    std::fill(buffer.sum_i64.begin(), buffer.sum_i64.end(), 0);
    buffer.changed = false;
  }
}

void ModuleTensors::DeliverBuffers(ContributionSink* sink) {
  for (Buffer& buffer : buffers_) {
    const TensorSpec& spec = tensors_[buffer.tensor];
    // What no batch changed needs no words, except for a mean: its weights are the rows of all batches.
    if (!buffer.changed && spec.rule != UpdateRule::kMean) continue;
    if (spec.dtype == DType::kF32) {
      buffer.delivered.assign(buffer.sum_f64.begin(), buffer.sum_f64.end());
      sink->OnF32(buffer.tensor, buffer.delivered);
    } else {
      sink->OnI64(buffer.tensor, buffer.sum_i64);
    }
  }
}

}  // namespace ballast
