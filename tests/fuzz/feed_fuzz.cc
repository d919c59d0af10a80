// worker/feed: the schema of a run and the rows of a task against it. A batch that passes has exactly the bytes that its columns need.
#include <google/protobuf/stubs/logging.h>

#include "ballast/v1/worker.pb.h"
#include "tests/fuzz/input.h"
#include "worker/feed/schema.h"

namespace ballast {
namespace {

constexpr size_t kFaultBytesMax = 8u << 10;  // a fault travels beside other answers

RowBatch ToRowBatch(const v1::FeedUp::Rows& rows) {
  RowBatch batch;
  batch.batch = {{1, 2, rows.seq()}, rows.rows(), rows.fingerprint()};
  batch.first_row_id = rows.first_row_id();
  for (const v1::Column& column : rows.columns()) batch.columns.emplace_back(column.name(), column.data());
  return batch;
}

void Run(fuzz::Input& in) {
  const uint64_t batch_rows = in.U64();
  const auto schema = ParseSchema(in.Text(200));
  if (!schema.ok()) return fuzz::CheckRefusal(schema.status());
  for (const ColumnSpec& column : *schema) FUZZ_CHECK(column.RowBytes() >= 1 && column.RowBytes() <= 8 * kBatchBytesMax);
  FUZZ_CHECK(RowBytes(*schema) >= schema->size());

  v1::FeedUp up;
  if (!up.ParseFromArray(in.rest().data(), static_cast<int>(in.rest().size()))) return;
  const RowBatch rows = ToRowBatch(up.rows());
  if (const auto fault = CheckRows(*schema, batch_rows, rows); fault.has_value()) {
    FUZZ_CHECK(!fault->message.empty() && !fault->reason.empty());
    size_t bytes = fault->message.size();
    for (const auto& [key, value] : fault->metadata) bytes += value.size();
    FUZZ_CHECK(bytes <= kFaultBytesMax);
    return;
  }
  FUZZ_CHECK(rows.batch.rows >= 1 && rows.batch.rows <= batch_rows && rows.columns.size() == schema->size());
  for (size_t i = 0; i < schema->size(); ++i) {
    FUZZ_CHECK(rows.columns[i].first == (*schema)[i].name);
    FUZZ_CHECK(rows.columns[i].second.size() == rows.batch.rows * (*schema)[i].RowBytes());
  }
}

}  // namespace
}  // namespace ballast

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const auto quiet = google::protobuf::SetLogHandler(nullptr);
  (void)quiet;
  ballast::fuzz::Input in(data, size);
  ballast::Run(in);
  return 0;
}
