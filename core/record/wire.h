// The protobuf wire format, as far as the records of core need it: varint, fixed32, fixed64, length-delimited. Readers never allocate and
// never look beyond their bytes; a claimed length is compared with what is left before it is used. Used where bulk bytes or stable bytes
// matter (chunks, decisions, the ledger); everything else goes through generated code in proto/. Values of one thread each.
#ifndef BALLAST_CORE_RECORD_WIRE_H_
#define BALLAST_CORE_RECORD_WIRE_H_

#include <bit>
#include <cstddef>
#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace ballast {

enum class WireType : uint8_t { kVarint = 0, kFixed64 = 1, kBytes = 2, kFixed32 = 5 };

// Reads fields one after another:
//   for (WireReader in(bytes); in.Next();) switch (in.field()) { case 1: run = in.Bytes(); break; ... }   // unknown fields: skipped
//   if (!in.ok()) return in.status("Chunk");
// An accessor whose type is not the field's, or a malformed field, ends the reading with ok() == false and returns 0 or "".
class WireReader {
 public:
  // A length-delimited field `open_field` ends the reading before its bytes, which need not be there: length() says how many are claimed.
  explicit WireReader(absl::string_view bytes, uint32_t open_field = 0) : rest_(bytes), size_(bytes.size()), open_field_(open_field) {}

  bool Next();  // false at the end or after an error
  uint32_t field() const { return field_; }
  WireType type() const { return type_; }

  uint64_t Varint() { return Take(WireType::kVarint); }
  uint32_t Varint32();  // error when above 2^32 - 1
  bool Bool() { return Varint() != 0; }
  uint32_t Fixed32() { return static_cast<uint32_t>(Take(WireType::kFixed32)); }
  uint64_t Fixed64() { return Take(WireType::kFixed64); }
  double Double() { return std::bit_cast<double>(Fixed64()); }
  absl::string_view Bytes();  // points into the input
  bool opened() const { return opened_; }
  uint64_t length() const { return number_; }

  // Bytes that Next() has passed, the current field's value included.
  size_t position() const { return size_ - rest_.size(); }

  void Fail() { ok_ = false; }
  bool ok() const { return ok_; }
  // OK, or DataLoss "<what>: malformed field F at byte B".
  absl::Status status(absl::string_view what) const;

 private:
  uint64_t Take(WireType type);
  bool ReadVarint(uint64_t* value);
  bool ReadValue();

  absl::string_view rest_;
  size_t size_;
  uint32_t open_field_;
  bool opened_ = false;
  uint32_t field_ = 0;
  WireType type_ = WireType::kVarint;
  uint64_t number_ = 0;
  absl::string_view bytes_;
  bool ok_ = true;
};

// Appends fields. The caller writes them in ascending order; a default (0, "", false) is left out, as proto3 does, except by Message
// and the Always forms.
class WireWriter {
 public:
  explicit WireWriter(std::string* out) : out_(out) {}

  void Varint(uint32_t field, uint64_t value) {
    if (value != 0) VarintAlways(field, value);
  }
  void Bool(uint32_t field, bool value) { Varint(field, value ? 1 : 0); }
  void Fixed32(uint32_t field, uint32_t value);
  void Fixed64(uint32_t field, uint64_t value);
  void Float(uint32_t field, float value) { Fixed32(field, std::bit_cast<uint32_t>(value)); }
  void Double(uint32_t field, double value) { Fixed64(field, std::bit_cast<uint64_t>(value)); }
  void Bytes(uint32_t field, absl::string_view value) {
    if (!value.empty()) Message(field, value);
  }
  void Message(uint32_t field, absl::string_view encoded);  // written even when empty
  void VarintAlways(uint32_t field, uint64_t value);        // elements of a repeated field
  // Tag and length of a length-delimited field whose bytes the caller appends or sends next.
  void LengthPrefix(uint32_t field, uint64_t bytes);
  void RawVarint(uint64_t value);
  void RawFixed32(uint32_t value);
  void RawFixed64(uint64_t value);

 private:
  void Tag(uint32_t field, WireType type) { RawVarint(uint64_t{field} << 3 | static_cast<uint64_t>(type)); }

  std::string* out_;
};

}  // namespace ballast

#endif  // BALLAST_CORE_RECORD_WIRE_H_
