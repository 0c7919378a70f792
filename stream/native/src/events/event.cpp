#include "events/event.h"

#include <algorithm>

namespace prectr {
namespace {

constexpr uint32_t kSeed = 0x9747b28c, kMultiplier = 0x5bd1e995;

void read_items(Reader& in, View encoded, Event& page) {
  size_t items = in.array();
  page.items.clear();
  page.levels.assign(items, '\0');
  for (size_t i = 0; i < items; i++) {
    ItemPlace place{static_cast<uint32_t>(in.position()), 0, 0};
    for (size_t fields = in.map(); fields--;) {
      View name = in.text();
      if (name == "item_id") {
        View id = in.text();
        place.id_start = static_cast<uint32_t>(id.data() - encoded.data());
        place.id_size = static_cast<uint32_t>(id.size());
      } else if (name == "relevance") {
        int64_t level = in.null() ? 0 : in.integer();
        if (level < 0 || level > 4) Reader::damaged();
        page.levels[i] = static_cast<char>(level);
      } else {
        in.raw();
      }
    }
    page.items.push_back(place);
  }
}

}  // namespace

void read_page(View encoded, Event& page) {
  Reader in(encoded);
  for (size_t fields = in.map(); fields--;) {
    View name = in.text();
    if (name == "request_id") page.request_id = in.text();
    else if (name == "user_id") page.user_id = in.text();
    else if (name == "query") page.query = in.text();
    else if (name == "ts") page.ts = in.count();
    else if (name == "items") read_items(in, encoded, page);
    else in.raw();
  }
  if (!in.done() || page.request_id.empty() || page.user_id.empty()) Reader::damaged();
  page.kind = Event::kPage;
}

void read_event(View encoded, Event& event) {
  Reader in(encoded);
  for (size_t fields = in.map(); fields--;) {
    View name = in.text();
    if (name == "type") {
      if (in.text() == "impression") {
        read_page(encoded, event);
        event.encoded = encoded;
        return;
      }
    } else if (name == "request_id") event.request_id = in.text();
    else if (name == "user_id") event.user_id = in.text();
    else if (name == "item_id") event.item_id = in.text();
    else if (name == "ts") event.ts = in.count();
    else if (name == "action") event.action = in.text(), event.has_action = true;
    else in.raw();
  }
  if (!in.done() || event.request_id.empty() || event.user_id.empty()) Reader::damaged();
  event.kind = Event::kClick;
}

void write_click(Writer& out, const Event& click) {
  out.map(click.has_action ? 6 : 5);
  out.text("type"), out.text("click");
  out.text("request_id"), out.text(click.request_id);
  out.text("user_id"), out.text(click.user_id);
  out.text("item_id"), out.text(click.item_id);
  out.text("ts"), out.integer(click.ts);
  if (click.has_action) out.text("action"), out.text(click.action);
}

bool is_ascii(View text) {
  return std::all_of(text.begin(), text.end(), [](char c) { return static_cast<uint8_t>(c) < 0x80; });
}

std::string ascii_query_key(View query) {
  std::string key;
  key.reserve(query.size());
  bool has_gap = false;
  for (char c : query) {
    // What Python's str.split takes for white space.
    if (c == ' ' || (c >= '\t' && c <= '\r') || (c >= '\x1c' && c <= '\x1f')) {
      has_gap = true;
      continue;
    }
    if (has_gap && !key.empty()) key.push_back(' ');
    has_gap = false;
    key.push_back(c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c);
  }
  return key;
}

uint32_t partition_of(View key, uint32_t partitions) {
  size_t size = key.size(), whole = size & ~size_t{3};
  const auto* bytes = reinterpret_cast<const uint8_t*>(key.data());
  uint32_t hash = kSeed ^ static_cast<uint32_t>(size);
  for (size_t at = 0; at < whole; at += 4) {
    uint32_t word = bytes[at] | bytes[at + 1] << 8 | bytes[at + 2] << 16 | uint32_t{bytes[at + 3]} << 24;
    word *= kMultiplier;
    word = (word ^ word >> 24) * kMultiplier;
    hash = hash * kMultiplier ^ word;
  }
  for (size_t at = whole; at < size; at++) hash ^= uint32_t{bytes[at]} << (8 * (at - whole));
  if (size > whole) hash *= kMultiplier;
  hash = (hash ^ hash >> 13) * kMultiplier;
  return ((hash ^ hash >> 15) & 0x7fffffff) % partitions;
}

}  // namespace prectr
