#include "server/storage/memory_store.h"

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

namespace ballast {

class MemoryBulk : public Store::Bulk {
 public:
  explicit MemoryBulk(MemoryStore* store) : store_(store) {}
  absl::Status Add(absl::string_view key, absl::string_view value) override {
    if (!entries_.empty() && entries_.rbegin()->first >= key)
      return absl::InvalidArgumentError(absl::StrCat("bulk keys must ascend: ", key));
    entries_.emplace(std::string(key), std::string(value));
    return absl::OkStatus();
  }
  absl::Status Finish() override {
    absl::MutexLock lock(&store_->mu_);
    for (auto& [key, value] : entries_) store_->entries_[key] = std::move(value);
    return absl::OkStatus();
  }

 private:
  MemoryStore* const store_;
  std::map<std::string, std::string> entries_;
};

absl::Status MemoryStore::Put(absl::string_view key, absl::string_view value) {
  absl::MutexLock lock(&mu_);
  entries_[std::string(key)] = std::string(value);
  return absl::OkStatus();
}

absl::StatusOr<std::string> MemoryStore::Get(absl::string_view key) {
  absl::MutexLock lock(&mu_);
  const auto it = entries_.find(std::string(key));
  if (it == entries_.end()) return absl::NotFoundError(absl::StrCat("no record ", key));
  return it->second;
}

absl::Status MemoryStore::Delete(absl::string_view key) {
  absl::MutexLock lock(&mu_);
  entries_.erase(std::string(key));
  return absl::OkStatus();
}

absl::Status MemoryStore::DeletePrefix(absl::string_view prefix) {
  absl::MutexLock lock(&mu_);
  auto it = entries_.lower_bound(std::string(prefix));
  while (it != entries_.end() && absl::StartsWith(it->first, prefix)) it = entries_.erase(it);
  return absl::OkStatus();
}

absl::Status MemoryStore::Scan(absl::string_view prefix, const std::function<bool(absl::string_view, absl::string_view)>& visit) {
  std::map<std::string, std::string> found;  // a copy: `visit` may call back
  {
    absl::MutexLock lock(&mu_);
    for (auto it = entries_.lower_bound(std::string(prefix)); it != entries_.end() && absl::StartsWith(it->first, prefix); ++it)
      found.insert(*it);
  }
  for (const auto& [key, value] : found) {
    if (!visit(key, value)) break;
  }
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<Store::Bulk>> MemoryStore::NewBulk() { return std::unique_ptr<Bulk>(new MemoryBulk(this)); }

}  // namespace ballast
