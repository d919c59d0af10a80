#include "worker/session/residuals.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>

#include "core/codec/codec.h"

namespace ballast {

Residuals::Residuals(const RunSpec& spec, const Layout& layout)
    : codec_(spec.push_codec),
      lossy_(spec.push_codec != Codec::kFp32),
      layout_(layout),
      tensors_(spec.tensors.size()),
      norm2_(layout.size(), 0.0) {
  if (!lossy_) return;
  for (size_t i = 0; i < spec.tensors.size(); ++i) {
    if (spec.tensors[i].rule == UpdateRule::kOpt) tensors_[i].assign(spec.tensors[i].Elements(), 0.0f);
  }
}

void Residuals::BeginContribution() {
  absl::MutexLock lock(&mu_);
  undo_.clear();
}

void Residuals::Encode(size_t block, absl::Span<const float> grad, absl::Span<char> out) {
  if (!lossy_) {
    ballast::Encode(codec_, grad, out);
    return;
  }
  absl::MutexLock lock(&mu_);
  const Block& b = layout_[block];
  const absl::Span<float> residual(tensors_[b.tensor].data() + b.first, b.count);
  undo_.push_back({block, std::vector<float>(residual.begin(), residual.end()), norm2_[block]});
  EncodeWithResidual(codec_, grad, residual, out);
  norm2_[block] = SumOfSquares(residual);
}

void Residuals::Undo() {
  absl::MutexLock lock(&mu_);
  for (const Saved& saved : undo_) {
    const Block& b = layout_[saved.block];
    std::copy(saved.values.begin(), saved.values.end(), tensors_[b.tensor].begin() + static_cast<int64_t>(b.first));
    norm2_[saved.block] = saved.norm2;
  }
  undo_.clear();
}

void Residuals::Reset() {
  absl::MutexLock lock(&mu_);
  undo_.clear();
  for (std::vector<float>& tensor : tensors_) std::fill(tensor.begin(), tensor.end(), 0.0f);
  std::fill(norm2_.begin(), norm2_.end(), 0.0);
}

double Residuals::Norm() const {
  absl::MutexLock lock(&mu_);
  return std::sqrt(std::accumulate(norm2_.begin(), norm2_.end(), 0.0));
}

uint64_t Residuals::Read(uint32_t tensor, uint64_t first, absl::Span<float> out) const {
  absl::MutexLock lock(&mu_);
  const std::vector<float>& values = tensors_[tensor];
  if (first >= values.size()) return 0;
  const uint64_t count = std::min<uint64_t>(out.size(), values.size() - first);
  std::copy_n(values.begin() + static_cast<int64_t>(first), count, out.begin());
  return count;
}

uint64_t Residuals::Elements(uint32_t tensor) const {
  absl::MutexLock lock(&mu_);
  return tensors_[tensor].size();
}

}  // namespace ballast
