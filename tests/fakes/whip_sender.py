"""A sender that is not ours: FFmpeg's own WHIP muxer in a process of its own. Numbered frames and the test tone.

    python -m tests.fakes.whip_sender http://127.0.0.1:8000/whip --seconds 10 --profile high

Each frame has its number in its squares; with --times it prints the wall time at which each was drawn.
"""

from __future__ import annotations

import argparse
import sys
import time
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from pathlib import Path
from tempfile import TemporaryDirectory

import av
import numpy as np
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.fakes.generator import draw_counter, sweep

SAMPLE_RATE = 48_000
BLOCK = 960


def send(
    url: str, seconds: float, profile: str, size: tuple[int, int], rate: int, token: str, *, times: bool
) -> int:
    """Paced to the wall clock. Returns how many frames went out; raises av.FFmpegError when refused."""
    height, width = size
    sent = blocks = 0
    with (
        TemporaryDirectory() as folder,
        av.open(url, "w", format="whip", options=_options(folder, token)) as output,
    ):
        video = output.add_stream("libx264", rate=rate)
        video.width, video.height, video.pix_fmt = width, height, "yuv420p"
        video.bit_rate = 2_000_000
        video.options = {
            "profile": profile,
            "preset": "veryfast",
            "tune": "zerolatency",
            "bf": "0",
            "g": str(rate),
        }
        sound = output.add_stream("libopus", rate=SAMPLE_RATE)
        sound.layout, sound.bit_rate = "stereo", 64_000
        output.start_encoding()
        begun_s = time.monotonic()
        while (at_s := time.monotonic() - begun_s) < seconds:
            if blocks * BLOCK / SAMPLE_RATE <= at_s:
                samples = np.ascontiguousarray(sweep(blocks * BLOCK, BLOCK).T).reshape(1, -1)
                block = av.AudioFrame.from_ndarray(samples, format="flt", layout="stereo")
                block.sample_rate, block.pts, block.time_base = (
                    SAMPLE_RATE,
                    blocks * BLOCK,
                    Fraction(1, SAMPLE_RATE),
                )
                output.mux(sound.encode(block))
                blocks += 1
            elif sent / rate <= at_s:
                pixels = np.full((height, width, 3), 96, np.uint8)
                draw_counter(pixels, sent)
                if times:
                    print(sent, time.time(), flush=True)  # noqa: T201
                frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
                frame.pts, frame.time_base = sent, Fraction(1, rate)
                output.mux(video.encode(frame))
                sent += 1
            else:
                time.sleep(0.002)
    return sent


def _options(folder: str, token: str) -> dict[str, str]:
    """With a certificate of its own: FFmpeg with GnuTLS makes one on secp224r1, a curve that OpenSSL refuses."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "sender")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    plain, traditional = serialization.NoEncryption(), serialization.PrivateFormat.TraditionalOpenSSL
    cert_file, key_file = Path(folder, "cert.pem"), Path(folder, "key.pem")
    cert_file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    key_file.write_bytes(key.private_bytes(serialization.Encoding.PEM, traditional, plain))
    options = {"cert_file": str(cert_file), "key_file": str(key_file)}
    return options | ({"authorization": token} if token else {})


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("url")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--profile", default="baseline", choices=("baseline", "main", "high"))
    parser.add_argument("--size", default="384x640", help="height x width")
    parser.add_argument("--rate", type=int, default=30)
    parser.add_argument("--token", default="")
    parser.add_argument("--times", action="store_true")
    given = parser.parse_args()
    height, width = map(int, given.size.split("x"))
    try:
        send(given.url, given.seconds, given.profile, (height, width), given.rate, given.token, times=given.times)
    except av.FFmpegError as error:
        sys.exit(f"not sent: {error}")


if __name__ == "__main__":
    main()
