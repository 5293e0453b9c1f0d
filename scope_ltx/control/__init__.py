"""Guide pictures for in-context LoRAs: edges, depth, pose, motion trails, outpainting and inpainting guides.

Every signal maps frames to frames, uint8 (F, H, W, 3) RGB, on the device the frames are on. The way in:
`groups.build_control` for canny, depth and pose; `draw_tracks`, `outpaint` and `inpaint` for the rest.
"""
