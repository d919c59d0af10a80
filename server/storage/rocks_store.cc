#include "server/storage/rocks_store.h"

#include <fcntl.h>
#include <rocksdb/convenience.h>
#include <rocksdb/db.h>
#include <rocksdb/file_checksum.h>
#include <rocksdb/options.h>
#include <rocksdb/sst_file_writer.h>
#include <rocksdb/table.h>
#include <rocksdb/write_batch.h>

#include <atomic>
#include <optional>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "server/failpoint.h"
#include "server/storage/files.h"
#include "server/storage/high_mark.h"

namespace ballast {
namespace {

constexpr char kBulkFamily[] = "blocks";
// Number of the write that last changed the records, decimal; part of each write. RocksDB takes damage in the length field of a log record,
// or zeros, for the end of its log and opens with less; this number and the mark beside the directory tell.
constexpr char kWritesKey[] = "store/writes";
constexpr uint64_t kBulkFileBytes = 256u << 20;  // a checkpoint is cut into files of this size

absl::Status FromRocks(const rocksdb::Status& s, absl::string_view what) {
  if (s.ok()) return absl::OkStatus();
  const std::string text = absl::StrCat(what, ": ", s.ToString());
  if (s.IsNotFound()) return absl::NotFoundError(text);
  if (s.IsCorruption()) return absl::DataLossError(text);
  if (s.IsNoSpace()) return absl::ResourceExhaustedError(text);
  if (s.IsInvalidArgument()) return absl::InvalidArgumentError(text);
  return absl::InternalError(text);
}

rocksdb::Slice ToSlice(absl::string_view s) { return rocksdb::Slice(s.data(), s.size()); }
absl::string_view ToView(const rocksdb::Slice& s) { return absl::string_view(s.data(), s.size()); }

// First key above every key with `prefix`. REQUIRES a prefix that does not end in 0xff.
std::string PrefixEnd(absl::string_view prefix) {
  std::string end(prefix);
  ++end.back();
  return end;
}

// Whether files there can be read past the page cache; some file systems refuse.
bool CanReadDirect(const std::string& dir) {
  return UniqueFd(::open(dir.c_str(), O_TMPFILE | O_RDWR | O_DIRECT | O_CLOEXEC, 0600)).get() >= 0;
}

rocksdb::DBOptions DbOptions(bool create, bool direct) {
  rocksdb::DBOptions o;
  o.use_direct_reads =
      direct;  // checkpoint blocks are read once, and several times as fast as through the page cache (tools/bench/recovery)
  o.create_if_missing = create;  // else a lost CURRENT would begin an empty store
  o.create_missing_column_families = create;
  // The default mode (point in time) may drop synced records after damage in the middle and still open; this one refuses.
  o.wal_recovery_mode = rocksdb::WALRecoveryMode::kTolerateCorruptedTailRecords;
  o.track_and_verify_wals_in_manifest = true;  // a missing or short log file is found
  o.recycle_log_file_num = 0;                  // recycled files can lose data in the mode above
  o.manual_wal_flush = false;
  o.paranoid_checks = true;
  o.best_efforts_recovery = false;  // never start from less
  o.max_bgerror_resume_count = 0;   // a failed write stops the server, nothing retries it
  o.file_checksum_gen_factory = rocksdb::GetFileChecksumGenCrc32cFactory();
  o.max_background_jobs = 2;
  o.keep_log_file_num = 4;
  o.max_log_file_size = 8u << 20;
  return o;
}

rocksdb::ColumnFamilyOptions FamilyOptions(bool bulk) {
  rocksdb::ColumnFamilyOptions o;
  o.paranoid_file_checks = true;  // reads every new file back
  o.compression = rocksdb::kNoCompression;
  o.write_buffer_size = 16u << 20;
  rocksdb::BlockBasedTableOptions table;
  if (bulk) {
    o.disable_auto_compactions = true;                                          // files are ingested whole and dropped whole
    table.no_block_cache = true;                                                // values of 1 MiB are read once, at recovery
    o.level0_slowdown_writes_trigger = o.level0_stop_writes_trigger = 1 << 20;  // nothing is ever merged, so nothing may wait for it
  } else {
    table.block_cache = rocksdb::NewLRUCache(8u << 20);
  }
  o.table_factory.reset(rocksdb::NewBlockBasedTableFactory(table));
  return o;
}

// Beside the directory, not in it: it also tells that the directory was there.
std::string WritesMarkPath(const std::string& dir) { return dir + ".writes"; }

class RocksStore : public Store {
 public:
  RocksStore(std::string dir, rocksdb::DB* db, std::vector<rocksdb::ColumnFamilyHandle*> families, StoreFailed on_failed)
      : dir_(std::move(dir)), on_failed_(std::move(on_failed)), db_(db), records_(families[0]), blocks_(families[1]) {
    synced_.sync = true;
    verified_.verify_checksums = true;
  }
  ~RocksStore() override {
    (void)db_->DestroyColumnFamilyHandle(records_);
    (void)db_->DestroyColumnFamilyHandle(blocks_);
    (void)db_->Close();
  }

