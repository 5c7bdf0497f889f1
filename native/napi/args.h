// Checked arguments and typed errors at the addon's boundary.
#pragma once

#include <napi.h>

#include <cstdint>
#include <limits>
#include <span>
#include <string>

namespace sealbd {

constexpr double kMaxSafeInteger = 9007199254740991.0;

inline Napi::Error error_with_code(Napi::Env env, const char* code, const std::string& message) {
  Napi::Error error = Napi::Error::New(env, message);
  error.Set("code", Napi::String::New(env, code));
  return error;
}

[[noreturn]] inline void throw_invalid(Napi::Env env, const std::string& message) {
  throw error_with_code(env, "EINVAL", message);
}

// The number, or nothing where the value is none. One call into the engine: run functions have nine arguments.
inline bool get_number(Napi::Value value, double& number) {
  return napi_get_value_double(value.Env(), value, &number) == napi_ok;
}

// `number` as an integer in [min, max].
inline int64_t int_of(Napi::Env env, double number, const char* name, int64_t min, int64_t max) {
  if (number >= static_cast<double>(min) && number <= static_cast<double>(max)) {
    const auto integer = static_cast<int64_t>(number);
    if (static_cast<double>(integer) == number) return integer;
  }
  throw_invalid(env, std::string(name) + " must be an integer from " + std::to_string(min) + " to " +
                         std::to_string(max));
}

// An integer argument in [min, max].
inline int64_t int_arg(const Napi::CallbackInfo& info, size_t i, const char* name, int64_t min, int64_t max) {
  double number = std::numeric_limits<double>::quiet_NaN();
  get_number(info[i], number);
  return int_of(info.Env(), number, name, min, max);
}

// A handle or ref: any number; its user decides whether it names something.
inline double number_arg(const Napi::CallbackInfo& info, size_t i, const char* name) {
  double number = 0;
  if (!get_number(info[i], number)) throw_invalid(info.Env(), std::string(name) + " must be a number");
  return number;
}

inline bool bool_arg(const Napi::CallbackInfo& info, size_t i, const char* name) {
  const Napi::Value value = info[i];
  if (!value.IsBoolean()) throw_invalid(info.Env(), std::string(name) + " must be a boolean");
  return value.As<Napi::Boolean>().Value();
}

inline std::string string_arg(const Napi::CallbackInfo& info, size_t i, const char* name) {
  const Napi::Value value = info[i];
  if (!value.IsString()) throw_invalid(info.Env(), std::string(name) + " must be a string");
  return value.As<Napi::String>().Utf8Value();
}

// The bytes of a Uint8Array (or Buffer). Good until control returns to JavaScript.
inline std::span<uint8_t> bytes_arg(const Napi::CallbackInfo& info, size_t i, const char* name) {
  const Napi::Value value = info[i];
  if (value.IsTypedArray()) {
    const auto array = value.As<Napi::TypedArray>();
    if (array.TypedArrayType() == napi_uint8_array) {
      auto bytes = value.As<Napi::Uint8Array>();
      return {bytes.Data(), bytes.ElementLength()};
    }
  }
  throw_invalid(info.Env(), std::string(name) + " must be a Uint8Array");
}

inline std::span<uint8_t> bytes_arg(const Napi::CallbackInfo& info, size_t i, const char* name, size_t size) {
  const auto bytes = bytes_arg(info, i, name);
  if (bytes.size() != size) throw_invalid(info.Env(), std::string(name) + " must have " + std::to_string(size) + " bytes");
  return bytes;
}

// The numbers of a Float64Array. Good until control returns to JavaScript.
inline std::span<double> doubles_arg(const Napi::CallbackInfo& info, size_t i, const char* name) {
  const Napi::Value value = info[i];
  if (value.IsTypedArray() && value.As<Napi::TypedArray>().TypedArrayType() == napi_float64_array) {
    auto numbers = value.As<Napi::Float64Array>();
    return {numbers.Data(), numbers.ElementLength()};
  }
  throw_invalid(info.Env(), std::string(name) + " must be a Float64Array");
}

template <class Fn>
void export_function(Napi::Env env, Napi::Object exports, const char* name, Fn fn) {
  exports.Set(name, Napi::Function::New(env, fn, name));
}

}  // namespace sealbd
