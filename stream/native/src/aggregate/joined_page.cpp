#include "aggregate/joined_page.h"

#include <algorithm>
#include <cmath>

#include "codec/json.h"
#include "events/limits.h"

namespace prectr {
namespace {

constexpr size_t kFields = 13, kClickFields = 6;

void check(bool holds) {
  if (!holds) Reader::damaged();
}

View read_text(Reader& in, size_t least, size_t most, bool is_checked) {
  View text = in.text();
  bool ascii;
  check(is_checked || (text.size() >= least && text.size() <= most && is_utf8(text, ascii)));
  return text;
}

void skip_label(Reader& in) {
  if (!in.null()) read_text(in, 0, kMaxLabel, false);
}

// As `decode_query_click` in `stream/records.py`.
void check_click(View encoded) {
  Reader in(encoded);
  in.array_of(kClickFields);
  in.integer_in(kMinTs, kMaxTs);
  read_text(in, 1, kMaxId, false);
  in.integer_in(1, 4);
  skip_label(in), skip_label(in);
  check(in.null() || std::isfinite(in.real()));
  check(in.done());
}

bool are_in(View bytes, char least, char most) {
  return std::all_of(bytes.begin(), bytes.end(), [=](char byte) { return least <= byte && byte <= most; });
}

}  // namespace

std::string buffer_key(const OrderKey& key) {
  std::string encoded(1, 'h');
  uint64_t time = static_cast<uint64_t>(key.closes_at) ^ uint64_t{1} << 63;
  for (int shift = 56; shift >= 0; shift -= 8) encoded.push_back(static_cast<char>(time >> shift));
  for (View id : {key.request_id, key.user_id}) {
    for (char c : id) {
      encoded.push_back(c);
      if (!c) encoded.push_back('\xff');
    }
    encoded.append(2, '\0');
  }
  return encoded;
}

JoinedPage::JoinedPage(View given, bool is_checked) : encoded_(given) {
  Reader in(encoded_);
  in.array_of(kFields);
  const char* start = in.rest().data();
  auto since = [&](const char* from) { return View(from, in.rest().data() - from); };
  closes_at = is_checked ? in.integer() : in.integer_in(kMinTs, kMaxClosesAt);
  request_id = read_text(in, 1, kMaxId, is_checked);
  user_id = read_text(in, 1, kMaxId, is_checked);
  ts = in.integer_in(kMinTs, kMaxTs);
  query = read_text(in, 0, kMaxQueryKey, is_checked);
  View labels = in.binary(), levels = in.binary();
  head = since(start);
  counts.read(in);
  if (!is_checked) {
    check(!labels.empty() && labels.size() <= kMaxItems && labels.size() == levels.size());
    check(are_in(labels, 0, 1) && are_in(levels, 1, 4) && counts == count_levels(levels, labels));
  }
  start = in.rest().data();
  in.count();
  LevelCounts().read(in);
  user = since(start);
  history = in.raw();
  page = in.raw();
  clicks.resize(in.array());
  check(is_checked || clicks.size() <= kMaxItems);
  for (View& click : clicks) {
    click = in.binary();
    if (!is_checked) check_click(click);
  }
  check(in.done());
}

PageRecord JoinedPage::moved(int64_t to) const {
  std::string encoded;
  Writer out(encoded);
  out.array(kFields);
  out.integer(to);
  View rest(encoded_);
  Reader in(rest);
  in.array_of(kFields);
  in.integer();
  out.raw(in.rest());
  return std::make_unique<JoinedPage>(encoded, true);
}

}  // namespace prectr
