// Looks up TensorFlow Lite's functions in an open library.
#pragma once

#include "library.h"
#include "tflite_abi.h"

namespace runner::tflite {

Functions find_functions(const Library& library);

}  // namespace runner::tflite
