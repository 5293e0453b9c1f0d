"""A bfloat16 checkpoint in FP8: as it is read, or written as the published split files."""
