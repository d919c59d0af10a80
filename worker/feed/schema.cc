#include "worker/feed/schema.h"

#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"
#include "core/text.h"

namespace ballast {
namespace {

absl::Status Bad(absl::string_view column, absl::string_view what) {
  return absl::InvalidArgumentError(absl::StrCat("schema: column \"", Excerpt(column), "\" ", what));
}

absl::StatusOr<ColumnSpec> ParseColumn(absl::string_view text) {
  const size_t colon = text.rfind(':');
  if (colon == absl::string_view::npos || colon == 0) return Bad(text, "is not name:dtype or name:dtype[AxB]");
  ColumnSpec column;
  column.name = std::string(text.substr(0, colon));
  absl::string_view type = text.substr(colon + 1);
  const size_t bracket = type.find('[');
  column.dtype = std::string(type.substr(0, bracket));
  if (DTypeBytes(column.dtype) == 0) return Bad(column.name, absl::StrCat("has the unknown dtype ", Excerpt(column.dtype)));
  if (bracket == absl::string_view::npos) return column;
  type = type.substr(bracket + 1);
  if (!absl::ConsumeSuffix(&type, "]")) return Bad(column.name, "has no closing bracket");
  uint64_t elements = 1;
  for (absl::string_view dim : absl::StrSplit(type, 'x', absl::SkipEmpty())) {
    int64_t size = 0;
    if (!absl::SimpleAtoi(dim, &size) || size < 1) return Bad(column.name, absl::StrCat("has the dimension ", Excerpt(dim)));
    if (elements > kBatchBytesMax / static_cast<uint64_t>(size)) return Bad(column.name, "has rows larger than a batch may be");
    elements *= static_cast<uint64_t>(size);
    column.shape.push_back(size);
  }
  return column;
}

std::string TypeText(const ColumnSpec& column) {
  return column.shape.empty() ? column.dtype : absl::StrCat(column.dtype, "[", absl::StrJoin(column.shape, "x"), "]");
}

FeedFault Fault(const RowBatch& rows, absl::string_view full_column, absl::string_view full_expected, absl::string_view full_found) {
  std::string column = Excerpt(full_column), expected = Excerpt(full_expected), found = Excerpt(full_found);
  const std::string first_row_id = Excerpt(rows.first_row_id);
  FeedFault fault;
  fault.reason = "BAD_ROWS";
  fault.message = absl::StrCat("column \"", column, "\": expected ", expected, ", found ", found, " (partition ", rows.batch.id.partition,
                               ", batch ", rows.batch.id.seq, ", first row id ", first_row_id, ")");
  fault.metadata = {{"column", std::move(column)},
                    {"expected", std::move(expected)},
                    {"found", std::move(found)},
                    {"partition", absl::StrCat(rows.batch.id.partition)},
                    {"seq", absl::StrCat(rows.batch.id.seq)},
                    {"first_row_id", first_row_id}};
  return fault;
}

}  // namespace

absl::StatusOr<std::vector<ColumnSpec>> ParseSchema(std::string_view text) {
  std::vector<ColumnSpec> schema;
  for (absl::string_view part : absl::StrSplit(absl::string_view(text.data(), text.size()), ',', absl::SkipWhitespace())) {
    absl::StatusOr<ColumnSpec> column = ParseColumn(absl::StripAsciiWhitespace(part));
    if (!column.ok()) return column.status();
    schema.push_back(*std::move(column));
  }
  if (schema.empty()) return absl::InvalidArgumentError("schema: no column");
  return schema;
}

uint64_t RowBytes(absl::Span<const ColumnSpec> schema) {
  uint64_t bytes = 0;
  for (const ColumnSpec& column : schema) bytes += column.RowBytes();
  return bytes;
}

std::optional<FeedFault> CheckRows(absl::Span<const ColumnSpec> schema, uint64_t batch_rows, const RowBatch& rows) {
  const uint64_t n = rows.batch.rows;
  if (n == 0 || n > batch_rows) return Fault(rows, "(rows)", absl::StrCat("1 to ", batch_rows, " rows"), absl::StrCat(n));
  for (size_t i = 0; i < schema.size(); ++i) {
    const ColumnSpec& column = schema[i];
    const std::string expected = absl::StrCat(TypeText(column), " (", n * column.RowBytes(), " bytes for ", n, " rows)");
    if (i >= rows.columns.size()) return Fault(rows, column.name, expected, "no such column");
    const auto& [name, data] = rows.columns[i];
    if (name != column.name) return Fault(rows, column.name, expected, absl::StrCat("column \"", name, "\" in its place"));
    if (data.size() != n * column.RowBytes()) return Fault(rows, column.name, expected, absl::StrCat(data.size(), " bytes"));
  }
  if (rows.columns.size() > schema.size()) {
    return Fault(rows, rows.columns[schema.size()].first, "no further column", absl::StrCat(rows.columns.size(), " columns"));
  }
  return std::nullopt;
}

}  // namespace ballast
