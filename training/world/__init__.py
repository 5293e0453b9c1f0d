"""A synthetic world of moving shapes with sound: captions, pictures, samples, and detectors that read them back.

Needs torch and numpy alone (Pillow only for contact sheets elsewhere), so that it runs on a bare machine.
"""
