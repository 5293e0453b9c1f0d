"""Our own server: what the session makes goes to browsers and players, and what people send goes to the session.

`serve` runs it, `app` puts the parts together, `page/` is what a browser loads. Each folder imports those that its
line names, and nothing else of this host; tests/test_arrows.py holds that.

    http        refusals, bodies, access, deadlines
    stream      makes chunks and puts them on air
    uploads     files that people send                   http
    recording   files of what was on air                 http
    webrtc      WHIP: a camera in. WHEP: viewers         http, stream
    control     prompt, parameters, LoRAs                http, stream
    operations  status, metrics, logs                    http, stream, recording, webrtc
"""
