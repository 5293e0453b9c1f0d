"""Model weights that do not fit the device: blocks in page-locked host memory, copied ahead of their use.

    layout    where each tensor of a block lies in its one packed buffer
    plan      which blocks stay on the device and which are streamed (pure arithmetic)
    host      page-locked host memory
    filling   reading the next blocks while one is locked or copied
    engine    asynchronous copies and the events around them; the CPU form is synchronous
    ring      device slots, shared by every model that streams
    streamer  one model's blocks, walked in order
    graphs    launching a block's kernels, or replaying them captured
    compiled  compiling a function in the background, and when its new form takes over

Two orderings must hold for every streamed block: its copy has landed before its first kernel reads the slot,
and its last kernel has finished before the next copy overwrites the slot. `ring` keeps both, with events on
the device; the host never waits.
"""