  // Compares what was opened with what was acknowledged. Errors: DataLoss when records are missing.
  absl::Status CheckWrites(const absl::StatusOr<uint64_t>& acknowledged) {
    absl::MutexLock lock(&write_mu_);
    const absl::StatusOr<std::string> text = Get(kWritesKey);
    if (!text.ok() && !absl::IsNotFound(text.status())) return text.status();
    if (text.ok() && !absl::SimpleAtoi(*text, &writes_)) return absl::DataLossError(absl::StrCat("record ", kWritesKey, " is damaged"));
    if (!acknowledged.ok() || writes_ >= *acknowledged) return absl::OkStatus();
    return absl::DataLossError(
        absl::StrCat(dir_, "/db ends at write ", writes_, ", but write ", *acknowledged, " was acknowledged: records are lost"));
  }

  // From here on writes are acknowledged.
  absl::Status BeginMark() {
    absl::MutexLock lock(&write_mu_);
    absl::StatusOr<HighMark> mark = HighMark::Create(WritesMarkPath(dir_), writes_);
    if (mark.ok()) mark_.emplace(*std::move(mark));
    return mark.status();
  }

  absl::Status Put(absl::string_view key, absl::string_view value) override {
    BALLAST_FAILPOINT("record-put");
    rocksdb::WriteBatch batch = NewBatch();
    const rocksdb::Status made = batch.Put(records_, ToSlice(key), ToSlice(value));
    const absl::Status written = Write(made, batch, absl::StrCat("put ", key));
    BALLAST_FAILPOINT("record-stored");
    return written;
  }

  absl::StatusOr<std::string> Get(absl::string_view key) override {
    std::string value;
    rocksdb::Status s = db_->Get(verified_, records_, ToSlice(key), &value);
    if (s.IsNotFound()) s = db_->Get(verified_, blocks_, ToSlice(key), &value);
    if (absl::Status status = FromRocks(s, absl::StrCat("get ", key)); !status.ok()) return status;
    return value;
  }

  absl::Status Delete(absl::string_view key) override {
    rocksdb::WriteBatch batch = NewBatch();
    BALLAST_FAILPOINT("record-delete");
    rocksdb::Status s = batch.Delete(records_, ToSlice(key));
    if (s.ok()) s = batch.Delete(blocks_, ToSlice(key));
    const absl::Status written = Write(s, batch, absl::StrCat("delete ", key));
    BALLAST_FAILPOINT("record-deleted");
    return written;
  }

  absl::Status DeletePrefix(absl::string_view prefix) override {
    if (prefix.empty() || prefix.back() == '\xff') return absl::InvalidArgumentError("DeletePrefix wants a plain, non-empty prefix");
    const std::string end = PrefixEnd(prefix);
    const std::string what = absl::StrCat("delete ", prefix, "*");
    rocksdb::WriteBatch batch = NewBatch();
    BALLAST_FAILPOINT("prefix-delete");
    rocksdb::Status s = batch.DeleteRange(records_, ToSlice(prefix), end);
    if (s.ok()) s = batch.DeleteRange(blocks_, ToSlice(prefix), end);
    if (absl::Status written = Write(s, batch, what); !written.ok()) return written;
    BALLAST_FAILPOINT("prefix-marked");
    const rocksdb::Slice from = ToSlice(prefix), to = end;  // gives the disk space back at once
    s = rocksdb::DeleteFilesInRange(db_.get(), blocks_, &from, &to, /*include_end=*/false);
    BALLAST_FAILPOINT("prefix-deleted");
    return Written(s, what);
  }

  absl::Status Scan(absl::string_view prefix, const std::function<bool(absl::string_view, absl::string_view)>& visit) override {
    std::unique_ptr<rocksdb::Iterator> its[2] = {std::unique_ptr<rocksdb::Iterator>(db_->NewIterator(verified_, records_)),
                                                 std::unique_ptr<rocksdb::Iterator>(db_->NewIterator(verified_, blocks_))};
    for (auto& it : its) it->Seek(ToSlice(prefix));
    const auto inside = [&](rocksdb::Iterator& it) { return it.Valid() && absl::StartsWith(ToView(it.key()), prefix); };
    bool more = true;
    while (more && (inside(*its[0]) || inside(*its[1]))) {
      const bool second = !inside(*its[0]) || (inside(*its[1]) && its[1]->key().compare(its[0]->key()) < 0);
      rocksdb::Iterator& it = *its[second];
      if (ToView(it.key()) != kWritesKey) more = visit(ToView(it.key()), ToView(it.value()));
      it.Next();
    }
    for (auto& it : its) {
      if (!it->status().ok()) return FromRocks(it->status(), absl::StrCat("scan ", prefix));
    }
    return absl::OkStatus();
  }

