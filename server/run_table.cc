#include "server/run_table.h"

#include <utility>

namespace ballast {

RunTable::~RunTable() {
  for (const std::string& name : Names()) Close(name);
}

void RunTable::Add(OpenRun run) {
  auto entry = std::make_unique<Entry>();
  entry->run = std::move(run);
  entry->handle = std::shared_ptr<OpenRun>(&entry->run, [released = &entry->released](OpenRun*) { released->Notify(); });
  std::string name = entry->run.spec.name;
  absl::MutexLock lock(&mu_);
  runs_.emplace(std::move(name), std::move(entry));
}

std::shared_ptr<OpenRun> RunTable::Find(absl::string_view name) const {
  absl::MutexLock lock(&mu_);
  const auto it = runs_.find(name);
  return it == runs_.end() ? nullptr : it->second->handle;
}

std::vector<std::string> RunTable::Names() const {
  absl::MutexLock lock(&mu_);
  std::vector<std::string> names;
  for (const auto& [name, entry] : runs_) names.push_back(name);
  return names;
}

void RunTable::Close(absl::string_view name) {
  std::unique_ptr<Entry> entry;
  {
    absl::MutexLock lock(&mu_);
    const auto it = runs_.find(name);
    if (it == runs_.end()) return;
    entry = std::move(it->second);
    runs_.erase(it);
  }
  entry->handle.reset();
  entry->released.WaitForNotification();
  entry->run.shard.reset();
}

}  // namespace ballast
