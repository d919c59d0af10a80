#include "core/record/wire.h"

#include <cstring>
#include <limits>

#include "absl/strings/str_cat.h"

namespace ballast {

bool WireReader::ReadVarint(uint64_t* value) {
  uint64_t result = 0;
  for (size_t i = 0; i < 10 && i < rest_.size(); ++i) {
    const uint64_t byte = static_cast<uint8_t>(rest_[i]);
    if (i == 9 && byte > 1) return false;  // more than 64 bits
    result |= (byte & 0x7f) << (7 * i);
    if ((byte & 0x80) == 0) {
      rest_.remove_prefix(i + 1);
      *value = result;
      return true;
    }
  }
  return false;
}

bool WireReader::ReadValue() {
  switch (type_) {
    case WireType::kVarint:
      return ReadVarint(&number_);
    case WireType::kFixed64:
    case WireType::kFixed32: {
      const size_t n = type_ == WireType::kFixed64 ? 8 : 4;
      if (rest_.size() < n) return false;
      number_ = 0;
      std::memcpy(&number_, rest_.data(), n);
      rest_.remove_prefix(n);
      return true;
    }
    case WireType::kBytes:
      if (!ReadVarint(&number_)) return false;
      if (field_ == open_field_) {
        opened_ = true;
        return true;
      }
      if (number_ > rest_.size()) return false;
      bytes_ = rest_.substr(0, number_);
      rest_.remove_prefix(number_);
      return true;
  }
  return false;  // groups and types that do not exist
}

bool WireReader::Next() {
  if (!ok_ || opened_ || rest_.empty()) return false;
  uint64_t tag;
  if (!ReadVarint(&tag) || (tag >> 3) == 0 || (tag >> 3) > (1u << 29) - 1) {
    ok_ = false;
    return false;
  }
  field_ = static_cast<uint32_t>(tag >> 3);
  type_ = static_cast<WireType>(tag & 7);
  ok_ = ReadValue();
  return ok_ && !opened_;
}

uint64_t WireReader::Take(WireType type) {
  if (type_ != type) ok_ = false;
  return ok_ ? number_ : 0;
}

uint32_t WireReader::Varint32() {
  const uint64_t value = Varint();
  if (value > std::numeric_limits<uint32_t>::max()) ok_ = false;
  return ok_ ? static_cast<uint32_t>(value) : 0;
}

absl::string_view WireReader::Bytes() {
  if (type_ != WireType::kBytes) ok_ = false;
  return ok_ ? bytes_ : absl::string_view();
}

absl::Status WireReader::status(absl::string_view what) const {
  if (ok_) return absl::OkStatus();
  return absl::DataLossError(absl::StrCat(what, ": malformed field ", field_, " at byte ", position(), " of ", size_));
}

void WireWriter::RawVarint(uint64_t value) {
  while (value >= 0x80) {
    out_->push_back(static_cast<char>(value | 0x80));
    value >>= 7;
  }
  out_->push_back(static_cast<char>(value));
}

void WireWriter::RawFixed32(uint32_t value) { out_->append(reinterpret_cast<const char*>(&value), sizeof(value)); }
void WireWriter::RawFixed64(uint64_t value) { out_->append(reinterpret_cast<const char*>(&value), sizeof(value)); }

void WireWriter::VarintAlways(uint32_t field, uint64_t value) {
  Tag(field, WireType::kVarint);
  RawVarint(value);
}

void WireWriter::Fixed32(uint32_t field, uint32_t value) {
  if (value == 0) return;
  Tag(field, WireType::kFixed32);
  RawFixed32(value);
}

void WireWriter::Fixed64(uint32_t field, uint64_t value) {
  if (value == 0) return;
  Tag(field, WireType::kFixed64);
  RawFixed64(value);
}

void WireWriter::LengthPrefix(uint32_t field, uint64_t bytes) {
  Tag(field, WireType::kBytes);
  RawVarint(bytes);
}

void WireWriter::Message(uint32_t field, absl::string_view encoded) {
  LengthPrefix(field, encoded.size());
  out_->append(encoded.data(), encoded.size());
}

}  // namespace ballast