  absl::StatusOr<std::unique_ptr<Bulk>> NewBulk() override;

 private:
  friend class RocksBulk;
  // After a failed write RocksDB takes no other, and what is on disk is not known.
  absl::Status Written(const rocksdb::Status& s, absl::string_view what) const {
    const absl::Status status = FromRocks(s, what);
    if (!status.ok() && on_failed_) on_failed_(status);
    return status;
  }

  // The protection checks a write on its way through the memtable.
  static rocksdb::WriteBatch NewBatch() { return rocksdb::WriteBatch(0, 0, /*protection_bytes_per_key=*/8, 0); }

  // Numbers the batch, writes and syncs it. One at a time, so that the numbers are durable in their order.
  absl::Status Write(rocksdb::Status made, rocksdb::WriteBatch& batch, absl::string_view what) {
    absl::MutexLock lock(&write_mu_);
    const std::string number = absl::StrCat(writes_ + 1);
    if (made.ok()) made = batch.Put(records_, kWritesKey, number);
    if (made.ok()) made = db_->Write(synced_, &batch);
    if (absl::Status s = Written(made, what); !s.ok()) return s;
    const absl::Status marked = mark_->Set(++writes_);
    if (!marked.ok() && on_failed_) on_failed_(marked);
    return marked;
  }

  const std::string dir_;
  const StoreFailed on_failed_;
  const std::unique_ptr<rocksdb::DB> db_;
  rocksdb::ColumnFamilyHandle* const records_;
  rocksdb::ColumnFamilyHandle* const blocks_;
  absl::Mutex write_mu_;
  uint64_t writes_ ABSL_GUARDED_BY(write_mu_) = 0;
  std::optional<HighMark> mark_ ABSL_GUARDED_BY(write_mu_);
  rocksdb::WriteOptions synced_;
  rocksdb::ReadOptions verified_;
  std::atomic<uint64_t> next_bulk_{1};
};

class RocksBulk : public Store::Bulk {
 public:
  RocksBulk(RocksStore* store, std::string base)
      : store_(store), base_(std::move(base)), options_(DbOptions(/*create=*/true, /*direct=*/false), FamilyOptions(/*bulk=*/true)) {}

  ~RocksBulk() override {
    writer_.reset();
    for (const std::string& file : files_) (void)rocksdb::Env::Default()->DeleteFile(file);  // gone already when it was ingested
  }

  absl::Status Add(absl::string_view key, absl::string_view value) override {
    if (writer_ == nullptr || writer_->FileSize() >= kBulkFileBytes) {
      if (absl::Status s = NextFile(); !s.ok()) return s;
    }
    BALLAST_FAILPOINT_STATUS("block-write");
    const rocksdb::Status s = writer_->Put(ToSlice(key), ToSlice(value));
    BALLAST_FAILPOINT("block-written");
    return FromRocks(s, absl::StrCat("write block ", key));
  }

  absl::Status Finish() override {
    if (absl::Status s = CloseFile(); !s.ok() || files_.empty()) return s;
    rocksdb::IngestExternalFileOptions ingest;
    ingest.move_files = true;
    ingest.allow_global_seqno = true;               // the same version may be written again after a crash
    ingest.verify_checksums_before_ingest = false;  // the values carry their own, checked before they are believed
    BALLAST_FAILPOINT("sst-ingest");
    const rocksdb::Status s = store_->db_->IngestExternalFile(store_->blocks_, files_, ingest);
    BALLAST_FAILPOINT("sst-ingested");
    return store_->Written(s, absl::StrCat("ingest ", base_));
  }

 private:
  absl::Status NextFile() {
    if (absl::Status s = CloseFile(); !s.ok()) return s;
    BALLAST_FAILPOINT_STATUS("sst-create");
    writer_ = std::make_unique<rocksdb::SstFileWriter>(rocksdb::EnvOptions(), options_, store_->blocks_, /*invalidate_page_cache=*/true);
    files_.push_back(absl::StrCat(base_, "-", files_.size(), ".sst"));
    const rocksdb::Status s = writer_->Open(files_.back());
    BALLAST_FAILPOINT("sst-created");
    return FromRocks(s, absl::StrCat("create ", files_.back()));
  }

