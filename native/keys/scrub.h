// Removes what an operation with keys leaves behind outside its variables.
#pragma once

namespace sealbd {

// Overwrites the stack below the caller, where kernels keep what does not fit into registers (round keys, bit slices,
// hash powers, plaintext), and clears every vector register. Registers outlive the function that used them: whatever
// saves them to memory next (a signal, a switch to another thread, the lookup of a lazy symbol) would save round keys.
void scrub();

// The same, deep enough for what the runtime did with a secret before it called JavaScript. To be called from a later
// turn of the event loop: what is above the caller stays.
void scrub_runtime();

// Does scrub() on every way out. Declared before anything else of an operation, so that it comes after the variables are
// gone, which wipe themselves where they are secret.
class ScrubOnExit {
 public:
  ScrubOnExit() = default;
  ~ScrubOnExit() { scrub(); }
  ScrubOnExit(const ScrubOnExit&) = delete;
  ScrubOnExit& operator=(const ScrubOnExit&) = delete;
};

}  // namespace sealbd
