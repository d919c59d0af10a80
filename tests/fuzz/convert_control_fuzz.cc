// proto/convert and convert_control: the messages of the streams and what is stored of epochs and manifests. Taken means: writing it again
// loses nothing that core knows.
#include "proto/convert_control.h"

#include <google/protobuf/stubs/logging.h>

#include "tests/fuzz/input.h"

namespace ballast {
namespace {

// core -> message -> core -> message: the second message is the first. NaNs are compared as bytes.
template <typename Message, typename Core, typename To, typename From>
void SameAgain(const Core& core, To to, From from) {
  const std::string written = to(core).SerializeAsString();
  Message reread;
  FUZZ_CHECK(reread.ParseFromString(written));
  FUZZ_CHECK(to(from(reread)).SerializeAsString() == written);
}

template <typename Message>
bool Parse(absl::string_view bytes, Message* message) {
  return message->ParseFromArray(bytes.data(), static_cast<int>(bytes.size()));
}

template <typename Message>
void Plain(absl::string_view bytes) {
  Message message;
  if (!Parse(bytes, &message)) return;
  SameAgain<Message>(
      FromProto(message), [](const auto& core) { return ToProto(core); }, [](const Message& m) { return FromProto(m); });
}

void ToSessions(absl::string_view bytes) {
  v1::WorkDown message;
  if (!Parse(bytes, &message)) return;
  const auto core = FromProto(message);
  if (!core.ok()) return fuzz::CheckRefusal(core.status());
  SameAgain<v1::WorkDown>(
      *core, [](const SessionMessage& m) { return ToProto(m); }, [](const v1::WorkDown& m) { return FromProto(m).value(); });
}

void ToShards(absl::string_view bytes) {
  v1::ShardDown message;
  if (!Parse(bytes, &message)) return;
  const auto core = FromProto(message);
  if (!core.ok()) return fuzz::CheckRefusal(core.status());
  SameAgain<v1::ShardDown>(
      *core, [](const ShardMessage& m) { return ToProto("run", m); }, [](const v1::ShardDown& m) { return FromProto(m).value(); });
}

void FromSessions(absl::string_view bytes) {
  v1::WorkUp message;
  if (!Parse(bytes, &message)) return;
  SameAgain<v1::WorkUp::Submit>(
      FromProto(message.submit()), [](const Submission& s) { return ToProto(s); },
      [](const v1::WorkUp::Submit& m) { return FromProto(m); });
  SameAgain<v1::Batch>(
      FromProto(message.claim().batch()), [](const Batch& b) { return ToProto(b); }, [](const v1::Batch& m) { return FromProto(m); });
}

void FromShards(absl::string_view bytes) {
  v1::ShardUp message;
  if (!Parse(bytes, &message)) return;
  SameAgain<v1::ShardUp::Position>(
      FromProto(1, 2, message.position()), [](const ShardPosition& p) { return ToProto("run", 3, p); },
      [](const v1::ShardUp::Position& m) { return FromProto(1, 2, m); });
}

void Epochs(absl::string_view bytes) {
  v1::Epoch epoch;
  if (Parse(bytes, &epoch)) {
    SameAgain<v1::Epoch>(
        FromProto(epoch), [](const EpochRecord& e) { return ToProto("run", e); }, [](const v1::Epoch& m) { return FromProto(m); });
  }
  v1::EpochCounts counts;
  if (Parse(bytes, &counts)) FUZZ_CHECK(FromProto(counts).size() == static_cast<size_t>(counts.partitions_size()));
}

}  // namespace
}  // namespace ballast

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace ballast;
  static const auto quiet = google::protobuf::SetLogHandler(nullptr);
  (void)quiet;
  fuzz::Input in(data, size);
  switch (in.Byte() % 7) {
    case 0:
      FromSessions(in.rest());
      break;
    case 1:
      ToSessions(in.rest());
      break;
    case 2:
      FromShards(in.rest());
      break;
    case 3:
      ToShards(in.rest());
      break;
    case 4:
      Plain<v1::Manifest>(in.rest());
      break;
    case 5:
      Plain<v1::EpochReport>(in.rest());
      break;
    default:
      Epochs(in.rest());
  }
  return 0;
}