  absl::Status CloseFile() {  // synced by SstFileWriter
    if (writer_ == nullptr) return absl::OkStatus();
    BALLAST_FAILPOINT_STATUS("sst-finish");
    const rocksdb::Status s = writer_->Finish();
    BALLAST_FAILPOINT("sst-finished");
    writer_.reset();
    return FromRocks(s, absl::StrCat("finish ", files_.back()));
  }

  RocksStore* const store_;
  const std::string base_;
  const rocksdb::Options options_;
  std::unique_ptr<rocksdb::SstFileWriter> writer_;
  std::vector<std::string> files_;
};

absl::StatusOr<std::unique_ptr<Store::Bulk>> RocksStore::NewBulk() {
  return std::unique_ptr<Bulk>(new RocksBulk(this, absl::StrCat(dir_, "/bulk/", next_bulk_.fetch_add(1))));
}

// What a crash left of checkpoints that were not ingested.
absl::Status EmptyBulkDir(const std::string& dir) {
  if (absl::Status s = MakeDirs(dir); !s.ok()) return s;
  absl::StatusOr<std::vector<std::string>> names = ListDir(dir);
  if (!names.ok()) return names.status();
  for (const std::string& name : *names) {
    if (absl::Status s = FromRocks(rocksdb::Env::Default()->DeleteFile(dir + "/" + name), name); !s.ok()) return s;
  }
  return absl::OkStatus();
}

std::vector<rocksdb::ColumnFamilyDescriptor> Families() {
  return {{rocksdb::kDefaultColumnFamilyName, FamilyOptions(/*bulk=*/false)}, {kBulkFamily, FamilyOptions(/*bulk=*/true)}};
}

absl::Status OpenError(const std::string& dir, const rocksdb::Status& s) {
  const std::string text = absl::StrCat("open ", dir, "/db: ", s.ToString());
  return absl::StrContains(text, "lock") ? absl::FailedPreconditionError(text) : absl::DataLossError(text);
}

}  // namespace

absl::StatusOr<std::unique_ptr<Store>> OpenRocksStore(const std::string& dir, StoreFailed on_failed) {
  const absl::StatusOr<uint64_t> acknowledged = ReadHighMark(WritesMarkPath(dir));
  if (!acknowledged.ok() && !absl::IsNotFound(acknowledged.status())) return acknowledged.status();
  // RocksDB would make its directory, but not sync the name: the power may take it away with all that is in it.
  if (absl::Status s = MakeDirs(dir + "/db"); !s.ok()) return s;
  BALLAST_FAILPOINT_STATUS("bulk-empty");
  if (absl::Status s = EmptyBulkDir(dir + "/bulk"); !s.ok()) return s;
  BALLAST_FAILPOINT_STATUS("bulk-emptied");
  std::vector<rocksdb::ColumnFamilyHandle*> handles;
  rocksdb::DB* db = nullptr;
  BALLAST_FAILPOINT_STATUS("store-open");
  const rocksdb::DBOptions options = DbOptions(/*create=*/!acknowledged.ok(), CanReadDirect(dir + "/db"));
  if (const rocksdb::Status s = rocksdb::DB::Open(options, dir + "/db", Families(), &handles, &db); !s.ok()) return OpenError(dir, s);
  BALLAST_FAILPOINT("store-opened");
  auto store = std::make_unique<RocksStore>(dir, db, std::move(handles), std::move(on_failed));
  absl::Status ready = store->CheckWrites(acknowledged);
  if (ready.ok()) ready = store->BeginMark();
  if (!ready.ok()) return ready;
  return std::unique_ptr<Store>(std::move(store));
}

absl::StatusOr<std::unique_ptr<Store>> ReadRocksStore(const std::string& dir) {
  if (!ListDir(dir + "/db").ok()) return absl::NotFoundError(absl::StrCat("there is no store in ", dir));
  const absl::StatusOr<uint64_t> acknowledged = ReadHighMark(WritesMarkPath(dir));
  if (!acknowledged.ok() && !absl::IsNotFound(acknowledged.status())) return acknowledged.status();
  std::vector<rocksdb::ColumnFamilyHandle*> handles;
  rocksdb::DB* db = nullptr;
  const rocksdb::Status s =
      rocksdb::DB::OpenForReadOnly(DbOptions(/*create=*/false, /*direct=*/false), dir + "/db", Families(), &handles, &db);
  if (!s.ok()) return OpenError(dir, s);
  auto store = std::make_unique<RocksStore>(dir, db, std::move(handles), nullptr);
  if (absl::Status checked = store->CheckWrites(acknowledged); !checked.ok()) return checked;
  return std::unique_ptr<Store>(std::move(store));
}

}  // namespace ballast
