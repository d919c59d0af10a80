#include "server/shard/publisher.h"

#include <algorithm>
#include <set>
#include <utility>
#include <vector>

namespace ballast {

uint64_t Publisher::Pull(uint64_t min_version, Codec codec, Ready ready) {
  min_version = std::max<uint64_t>(min_version, 1);
  std::shared_ptr<const Encoding> encoding;
  uint64_t id = 0;
  bool answer = true, wake = false;
  {
    absl::MutexLock lock(&mu_);
    const auto it = encodings_.find(codec);
    if (version_ >= min_version && it != encodings_.end()) {
      encoding = it->second;
    } else if (!closed_) {
      answer = false;
      id = next_id_++;
      parked_[id] = {min_version, codec, std::move(ready)};
      wake = version_ >= min_version;
    }
  }
  if (answer) ready(std::move(encoding));
  if (wake) wake_();
  return id;
}

void Publisher::Cancel(uint64_t id) {
  absl::MutexLock lock(&mu_);
  parked_.erase(id);
}

void Publisher::Close() {
  std::map<uint64_t, Parked> parked;
  {
    absl::MutexLock lock(&mu_);
    closed_ = true;
    parked.swap(parked_);
  }
  for (const auto& [id, pull] : parked) pull.ready(nullptr);
}

void Publisher::Serve(uint64_t version, absl::FunctionRef<std::shared_ptr<const Encoding>(Codec)> encode) {
  std::set<Codec> wanted;
  {
    absl::MutexLock lock(&mu_);
    if (version != version_) encodings_.clear();
    version_ = version;
    for (const auto& [id, parked] : parked_) {
      if (parked.min_version <= version && !encodings_.contains(parked.codec)) wanted.insert(parked.codec);
    }
  }
  std::map<Codec, std::shared_ptr<const Encoding>> made;
  for (Codec codec : wanted) made[codec] = encode(codec);

  std::vector<std::pair<Ready, std::shared_ptr<const Encoding>>> ready;
  {
    absl::MutexLock lock(&mu_);
    encodings_.merge(made);
    for (auto it = parked_.begin(); it != parked_.end();) {
      const auto encoding = encodings_.find(it->second.codec);
      if (it->second.min_version > version || encoding == encodings_.end()) {  // the latter: came while we encoded, and woke the owner
        ++it;
        continue;
      }
      ready.emplace_back(std::move(it->second.ready), encoding->second);
      it = parked_.erase(it);
    }
  }
  for (auto& [call, encoding] : ready) call(std::move(encoding));
}

}  // namespace ballast
