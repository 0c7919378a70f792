// Lines of JSON to events: a strict reader of the one form of the contract (`stream/events/contract.py`).
#include <algorithm>

#include "codec/json.h"
#include "events/event.h"
#include "events/limits.h"

namespace prectr {
namespace {

enum Field : uint32_t {
  kRequest = 1, kUser = 2, kSession = 4, kTs = 8, kQuery = 16, kItems = 32, kContext = 64, kFeatures = 128,
  kItemId = 256, kAction = 512, kTitle = 1024, kLevel = 2048, kPrice = 4096, kCategory = 8192, kBrand = 1 << 14,
  kPosition = 1 << 15,
};

}  // namespace

// Reads one line; every method returns false where the line is to be left to Python.
class EventReader {
 public:
  EventReader(Decoder& decoder, View line, Event& event)
      : decoder_(decoder), line_(line), event_(event), in_(line, decoder.kept_) {}

  bool read() {
    bool ascii;
    View type;
    if (line_.size() > kMaxEvent || !is_utf8(line_, ascii) || !find_type(type)) return false;
    if (type == "click") return read_fields(&EventReader::click_field) && finish_click();
    return type == "impression" && read_fields(&EventReader::page_field) && finish_page();
  }

 private:
  using ReadField = bool (EventReader::*)(View name);

  // A name that is given twice is left to Python.
  bool once(Field field) {
    bool is_first = !(seen_ & field);
    seen_ |= field;
    return is_first;
  }
  bool find_type(View& type) {
    JsonReader in(line_, decoder_.kept_);
    View name;
    if (!in.take('{')) return false;
    do {
      if (!in.name(name)) return false;
      if (name == "type") return in.text(type);
      if (!in.skip()) return false;
    } while (in.take(','));
    return false;
  }
  bool read_fields(ReadField read_field) {
    View name;
    int types = 0;
    if (!in_.take('{')) return false;
    do {
      if (!in_.name(name)) return false;
      bool is_read = name == "type" ? ++types == 1 && in_.skip() : (this->*read_field)(name);
      if (!is_read) return false;
    } while (in_.take(','));
    return in_.take('}') && in_.at_end();
  }
  bool click_field(View name) {
    if (name == "item_id") return once(kItemId) && id(event_.item_id);
    if (name == "action") {
      event_.has_action = true;
      return once(kAction) && in_.text(event_.action) && !event_.action.empty() && event_.action.size() <= kMaxLabel;
    }
    return common_field(name);
  }
  bool page_field(View name) {
    if (name == "query") return once(kQuery) && (in_.null() || (in_.text(event_.query) && event_.query.size() <= kMaxText));
    if (name == "items") return once(kItems) && items();
    if (name == "context") return once(kContext) && map(context_, false);
    if (name == "features") return once(kFeatures) && map(features_, true);
    return common_field(name);
  }
  bool common_field(View name) {
    if (name == "request_id") return once(kRequest) && id(event_.request_id);
    if (name == "user_id") return once(kUser) && (in_.null() || id(event_.user_id));
    if (name == "session_id") {
      // Only of a visitor without a user; else it is an ignored field, whatever it holds.
      return once(kSession) && (in_.is_text() ? in_.text(session_) : in_.skip());
    }
    if (name == "ts") return once(kTs) && in_.integer(event_.ts) && event_.ts >= kMinTs && event_.ts <= kMaxTs;
    return in_.skip();
  }
  bool has(uint32_t fields) const { return (seen_ & fields) == fields; }
  bool finish_user() {
    if (event_.user_id.empty()) event_.user_id = session_;
    event_.has_user = true;
    return !event_.user_id.empty() && event_.user_id.size() <= kMaxId;
  }
  bool finish_click() {
    event_.kind = Event::kClick;
    return has(kRequest | kTs | kItemId) && finish_user();
  }
  bool finish_page() {
    if (!has(kRequest | kTs | kQuery | kItems) || !finish_user()) return false;
    event_.kind = Event::kPage;
    encode();
    return true;
  }

