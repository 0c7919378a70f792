#include "codec/json.h"

#include <charconv>

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

namespace prectr {
namespace {

constexpr int kMaxDepth = 30;
constexpr int kMaxDigits = 15;

bool is_digit(char c) { return c >= '0' && c <= '9'; }

// The first quote, backslash or control character.
const char* find_special(const char* at, const char* end) {
#if defined(__SSE2__)
  const __m128i quote = _mm_set1_epi8('"'), backslash = _mm_set1_epi8('\\'), control = _mm_set1_epi8(0x1f);
  for (; end - at >= 16; at += 16) {
    __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(at));
    __m128i found = _mm_or_si128(_mm_cmpeq_epi8(bytes, quote), _mm_cmpeq_epi8(bytes, backslash));
    found = _mm_or_si128(found, _mm_cmpeq_epi8(_mm_min_epu8(bytes, control), bytes));
    if (int mask = _mm_movemask_epi8(found)) return at + __builtin_ctz(mask);
  }
#endif
  while (at < end && *at != '"' && *at != '\\' && static_cast<uint8_t>(*at) >= 0x20) at++;
  return at;
}

void append_utf8(std::string& out, uint32_t code) {
  auto put = [&](uint32_t byte) { out.push_back(static_cast<char>(byte)); };
  if (code < 0x80) return put(code);
  if (code < 0x800) put(0xc0 | code >> 6);
  else if (code < 0x10000) put(0xe0 | code >> 12), put(0x80 | (code >> 6 & 63));
  else put(0xf0 | code >> 18), put(0x80 | (code >> 12 & 63)), put(0x80 | (code >> 6 & 63));
  put(0x80 | (code & 63));
}

bool read_hex(const char*& at, const char* end, uint32_t& value) {
  if (end - at < 4) return false;
  auto [stopped, error] = std::from_chars(at, at + 4, value, 16);
  if (error != std::errc() || stopped != at + 4 || *at == '-') return false;
  at += 4;
  return true;
}

}  // namespace

void JsonReader::skip_space() {
  while (at_ < end_ && (*at_ == ' ' || *at_ == '\t' || *at_ == '\n' || *at_ == '\r')) at_++;
}

bool JsonReader::take(char wanted) {
  skip_space();
  if (at_ == end_ || *at_ != wanted) return false;
  at_++;
  return true;
}

bool JsonReader::word(View expected) {
  skip_space();
  if (!View(at_, end_ - at_).starts_with(expected)) return false;
  at_ += expected.size();
  return true;
}

bool JsonReader::null() { return word("null"); }

bool JsonReader::is_text() {
  skip_space();
  return at_ < end_ && *at_ == '"';
}

bool JsonReader::text(View& value) {
  if (!take('"')) return false;
  const char* start = at_;
  at_ = find_special(at_, end_);
  if (at_ == end_ || static_cast<uint8_t>(*at_) < 0x20) return false;
  if (*at_ == '\\') return unescape(start, value);
  value = View(start, at_ - start);
  at_++;
  return true;
}

bool JsonReader::name(View& value) {
  if (!take('"')) return false;
  const char* start = at_;
  at_ = find_special(at_, end_);
  if (at_ == end_ || *at_ != '"') return false;
  value = View(start, at_ - start);
  at_++;
  return take(':');
}

bool JsonReader::unescape(const char* start, View& value) {
  std::string& out = unescaped_.emplace_back(start, at_);
  while (at_ < end_) {
    char c = *at_++;
    if (c == '"') {
      value = out;
      return true;
    }
    if (static_cast<uint8_t>(c) < 0x20) return false;
    if (c != '\\') out.push_back(c);
    else if (!escape(out)) return false;
  }
  return false;
}

