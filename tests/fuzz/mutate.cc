#include "tests/fuzz/mutate.h"

#include <google/protobuf/descriptor.h>

namespace ballast::fuzz {
namespace {

using google::protobuf::FieldDescriptor;
using google::protobuf::Message;
using google::protobuf::Reflection;

std::string HostileText(Input& in) {
  static constexpr const char* kTexts[] = {"", "..", "../../x", "a/b", "r\xc3\xbcn\xe2\x80\xae", "a\tb", "\x01"};
  const uint64_t which = in.Below(10);
  if (which < std::size(kTexts)) return kTexts[which];
  return which == 7 ? std::string(3000, 'x') : in.Text(40);
}

void SetSingle(Input& in, Message& message, const FieldDescriptor* field) {
  const Reflection* reflection = message.GetReflection();
  switch (field->cpp_type()) {
    case FieldDescriptor::CPPTYPE_INT32:
      return reflection->SetInt32(&message, field, static_cast<int32_t>(in.U64()));
    case FieldDescriptor::CPPTYPE_INT64:
      return reflection->SetInt64(&message, field, static_cast<int64_t>(in.U64()));
    case FieldDescriptor::CPPTYPE_UINT32:
      return reflection->SetUInt32(&message, field, in.U32());
    case FieldDescriptor::CPPTYPE_UINT64:
      return reflection->SetUInt64(&message, field, in.U64());
    case FieldDescriptor::CPPTYPE_DOUBLE:
      return reflection->SetDouble(&message, field, in.Double());
    case FieldDescriptor::CPPTYPE_FLOAT:
      return reflection->SetFloat(&message, field, static_cast<float>(in.Double()));
    case FieldDescriptor::CPPTYPE_BOOL:
      return reflection->SetBool(&message, field, in.Bool());
    case FieldDescriptor::CPPTYPE_ENUM:
      return reflection->SetEnumValue(&message, field, static_cast<int>(in.Byte()));
    case FieldDescriptor::CPPTYPE_STRING:
      return reflection->SetString(&message, field, HostileText(in));
    case FieldDescriptor::CPPTYPE_MESSAGE:
      reflection->MutableMessage(&message, field);
  }
}

void AddRepeated(Input& in, Message& message, const FieldDescriptor* field) {
  const Reflection* reflection = message.GetReflection();
  switch (field->cpp_type()) {
    case FieldDescriptor::CPPTYPE_INT64:
      return reflection->AddInt64(&message, field, static_cast<int64_t>(in.U64()));
    case FieldDescriptor::CPPTYPE_UINT32:
      return reflection->AddUInt32(&message, field, in.U32());
    case FieldDescriptor::CPPTYPE_UINT64:
      return reflection->AddUInt64(&message, field, in.U64());
    case FieldDescriptor::CPPTYPE_STRING:
      return reflection->AddString(&message, field, HostileText(in));
    case FieldDescriptor::CPPTYPE_MESSAGE:
      reflection->AddMessage(&message, field);
      return;
    default:
      return;
  }
}

// One field of the message or of one inside it.
void ChangeField(Input& in, Message& message, int depth = 0) {
  const int fields = message.GetDescriptor()->field_count();
  if (fields == 0 || depth > 6) return;
  const FieldDescriptor* field = message.GetDescriptor()->field(static_cast<int>(in.Below(static_cast<uint64_t>(fields))));
  const Reflection* reflection = message.GetReflection();
  const bool is_message = field->cpp_type() == FieldDescriptor::CPPTYPE_MESSAGE;
  const bool clear = in.Byte() % 8 == 0;
  if (clear) return reflection->ClearField(&message, field);
  if (!field->is_repeated()) {
    if (is_message && reflection->HasField(message, field)) return ChangeField(in, *reflection->MutableMessage(&message, field), depth + 1);
    return SetSingle(in, message, field);
  }
  const int size = reflection->FieldSize(message, field);
  if (is_message && !field->is_map() && size > 0 && in.Bool()) {
    const int at = static_cast<int>(in.Below(static_cast<uint64_t>(size)));
    return ChangeField(in, *reflection->MutableRepeatedMessage(&message, field, at), depth + 1);
  }
  if (!field->is_map()) AddRepeated(in, message, field);
}

}  // namespace

std::string Spoil(Input& in, Message& message) {
  const uint64_t how = in.Below(8);
  if (how == 5 || how == 6) {
    for (uint64_t n = 1 + in.Below(how == 5 ? 1 : 4); n > 0; --n) ChangeField(in, message);
  }
  std::string bytes = message.SerializeAsString();
  if (how != 7 || bytes.empty()) return bytes;
  if (in.Bool()) {
    bytes.resize(in.Below(bytes.size()));
  } else {
    for (uint64_t n = 1 + in.Below(3); n > 0; --n) bytes[in.Below(bytes.size())] = static_cast<char>(in.Byte());
  }
  return bytes;
}

}  // namespace ballast::fuzz