  bool id(View& value) { return in_.text(value) && !value.empty() && value.size() <= kMaxId; }
  bool label(View& value, size_t most) { return in_.text(value) && value.size() <= most; }
  bool items() {
    decoder_.items_.clear();
    if (!in_.take('[')) return false;
    if (in_.take(']')) return true;
    do {
      if (decoder_.items_.size() == kMaxItems || !item(decoder_.items_.emplace_back())) return false;
    } while (in_.take(','));
    return in_.take(']');
  }
  bool item(Decoder::Item& item) {
    View name;
    item.seen = 0;
    if (!in_.take('{')) return false;
    do {
      if (!in_.name(name) || !item_field(item, name)) return false;
    } while (in_.take(','));
    return in_.take('}') && (item.seen & kItemId);
  }
  bool item_field(Decoder::Item& item, View name) {
    Field field;
    if (name == "item_id") field = kItemId;
    else if (name == "title") field = kTitle;
    else if (name == "relevance") field = kLevel;
    else if (name == "price") field = kPrice;
    else if (name == "category") field = kCategory;
    else if (name == "brand") field = kBrand;
    else if (name == "position") field = kPosition;
    else if (name == "features") field = kFeatures;
    else return in_.skip();
    // Null is as if left out; given again after that, it is left to Python like any other.
    if (item.seen & (field | field << 16)) return false;
    if (field != kItemId && field != kFeatures && in_.null()) {
      item.seen |= field << 16;
      return true;
    }
    item.seen |= field;
    switch (field) {
      case kItemId: return id(item.id);
      case kTitle: return label(item.title, kMaxText);
      case kLevel: return in_.integer(item.level) && item.level >= 1 && item.level <= 4;
      case kPrice: return in_.real(item.price);
      case kCategory: return label(item.category, kMaxLabel);
      case kBrand: return label(item.brand, kMaxLabel);
      case kPosition: return in_.integer(item.position) && item.position >= 1 && item.position <= kMaxPosition;
      default: return map(item.features, true);
    }
  }
  // An object of names to texts, and to numbers where it may have some, as MessagePack sorted by name; empty for null.
  bool map(View& encoded, bool has_numbers) {
    encoded = {};
    if (in_.null()) return true;
    auto& entries = decoder_.entries_;
    entries.clear();
    if (!in_.take('{')) return false;
    if (!in_.take('}')) {
      do {
        if (entries.size() == kMaxEntries || !entry(entries.emplace_back(), has_numbers)) return false;
      } while (in_.take(','));
      if (!in_.take('}')) return false;
    }
    std::sort(entries.begin(), entries.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
    std::string bytes;
    Writer out(bytes);
    out.map(entries.size());
    for (size_t i = 0; i < entries.size(); i++) {
      if (i && entries[i].first == entries[i - 1].first) return false;
      out.text(entries[i].first);
      out.raw(entries[i].second);
    }
    encoded = decoder_.keep(bytes);
    return true;
  }
  bool entry(std::pair<View, std::string>& entry, bool has_numbers) {
    entry.second.clear();
    Writer out(entry.second);
    if (!in_.name(entry.first) || entry.first.size() > kMaxLabel) return false;
    if (has_numbers && !in_.is_text()) {
      double value;
      if (!in_.real(value)) return false;
      out.real(value);
      return true;
    }
    View text;
    if (!label(text, kMaxLabel)) return false;
    out.text(text);
    return true;
  }

  void encode() {
    std::string& bytes = event_.encoded;
    bytes.reserve(line_.size() + 64);
    Writer out(bytes);
    out.map(6 + !context_.empty() + !features_.empty());
    out.text("type"), out.text("impression");
    out.text("request_id"), out.text(event_.request_id);
    out.text("user_id"), out.text(event_.user_id);
    out.text("query"), out.text(event_.query);
    out.text("ts"), out.integer(event_.ts);
    out.text("items"), out.array(decoder_.items_.size());
    event_.items.reserve(decoder_.items_.size());
    event_.levels.reserve(decoder_.items_.size());
    int64_t index = 0;
    for (const Decoder::Item& item : decoder_.items_) encode_item(out, item, ++index);
    if (!context_.empty()) out.text("context"), out.raw(context_);
    if (!features_.empty()) out.text("features"), out.raw(features_);
  }
  void encode_item(Writer& out, const Decoder::Item& item, int64_t index) {
    const std::string& bytes = event_.encoded;
    uint32_t start = static_cast<uint32_t>(bytes.size());
    uint32_t optional = item.seen & (kTitle | kLevel | kPrice | kCategory | kBrand);
    out.map(2 + __builtin_popcount(optional) + !item.features.empty());
    out.text("item_id"), out.text(item.id);
    uint32_t id_size = static_cast<uint32_t>(item.id.size());
    event_.items.push_back({start, static_cast<uint32_t>(bytes.size()) - id_size, id_size});
    if (item.seen & kTitle) out.text("title"), out.text(item.title);
    if (item.seen & kLevel) out.text("relevance"), out.integer(item.level);
    if (item.seen & kPrice) out.text("price"), out.real(item.price);
    if (item.seen & kCategory) out.text("category"), out.text(item.category);
    if (item.seen & kBrand) out.text("brand"), out.text(item.brand);
    out.text("position"), out.integer(item.seen & kPosition ? item.position : index);
    if (!item.features.empty()) out.text("features"), out.raw(item.features);
    event_.levels.push_back(static_cast<char>(item.seen & kLevel ? item.level : 0));
  }

  Decoder& decoder_;
  View line_;
  Event& event_;
  JsonReader in_;
  View session_, context_, features_;
  uint32_t seen_ = 0;
};

void Decoder::decode(View line, Event& event) {
  event = Event();
  if (!EventReader(*this, line, event).read()) event = Event();
}

}  // namespace prectr
