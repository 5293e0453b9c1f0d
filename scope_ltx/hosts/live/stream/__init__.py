"""What is on air: loads the model, has chunks made on the generation thread, hands them to the broadcast, and
explains failures to people. Knows nothing of HTTP, viewers or files; who wants to hear of chunks is a
`ChunkObserver`.
"""
