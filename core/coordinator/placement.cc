#include <algorithm>
#include <tuple>

#include "core/coordinator/coordinator.h"

namespace ballast {

int PlaceFeed(absl::Span<const WorkerLoad> workers, absl::Span<const std::string> avoid) {
  const auto rank = [&](const WorkerLoad& w) {
    const bool avoided = std::find(avoid.begin(), avoid.end(), w.address) != avoid.end();
    return std::make_tuple(avoided, w.run_feeds, w.feeds, w.name);
  };
  const auto best =
      std::min_element(workers.begin(), workers.end(), [&](const WorkerLoad& a, const WorkerLoad& b) { return rank(a) < rank(b); });
  return best == workers.end() ? -1 : static_cast<int>(best - workers.begin());
}

}  // namespace ballast
