"""Live media over WebRTC. WHIP takes one sender (`whip`, `ingest`, `received`), WHEP serves viewers (`whep`,
`viewers`); each is a `peer`, made from one of the `offers`. Of the stream it knows whether there is a picture yet;
of prompts, files and what generates it knows nothing.
"""
