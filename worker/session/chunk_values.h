// A chunk of values -> a ParameterStore. Free functions.
#ifndef BALLAST_WORKER_SESSION_CHUNK_VALUES_H_
#define BALLAST_WORKER_SESSION_CHUNK_VALUES_H_

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "core/record/chunk.h"
#include "core/types.h"
#include "worker/model/parameter_store.h"

namespace ballast {

// Decodes every block into its place. `chunk` comes from ParseChunk; checksums, tensors, ranges and codecs are checked here.
// Errors: InvalidArgument; the store may hold a part of the chunk then.
absl::Status ReadValues(const ChunkView& chunk, absl::Span<const TensorSpec> tensors, ParameterStore* store);

}  // namespace ballast

#endif  // BALLAST_WORKER_SESSION_CHUNK_VALUES_H_
