#include "server/coordinator/worker_registry.h"

#include <algorithm>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "core/status.h"
#include "server/log.h"
#include "version.h"

namespace ballast {

void WorkerRegistry::Attach(StreamId stream, std::shared_ptr<Peer<v1::WorkerDown>> peer, const v1::WorkerUp& first) {
  std::erase_if(workers_, [&](auto& entry) {
    if (entry.second.info.name() != first.name()) return false;
    entry.second.peer->Close(WithReason(absl::AbortedError(absl::StrCat("worker \"", first.name(), "\" attached again")), "REPLACED"));
    return true;
  });
  Worker worker;
  worker.peer = std::move(peer);
  worker.info.set_name(first.name());
  worker.info.set_address(first.address());
  worker.info.set_release(first.hello().release());
  worker.info.set_metrics_address(first.metrics_address());
  workers_[stream] = std::move(worker);
  LogInfo("worker attached", {{"worker", first.name()}, {"address", first.address()}, {"threads", absl::StrCat(first.threads())}});
}

void WorkerRegistry::OnFeeds(StreamId stream, const v1::WorkerUp& update) {
  const auto it = workers_.find(stream);
  if (it == workers_.end()) return;
  Worker& worker = it->second;
  const std::map<std::string, uint32_t> before = std::exchange(worker.feeds, {update.feeds().begin(), update.feeds().end()});
  // Each feed that appeared was placed here: its placement is counted by the report from now on.
  for (const auto& [run, count] : worker.feeds) {
    const auto old = before.find(run);
    uint32_t appeared = count - std::min(count, old == before.end() ? 0 : old->second);
    std::erase_if(worker.placed, [&, name = run](const Placed& placed) { return placed.run == name && appeared > 0 && appeared-- > 0; });
  }
}

void WorkerRegistry::Detach(StreamId stream) {
  const auto it = workers_.find(stream);
  if (it == workers_.end()) return;
  LogInfo("worker gone", {{"worker", it->second.info.name()}});
  workers_.erase(it);
}

void WorkerRegistry::Tell(const std::vector<v1::ServerInfo>& servers, const std::vector<std::string>& serve) {
  v1::WorkerDown all;
  for (const v1::ServerInfo& server : servers) *all.add_servers() = server;
  const std::string servers_text = all.SerializeAsString();
  for (const std::string& run : serve) all.add_serve(run);
  for (auto& [stream, worker] : workers_) {
    if (worker.told && worker.told_servers == servers_text && worker.told_serve == serve) continue;
    v1::WorkerDown message = all;
    if (!worker.told) {
      message.mutable_hello()->set_protocol(kProtocol);
      message.mutable_hello()->set_release(kVersion);
    }
    worker.told = true;
    worker.told_servers = servers_text;
    worker.told_serve = serve;
    worker.peer->Send(std::move(message));
  }
}

const v1::WorkerInfo* WorkerRegistry::Place(const std::string& run, absl::Span<const std::string> avoid, int64_t now_ms) {
  std::vector<WorkerLoad> loads;
  std::vector<Worker*> workers;
  for (auto& [stream, worker] : workers_) {
    std::erase_if(worker.placed, [&](const Placed& placed) { return now_ms - placed.at_ms > kPlacedMs; });
    WorkerLoad load{worker.info.name(), worker.info.address(), 0, static_cast<uint32_t>(worker.placed.size())};
    load.run_feeds = std::count_if(worker.placed.begin(), worker.placed.end(), [&](const Placed& placed) { return placed.run == run; });
    for (const auto& [name, count] : worker.feeds) {
      load.feeds += count;
      if (name == run) load.run_feeds += count;
    }
    loads.push_back(std::move(load));
    workers.push_back(&worker);
  }
  const int best = PlaceFeed(loads, avoid);
  if (best < 0) return nullptr;
  workers[best]->placed.push_back({run, now_ms});
  return &workers[best]->info;
}

void WorkerRegistry::AddSession(const std::string& worker, int delta) {
  if ((sessions_[worker] += delta) <= 0) sessions_.erase(worker);
}

std::vector<v1::WorkerInfo> WorkerRegistry::Describe() const {
  std::vector<v1::WorkerInfo> infos;
  for (const auto& [stream, worker] : workers_) {
    v1::WorkerInfo info = worker.info;
    uint32_t feeds = 0;
    for (const auto& [run, count] : worker.feeds) feeds += count;
    info.set_feeds(feeds);
    const auto sessions = sessions_.find(info.name());
    info.set_sessions(sessions == sessions_.end() ? 0 : sessions->second);
    infos.push_back(std::move(info));
  }
  return infos;
}

}  // namespace ballast
