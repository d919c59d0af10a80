#include "server/shard/decision_index.h"

#include <algorithm>
#include <utility>

#include "core/record/decision.h"

namespace ballast {
namespace {

constexpr size_t kRecent = 64;  // far more than can be decided and not yet written

}  // namespace

void DecisionIndex::Add(std::shared_ptr<const Decision> decision, const LogPosition& at) {
  absl::MutexLock lock(&mu_);
  if (places_.empty()) first_ = decision->index;
  places_.push_back(at);
  recent_.push_back(std::move(decision));
  if (recent_.size() > kRecent) recent_.pop_front();
}

uint64_t DecisionIndex::last() const {
  absl::MutexLock lock(&mu_);
  return places_.empty() ? 0 : first_ + places_.size() - 1;
}

absl::StatusOr<std::vector<std::shared_ptr<const Decision>>> DecisionIndex::Read(uint64_t first, uint64_t last) const {
  std::vector<LogPosition> places;
  std::vector<std::shared_ptr<const Decision>> out, recent;
  {
    absl::MutexLock lock(&mu_);
    if (places_.empty()) return out;
    first = std::max(first, first_);
    last = std::min(last, first_ + places_.size() - 1);
    const uint64_t recent_from = first_ + places_.size() - recent_.size();
    for (uint64_t index = first; index <= last; ++index) {
      if (index < recent_from) {
        places.push_back(places_[index - first_]);
      } else {
        recent.push_back(recent_[index - recent_from]);
      }
    }
  }
  for (const LogPosition& at : places) {
    absl::StatusOr<std::string> body = ReadRecordAt(dir_, at, RecordKind::kDecision);
    if (!body.ok()) {
      bool cut;
      {
        absl::MutexLock lock(&mu_);
        cut = places_.empty() || at.segment < places_.front().segment;
      }
      if (cut) continue;  // meanwhile
      return body.status();
    }
    absl::StatusOr<Decision> decision = ParseDecision(*body);
    if (!decision.ok()) return decision.status();
    out.push_back(std::make_shared<const Decision>(*std::move(decision)));
  }
  out.insert(out.end(), recent.begin(), recent.end());
  return out;
}

uint64_t DecisionIndex::SegmentOf(uint64_t index) const {
  absl::MutexLock lock(&mu_);
  if (places_.empty() || index < first_) return 0;
  return places_[std::min<uint64_t>(index - first_, places_.size() - 1)].segment;
}

uint64_t DecisionIndex::SequenceOf(uint64_t index) const {
  absl::MutexLock lock(&mu_);
  if (index < first_ || index - first_ >= places_.size()) return 0;
  return places_[index - first_].sequence;
}

void DecisionIndex::CutBelowSegment(uint64_t segment) {
  absl::MutexLock lock(&mu_);
  // The last one stays: it says where the order of decisions stands.
  while (places_.size() > 1 && places_.front().segment < segment) {
    places_.pop_front();
    ++first_;
  }
}

}  // namespace ballast
