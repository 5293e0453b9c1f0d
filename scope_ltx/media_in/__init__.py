"""Pictures on their way in: stills, reference clips and live frames, up to the uint8 RGB that a VAE encodes.

No torch and no model in here. Import the modules by name: this file imports nothing, because the configuration
needs `pins` and must stay light.
"""
