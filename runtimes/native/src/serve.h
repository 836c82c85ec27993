// Answers requests over a pipe while a model stays loaded: lines of words, and raw values of known size.
//
//     request   run                        then each input:  tensor DTYPE RANK SIZE...   and its values
//               measure WARM_UP REPEAT SECONDS               times the inputs of the last run
//               quit
//     answer    ok COUNT                   then each output: tensor DTYPE RANK SIZE...   and its values
//               json LENGTH                and a document; the first answer, before any request, describes the model
//               error CODE LENGTH          and a message
//
// Values are in C order and little-endian. What cannot be read as a request ends the program; a tensor that does not fit its
// input is answered with an error.
#pragma once

#include <string>

#include "model.h"

namespace runner {

// Ends when the input ends or asks to quit. `description` is the first answer.
void serve(Model& model, const std::string& description, int input, int output);

}  // namespace runner
