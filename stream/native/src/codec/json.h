// JSON, read strictly: whatever is unusual is refused, for the decoder in Python to judge.
#pragma once

#include <deque>
#include <string>

#include "codec/msgpack.h"

namespace prectr {

// Every method returns false for what it refuses; the caller then gives up on the line.
class JsonReader {
 public:
  // `unescaped` keeps the strings that had escapes.
  JsonReader(View line, std::deque<std::string>& unescaped)
      : at_(line.data()), end_(at_ + line.size()), unescaped_(unescaped) {}

  bool take(char wanted);
  bool null();
  bool text(View& value);
  // A name in an object: without escapes, which nobody writes in one.
  bool name(View& value);
  // Digits alone, at most 15 of them.
  bool integer(int64_t& value);
  bool real(double& value);
  bool is_text();
  bool skip(int depth = 0);
  bool at_end();

 private:
  void skip_space();
  bool unescape(const char* start, View& value);
  bool escape(std::string& out);
  bool number(View& value);
  bool word(View expected);

  const char* at_;
  const char* end_;
  std::deque<std::string>& unescaped_;
};

// Whether all bytes are UTF-8 without surrogates; `is_ascii`: whether there is no byte from 0x80 on.
bool is_utf8(View bytes, bool& is_ascii);

}  // namespace prectr
