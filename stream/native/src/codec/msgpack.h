// MessagePack as msgspec writes it, and a reader that checks every length.
#pragma once

#include <cstdint>
#include <cstring>
#include <stdexcept>
#include <string>
#include <string_view>

namespace prectr {

using View = std::string_view;

// Bytes that no task of this system has written.
struct Damaged : std::runtime_error {
  using std::runtime_error::runtime_error;
};

class Writer {
 public:
  explicit Writer(std::string& out) : out_(out) {}

  void integer(int64_t value) {
    if (value >= 0) {
      if (value < 0x80) byte(value);
      else if (value <= 0xff) sized<1>(0xcc, value);
      else if (value <= 0xffff) sized<2>(0xcd, value);
      else if (value <= 0xffffffff) sized<4>(0xce, value);
      else sized<8>(0xcf, value);
    } else if (value >= -32) byte(value);
    else if (value >= INT8_MIN) sized<1>(0xd0, value);
    else if (value >= INT16_MIN) sized<2>(0xd1, value);
    else if (value >= INT32_MIN) sized<4>(0xd2, value);
    else sized<8>(0xd3, value);
  }
  void real(double value) {
    uint64_t bits;
    memcpy(&bits, &value, 8);
    sized<8>(0xcb, bits);
  }
  void text(View value) {
    size_t size = value.size();
    if (size < 32) byte(0xa0 | size);
    else if (size <= 0xff) sized<1>(0xd9, size);
    else if (size <= 0xffff) sized<2>(0xda, size);
    else sized<4>(0xdb, size);
    raw(value);
  }
  void binary(View value) {
    size_t size = value.size();
    if (size <= 0xff) sized<1>(0xc4, size);
    else if (size <= 0xffff) sized<2>(0xc5, size);
    else sized<4>(0xc6, size);
    raw(value);
  }
  void array(size_t size) { container(size, 0x90, 0xdc); }
  void map(size_t size) { container(size, 0x80, 0xde); }
  void null() { byte(0xc0); }
  // A value that is MessagePack already.
  void raw(View value) { out_.append(value); }

 private:
  void byte(uint64_t value) { out_.push_back(static_cast<char>(value)); }
  void container(size_t size, uint8_t few, uint8_t many) {
    if (size < 16) byte(few | size);
    else if (size <= 0xffff) sized<2>(many, size);
    else sized<4>(many + 1, size);
  }
  template <int Size>
  void sized(uint8_t tag, uint64_t value) {
    char bytes[Size + 1];
    bytes[0] = static_cast<char>(tag);
    for (int i = 0; i < Size; i++) bytes[1 + i] = static_cast<char>(value >> (8 * (Size - 1 - i)));
    out_.append(bytes, Size + 1);
  }

  std::string& out_;
};

class Reader {
 public:
  static constexpr int64_t kMaxCount = int64_t{1} << 53;

  explicit Reader(View bytes) : start_(bytes.data()), at_(start_), end_(start_ + bytes.size()) {}

  bool done() const { return at_ == end_; }
  View rest() const { return {at_, static_cast<size_t>(end_ - at_)}; }
  size_t position() const { return at_ - start_; }

  int64_t integer() {
    uint8_t tag = next();
    if (tag < 0x80) return tag;
    if (tag >= 0xe0) return static_cast<int8_t>(tag);
    switch (tag) {
      case 0xcc: return number(1);
      case 0xcd: return number(2);
      case 0xce: return number(4);
      case 0xcf: {
        uint64_t value = number(8);
        if (value > INT64_MAX) damaged();
        return value;
      }
      case 0xd0: return static_cast<int8_t>(number(1));
      case 0xd1: return static_cast<int16_t>(number(2));
      case 0xd2: return static_cast<int32_t>(number(4));
      case 0xd3: return static_cast<int64_t>(number(8));
    }
    damaged();
  }
  int64_t integer_in(int64_t least, int64_t most) {
    int64_t value = integer();
    if (value < least || value > most) damaged();
    return value;
  }
  // Counts, and times in ms: so small that sums of a few are no overflow.
  int64_t count() { return integer_in(0, kMaxCount); }
  double real() {
    if (next() != 0xcb) damaged();
    uint64_t bits = number(8);
    double value;
    memcpy(&value, &bits, 8);
    return value;
  }
  View text() {
    uint8_t tag = next();
    if ((tag & 0xe0) == 0xa0) return take(tag & 31);
    if (tag < 0xd9 || tag > 0xdb) damaged();
    return take(number(1 << (tag - 0xd9)));
  }
  View binary() {
    uint8_t tag = next();
    if (tag < 0xc4 || tag > 0xc6) damaged();
    return take(number(1 << (tag - 0xc4)));
  }
  size_t array() { return container(0x90, 0xdc); }
  void array_of(size_t size) {
    if (array() != size) damaged();
  }
  size_t map() { return container(0x80, 0xde); }
  bool null() {
    if (at_ == end_ || static_cast<uint8_t>(*at_) != 0xc0) return false;
    at_++;
    return true;
  }
  // The bytes of the next value, whatever it is.
  View raw() {
    const char* start = at_;
    skip(0);
    return {start, static_cast<size_t>(at_ - start)};
  }
  [[noreturn]] static void damaged() { throw Damaged("not the MessagePack that was expected"); }

 private:
  static constexpr int kMaxDepth = 16;

  uint8_t next() {
    if (at_ == end_) damaged();
    return static_cast<uint8_t>(*at_++);
  }
  uint64_t number(int size) {
    if (end_ - at_ < size) damaged();
    uint64_t value = 0;
    while (size--) value = value << 8 | static_cast<uint8_t>(*at_++);
    return value;
  }
  View take(uint64_t size) {
    if (static_cast<uint64_t>(end_ - at_) < size) damaged();
    View taken(at_, size);
    at_ += size;
    return taken;
  }
  // A container has at least a byte for each entry, so no size can make anyone reserve more than was sent.
  size_t container(uint8_t few, uint8_t many) {
    uint8_t tag = next();
    size_t size = 0;
    if ((tag & 0xf0) == few) size = tag & 15;
    else if (tag == many) size = number(2);
    else if (tag == many + 1) size = number(4);
    else damaged();
    if (size > static_cast<size_t>(end_ - at_)) damaged();
    return size;
  }
  void skip(int depth) {
    if (depth > kMaxDepth || at_ == end_) damaged();
    uint8_t tag = static_cast<uint8_t>(*at_);
    size_t entries = 0;
    if ((tag & 0xe0) == 0xa0 || (tag >= 0xd9 && tag <= 0xdb)) text();
    else if (tag >= 0xc4 && tag <= 0xc6) binary();
    else if ((tag & 0xf0) == 0x90 || tag == 0xdc || tag == 0xdd) entries = array();
    else if ((tag & 0xf0) == 0x80 || tag == 0xde || tag == 0xdf) entries = 2 * map();
    else if (tag == 0xc0 || tag == 0xc2 || tag == 0xc3) at_++;
    else if (tag == 0xcb || tag == 0xca) { at_++; take(tag == 0xcb ? 8 : 4); }
    else if (tag >= 0xd4 && tag <= 0xd8) { at_++; take(1 + (size_t{1} << (tag - 0xd4))); }  // an extension type
    else if (tag >= 0xc7 && tag <= 0xc9) { at_++; take(1 + number(1 << (tag - 0xc7))); }
    else if (tag >= 0xcc && tag <= 0xd3) { at_++; take(1 << (tag & 3)); }  // of any value
    else integer();
    while (entries--) skip(depth + 1);
  }

  const char* start_;
  const char* at_;
  const char* end_;
};

}  // namespace prectr
