// The columns that a run's feeds must carry, and the check of a batch against them: before a byte of it is believed.
// Free functions: safe from any thread.
#ifndef BALLAST_WORKER_FEED_SCHEMA_H_
#define BALLAST_WORKER_FEED_SCHEMA_H_

#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "worker/feed/row_batch.h"
#include "worker/model/description.h"

namespace ballast {

// RunSpec.schema: "tokens:int32[32],image:float32[3x64x64],label:int64". Errors: InvalidArgument.
absl::StatusOr<std::vector<ColumnSpec>> ParseSchema(std::string_view text);

// Bytes of one row, all columns.
uint64_t RowBytes(absl::Span<const ColumnSpec> schema);

// Names, order and bytes of every column, rows in [1, batch_rows]. The fault names column, expected, found, partition and first row id.
std::optional<FeedFault> CheckRows(absl::Span<const ColumnSpec> schema, uint64_t batch_rows, const RowBatch& rows);

}  // namespace ballast

#endif  // BALLAST_WORKER_FEED_SCHEMA_H_
