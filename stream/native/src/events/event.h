// Events as stage `join` takes them: read from a line of JSON, or from the MessagePack of the Python types.
#pragma once

#include <cstdint>
#include <deque>
#include <string>
#include <utility>
#include <vector>

#include "codec/msgpack.h"

namespace prectr {

// Where an item of an encoded page begins, and where its id is.
struct ItemPlace {
  uint32_t start;
  uint32_t id_start;
  uint32_t id_size;
};

struct Event {
  // Unsure: for the decoder in Python. The kinds of invalid events are those that are counted apart.
  enum Kind : uint8_t { kUnsure, kPage, kClick, kInvalidPage, kInvalidClick, kUnreadable };

  Kind kind = kUnsure;
  bool has_user = false;
  bool has_action = false;
  int64_t ts = 0;
  View request_id, user_id;
  View item_id, action;  // of a click
  // Of a page: its MessagePack as it came, and the same with all relevance levels where some were missing.
  std::string encoded, labelled;
  std::vector<ItemPlace> items;
  std::string levels;  // one byte per item, 0 where it is missing
  View query;
  std::string query_key;
  bool has_query_key = false;

  bool is_valid() const { return kind == kPage || kind == kClick; }
  bool lacks_levels() const { return labelled.empty() && levels.find('\0') != std::string::npos; }
};

// Reads the MessagePack of a page or a click, which must outlive the event; raises Damaged.
void read_event(View encoded, Event& event);

// Of an encoded page: its fields, and the places and levels of its items.
void read_page(View encoded, Event& page);

void write_click(Writer& out, const Event& click);

// The form by which queries are compared, of one in ASCII.
std::string ascii_query_key(View query);
bool is_ascii(View text);

// Kafka's partition of a key.
uint32_t partition_of(View key, uint32_t partitions);

// Decodes lines of JSON; the views in the events are of the lines, and of strings that it keeps.
class Decoder {
 public:
  // Leaves an event `kUnsure` that is not in the form of the contract, or in which anything is unusual.
  void decode(View line, Event& event);
  // Keeps bytes as long as the decoder.
  View keep(View bytes) { return kept_.emplace_back(bytes); }

 private:
  friend class EventReader;

  struct Item {
    View id, title, category, brand, features;
    double price;
    int64_t level, position;
    uint32_t seen;
  };

  std::deque<std::string> kept_;
  std::vector<Item> items_;
  std::vector<std::pair<View, std::string>> entries_;
};

}  // namespace prectr
