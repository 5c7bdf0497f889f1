// Arenas come and go while refs, right and wrong, are resolved: against a list of what is there.
#include <array>

#include "fuzz/input.h"
#include "io/arena.h"

namespace sealbd::fuzz {
namespace {

constexpr size_t kArenasMax = 8;
constexpr size_t kStepsMax = 64;
constexpr double kWord = 4294967296.0;

struct Model {
  std::vector<NewArena> live;
  std::vector<uint32_t> gone;
};

// Near the ends of an arena, of one that is gone, or anything.
double ref_of(Input& input, const Model& model) {
  const uint8_t kind = input.number();
  const auto near = static_cast<double>(input.number<int8_t>());
  if (kind % 4 == 0) return input.number<double>();
  if (kind % 4 == 1 && !model.gone.empty()) return model.gone[kind % model.gone.size()] * kWord + near;
  if (model.live.empty()) return input.number<uint32_t>() * kWord + near;
  const NewArena& arena = model.live[(kind / 4) % model.live.size()];
  const size_t from = kind % 4 == 2 ? 0 : arena.bytes.size();
  return arena.id * kWord + static_cast<double>(from) + near;
}

// Where [ref, ref + size) is, as the header says it.
uint8_t* expected(const Model& model, double ref, size_t size) {
  for (const NewArena& arena : model.live) {
    const double offset = ref - arena.id * kWord;
    if (!(offset >= 0 && offset < kWord) || offset != static_cast<double>(static_cast<size_t>(offset))) continue;
    const auto at = static_cast<size_t>(offset);
    if (at <= arena.bytes.size() && size <= arena.bytes.size() - at) return arena.bytes.data() + at;
  }
  return nullptr;
}

void look(Input& input, const Model& model) {
  const double ref = ref_of(input, model);
  const size_t size = input.number() % 4 == 0 ? input.number<size_t>() : input.below(9000);
  uint8_t* const wanted = expected(model, ref, size);
  const auto span = arena_span(ref, size);
  REQUIRE(span.has_value() == (wanted != nullptr));
  const ArenaPin pin(ref, size);
  REQUIRE(static_cast<bool>(pin) == (wanted != nullptr));
  if (!span) return;
  REQUIRE(span->data() == wanted && span->size() == size && pin.bytes().data() == wanted);
  if (size > 0) span->back() = span->front();
}

}  // namespace
}  // namespace sealbd::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace sealbd;
  using namespace sealbd::fuzz;
  Input input(data, size);
  Model model;
  for (size_t step = 0; step < kStepsMax && !input.empty(); ++step) {
    switch (input.number() % 4) {
      case 0: {
        if (model.live.size() == kArenasMax) break;
        const auto arena = arena_map(1 + input.below(3 * 4096));
        REQUIRE(arena.has_value());
        REQUIRE(std::all_of(arena->bytes.begin(), arena->bytes.end(), [](uint8_t byte) { return byte == 0; }));
        arena->bytes.front() = arena->bytes.back() = 1;
        model.live.push_back(*arena);
        break;
      }
      case 1: {
        if (model.live.empty()) break;
        const size_t i = input.below(model.live.size());
        const uint32_t id = model.live[i].id;
        REQUIRE(arena_destroy(id));
        REQUIRE(!arena_destroy(id));
        model.gone.push_back(id);
        model.live.erase(model.live.begin() + static_cast<std::ptrdiff_t>(i));
        break;
      }
      default:
        look(input, model);
    }
  }
  size_t bytes = 0;
  for (const NewArena& arena : model.live) bytes += arena.bytes.size();
  REQUIRE(arena_stats().arenas == model.live.size() && arena_stats().bytes == bytes);
  for (const NewArena& arena : model.live) REQUIRE(arena_destroy(arena.id));
  return 0;
}
