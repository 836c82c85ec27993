// ONNX Runtime's library, its errors, and the settings of a session.
#pragma once

#include <string>
#include <utility>

#include "library.h"
#include "model.h"
#include "onnxruntime_abi.h"

namespace runner {

Library open_onnxruntime(const std::string& path);  // empty: looked for
ort::Table onnxruntime_table(const Library& library, RuntimeFacts* facts);

std::pair<int, std::string> take_status(const ort::Table& table, ort::Status* status);  // code and message; released
void check_onnxruntime(const ort::Table& table, ort::Status* status, const RuntimeFacts& facts);

void apply_settings(const ort::Table& table, ort::SessionOptions* settings, const Options& options, RuntimeFacts* facts);

}  // namespace runner
