"""Records what viewers get into MP4 files that a crash or a full disk leaves playable. Takes encoded packets from
the broadcast as a viewer does; knows nothing of viewers, connections or the session.
"""
