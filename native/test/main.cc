// What cannot be seen from JavaScript: guard pages, children, the bytes of a wiped slot, data races. The sanitizers
// run this program too (scripts/sanitize.sh). It takes about a second.
#include <cstdio>

namespace sealbd::test {
void guard_pages_stop_overruns();
void memory_given_back_is_gone();
void children_see_no_keys();
void released_and_revoked_bytes_are_zero();
void registers_hold_no_keys();
void stacks_hold_no_keys();
void reads_open_what_comes_before_a_failure();
void a_released_handle_stays_stale();
void kernels_agree();
void threads_and_revocation();
void threads_and_arenas();
}  // namespace sealbd::test

int main() {
  struct Test {
    const char* name;
    void (*run)();
  };
  using namespace sealbd::test;
  const Test tests[] = {
      {"guard pages stop overruns", guard_pages_stop_overruns},
      {"memory given back is gone", memory_given_back_is_gone},
      {"children see no keys", children_see_no_keys},
      {"released and revoked bytes are zero", released_and_revoked_bytes_are_zero},
      {"registers hold no keys", registers_hold_no_keys},
      {"stacks hold no keys", stacks_hold_no_keys},
      {"reads open what comes before a failure", reads_open_what_comes_before_a_failure},
      {"a released handle stays stale", a_released_handle_stays_stale},
      {"kernels agree", kernels_agree},
      {"threads and revocation", threads_and_revocation},
      {"threads and arenas", threads_and_arenas},
  };
  // Line by line: a child that ends must not print what the parent had not printed yet.
  setvbuf(stdout, nullptr, _IOLBF, 0);
  for (const Test& test : tests) {
    test.run();
    std::printf("ok: %s\n", test.name);
  }
  return 0;
}
