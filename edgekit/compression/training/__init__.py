"""The one training loop: fine-tuning after pruning, distillation and quantization-aware training all run through it."""
