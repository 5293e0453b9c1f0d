"""Model-agnostic streaming: media in real time. Knows torch, threads and time; never LTX, FP8 or a host."""