bool JsonReader::escape(std::string& out) {
  if (at_ == end_) return false;
  constexpr View kNames = "\"\\/bfnrt", kMeanings = "\"\\/\b\f\n\r\t";
  char c = *at_++;
  if (size_t index = kNames.find(c); index != View::npos) {
    out.push_back(kMeanings[index]);
    return true;
  }
  uint32_t code, low;
  if (c != 'u' || !read_hex(at_, end_, code)) return false;
  if (code >= 0xd800 && code < 0xe000) {
    // A surrogate alone is no character.
    if (code >= 0xdc00 || end_ - at_ < 2 || at_[0] != '\\' || at_[1] != 'u') return false;
    at_ += 2;
    if (!read_hex(at_, end_, low) || low < 0xdc00 || low >= 0xe000) return false;
    code = 0x10000 + ((code - 0xd800) << 10) + (low - 0xdc00);
  }
  append_utf8(out, code);
  return true;
}

bool JsonReader::number(View& value) {
  skip_space();
  const char* start = at_;
  auto digits = [this] {
    const char* first = at_;
    while (at_ < end_ && is_digit(*at_)) at_++;
    return at_ - first;
  };
  if (at_ < end_ && *at_ == '-') at_++;
  bool has_leading_zero = at_ < end_ && *at_ == '0';
  auto whole = digits();
  if (!whole || whole > kMaxDigits || (has_leading_zero && whole > 1)) return false;
  if (at_ < end_ && *at_ == '.') {
    at_++;
    if (!digits()) return false;
  }
  if (at_ < end_ && (*at_ == 'e' || *at_ == 'E')) {
    at_++;
    if (at_ < end_ && (*at_ == '+' || *at_ == '-')) at_++;
    auto exponent = digits();
    if (!exponent || exponent > 2) return false;
  }
  value = View(start, at_ - start);
  // A negative zero is one or not, by the form in which it is written.
  return at_ - start <= 40 && !(value.starts_with("-0") && value.find_first_of("123456789") == View::npos);
}

bool JsonReader::integer(int64_t& value) {
  View digits;
  if (!number(digits)) return false;
  auto [stopped, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value);
  return error == std::errc() && stopped == digits.data() + digits.size();
}

bool JsonReader::real(double& value) {
  View digits;
  if (!number(digits)) return false;
  auto [stopped, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value);
  return error == std::errc() && stopped == digits.data() + digits.size();
}

bool JsonReader::skip(int depth) {
  skip_space();
  if (at_ == end_ || depth > kMaxDepth) return false;
  View ignored;
  switch (*at_) {
    case '"': return text(ignored);
    case 't': return word("true");
    case 'f': return word("false");
    case 'n': return word("null");
    case '[':
      at_++;
      if (take(']')) return true;
      do
        if (!skip(depth + 1)) return false;
      while (take(','));
      return take(']');
    case '{':
      at_++;
      if (take('}')) return true;
      do
        if (!name(ignored) || !skip(depth + 1)) return false;
      while (take(','));
      return take('}');
  }
  return number(ignored);
}

bool JsonReader::at_end() {
  skip_space();
  return at_ == end_;
}

bool is_utf8(View bytes, bool& is_ascii) {
  is_ascii = true;
  const auto* at = reinterpret_cast<const uint8_t*>(bytes.data());
  const auto* end = at + bytes.size();
  while (at < end) {
    uint64_t eight;
    if (end - at >= 8 && (memcpy(&eight, at, 8), !(eight & 0x8080808080808080))) {
      at += 8;
      continue;
    }
    uint8_t first = *at++;
    if (first < 0x80) continue;
    is_ascii = false;
    int following = first >= 0xf0 ? 3 : first >= 0xe0 ? 2 : 1;
    if (first < 0xc2 || first > 0xf4 || end - at < following) return false;
    uint32_t code = first & (0x3f >> following);
    for (int i = 0; i < following; i++) {
      if ((*at & 0xc0) != 0x80) return false;
      code = code << 6 | (*at++ & 63);
    }
    if (following == 2 && (code < 0x800 || (code >= 0xd800 && code < 0xe000))) return false;
    if (following == 3 && (code < 0x10000 || code > 0x10ffff)) return false;
  }
  return true;
}

}  // namespace prectr
