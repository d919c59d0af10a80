// A loop over independent tasks on a few threads.
#ifndef BALLAST_TOOLS_NGRAM_PARALLEL_H_
#define BALLAST_TOOLS_NGRAM_PARALLEL_H_

#include <atomic>
#include <thread>
#include <vector>

#include "absl/status/status.h"

namespace ballast::ngram {

// Runs task(0) ... task(tasks - 1), `threads` at once. The first error stops what has not begun and is returned.
template <typename Task>
absl::Status ForEachInParallel(size_t tasks, size_t threads, const Task& task) {
  std::atomic<size_t> next{0};
  std::vector<absl::Status> statuses(threads);
  const auto work = [&](size_t thread) {
    for (size_t i = next++; i < tasks; i = next++) {
      statuses[thread] = task(i);
      if (!statuses[thread].ok()) next = tasks;
    }
  };
  std::vector<std::thread> others;
  for (size_t thread = 1; thread < threads; ++thread) others.emplace_back(work, thread);
  work(0);
  for (std::thread& other : others) other.join();
  for (const absl::Status& status : statuses) {
    if (!status.ok()) return status;
  }
  return absl::OkStatus();
}

}  // namespace ballast::ngram

#endif  // BALLAST_TOOLS_NGRAM_PARALLEL_H_
