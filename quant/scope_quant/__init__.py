"""FP8 tensors and layers. Knows torch and nothing of LTX, of streaming or of a host."""
