// Looks up LiteRT's functions in an open library.
#pragma once

#include "library.h"
#include "litert_abi.h"

namespace runner::litert {

Functions find_functions(const Library& library);

}  // namespace runner::litert
