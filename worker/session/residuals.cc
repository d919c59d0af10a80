#include "worker/session/residuals.h"

#include <algorithm>
#include <cmath>
#include <iterator>
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

absl::Span<float> Residuals::Of(size_t block) {
  const Block& b = layout_[block];
  return {tensors_[b.tensor].data() + b.first, b.count};
}

void Residuals::Begin(const Uid& uid) {
  absl::MutexLock lock(&mu_);
  in_flight_.push_back({uid, {}, false});
}

void Residuals::Encode(size_t block, absl::Span<const float> grad, absl::Span<char> out) {
  if (!lossy_) {
    ballast::Encode(codec_, grad, out);
    return;
  }
  absl::MutexLock lock(&mu_);
  const absl::Span<float> residual = Of(block);
  in_flight_.back().before.emplace(block, std::vector<float>(residual.begin(), residual.end()));
  EncodeWithResidual(codec_, grad, residual, out);
  norm2_[block] = SumOfSquares(residual);
}

void Residuals::Settle(const Uid& uid) {
  absl::MutexLock lock(&mu_);
  for (Contribution& contribution : in_flight_) contribution.settled |= contribution.uid == uid;
  DropSettled();
}

// One that is settled behind others that are not must stay: what it found is what the one before it left, and Undo of that one needs it.
// Of several in a row the first says it; so there are never more of them than contributions in flight.
void Residuals::DropSettled() {
  for (auto it = in_flight_.begin(); it != in_flight_.end();) {
    const bool first = it == in_flight_.begin();
    if (!it->settled || !(first || std::prev(it)->settled)) {
      ++it;
      continue;
    }
    if (!first) std::prev(it)->before.merge(it->before);  // keeps what is there: the older values
    it = in_flight_.erase(it);
  }
}

// With `before` of the contribution and `after` = what the next one that touched the block found: everything later is moved by
// before - after. Without a later one the block simply gets its old values back, bit for bit.
void Residuals::Undo(const Uid& uid) {
  absl::MutexLock lock(&mu_);
  const auto undone = std::find_if(in_flight_.begin(), in_flight_.end(), [&](const Contribution& c) { return c.uid == uid && !c.settled; });
  if (undone == in_flight_.end()) return;
  for (auto& [block, before] : undone->before) {
    const absl::Span<float> now = Of(block);
    std::vector<absl::Span<float>> later;
    for (auto next = std::next(undone); next != in_flight_.end(); ++next) {
      if (const auto found = next->before.find(block); found != next->before.end()) later.push_back(absl::MakeSpan(found->second));
    }
    if (later.empty()) {
      std::copy(before.begin(), before.end(), now.begin());
    } else {
      for (size_t i = 0; i < before.size(); ++i) {
        const float moved = before[i] - later.front()[i];
        for (const absl::Span<float> values : later) values[i] += moved;
        now[i] += moved;
      }
    }
    norm2_[block] = SumOfSquares(now);
  }
  in_flight_.erase(undone);
  DropSettled();
}

void Residuals::Reset() {
  absl::MutexLock lock(&mu_);
  in_flight_.clear();
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
