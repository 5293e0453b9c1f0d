"""Sound on its way in, up to samples: files, the driving track, a live input, the voice to imitate.

numpy only. `models.audio_encoder` makes tokens of what comes out of here.
"""
