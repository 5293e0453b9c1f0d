"""What a configuration names, opened and read for each chunk: images, reference video, driving track, voice.

Belongs to the generation thread, except for `push_frame` and `push_audio`. A path that stays the same keeps its
file open and its position, also when something else is to follow its end; another one is opened, and clearing it
closes.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Protocol, TypeVar

from scope_ltx.config import MAX_CHUNK_S, LTX2Config
from scope_ltx.inputs import ChunkInputs, DrivingSound, PinnedImage, Pixels, Samples
from scope_ltx.media_in.frame_times import FrameTimes
from scope_ltx.media_in.live import LiveReference
from scope_ltx.media_in.open_reference import open_reference
from scope_ltx.media_in.pins import all_pins
from scope_ltx.media_in.recompress import PIN_CRF, prepare_pin
from scope_ltx.media_in.reference import ReferenceSource
from scope_ltx.sampling.geometry import SAMPLE_RATE, ChunkGeometry
from scope_ltx.sound_in.live import LiveTrack
from scope_ltx.sound_in.track import DrivingTrack, Stretch, Track
from scope_ltx.sound_in.voice import VoiceClip, read_voice
from scope_ltx.splice import Cut, Kept
from scope_streaming.clock import Clock

LIVE_WINDOW_S = 30.0
LIVE_HOLD_S = 5.0
"""A live source that falls silent keeps its last picture for so long; then the configuration governs again."""
LIVE_GONE_S = 60.0
"""For so long after that the user is told about it."""
LIVE_NOTED_S = 1.0
"""A shorter silence is not worth a word."""
LIVE_LATE_S, LIVE_SPARE_S = 0.12, 0.05
"""Live sound beside a live picture, which is the newest always: what waits longer than the first beyond its chunk
has fallen behind. It is let go but for the second, which evens out when chunks begin."""
LIVE_LAG_S = 15.0
"""Live sound alone may wait so long beyond its chunk: a chunk that is made early hears some silence, and what it
missed plays later."""
LIVE_NBYTES = 768 * 2**20
"""Of pushed frames: at 1280x704 and 30 fps they last 10 s. A longer chunk has fewer a second."""
KEPT_IMAGES = 40

Opened = TypeVar("Opened", bound="Closeable")


class Closeable(Protocol):
    def close(self) -> None: ...


@dataclass(frozen=True)
class Taken:
    """One chunk's inputs. `commit` moves the sources on once the chunk is being made; `take_back` undoes that when
    it has failed after all and no other was taken since. `notes` are for the user."""

    inputs: ChunkInputs
    commit: Callable[[], None]
    take_back: Callable[[], None]
    notes: tuple[str, ...] = ()


class _Slot:
    """One opened source, and what it was opened for."""

    def __init__(self) -> None:
        self._key: Hashable = None
        self._source: Closeable | None = None

    def get(self, key: Hashable, make: Callable[[], Opened]) -> tuple[Opened, bool]:
        """The source for `key`, and whether it was opened now. Raises what `make` raises; then nothing is open."""
        if self._source is None or key != self._key:
            self.close()
            self._source, self._key = make(), key
            return self._source, True
        return self._source, False  # type: ignore[return-value]

    def close(self) -> None:
        source, self._source, self._key = self._source, None, None
        if source is not None:
            source.close()


class ChunkSources:
    """Makes the inputs of one chunk after another."""

    def __init__(self, clock: Clock, *, live_input: bool = False) -> None:
        """`live_input`: frames may be pushed at any time. Without it that is known from the first one on."""
        self._clock = clock
        self._live_input = live_input
        self._reference, self._track = _Slot(), _Slot()
        self._reference_at = Fraction(0)
        self._images: OrderedDict[Hashable, Pixels] = OrderedDict()
        self._voice: tuple[Hashable, VoiceClip] | None = None
        self._live_frames: LiveReference | None = None
        self._live_audio: LiveTrack | None = None
        self._live_audio_s = 0.0

    @property
    def live(self) -> bool:
        """Pushed frames are the reference now."""
        age_s = self._live_age_s()
        return age_s is not None and age_s <= LIVE_HOLD_S

    @property
    def _camera_may_come(self) -> bool:
        return self._live_input or self._live_age_s() is not None

    def push_frame(self, frame: Pixels, at_s: float | None = None) -> None:
        """A reference frame, uint8 RGB (H, W, 3), from any thread. While frames come, or did up to 5 s ago, they
        are the reference video, whatever the configuration names. Raises ValueError as LiveReference."""
        if self._live_frames is None:
            # Whether it is still held is decided here, once; a second later it would be an error.
            self._live_frames = LiveReference(self._clock, LIVE_WINDOW_S, LIVE_HOLD_S + 1.0, LIVE_NBYTES)
        self._live_frames.push(frame, at_s)

    def push_audio(self, samples: Samples, timestamp: int | None = None) -> None:
        """Driving sound, (1 or 2, N) float32 at 48 kHz, from any thread. While it comes, or did up to 5 s ago, it
        is the driving track, whatever the configuration names. Raises ValueError as LiveTrack."""
        live = self._live_audio or LiveTrack(MAX_CHUNK_S + LIVE_LAG_S)
        self._live_audio_s = self._clock.now()  # first: a track that seems silent is let go with what it holds
        live.push(samples, timestamp)
        self._live_audio = live

    def drives(self, config: LTX2Config) -> bool:
        """The chunk's sound is given."""
        return config.audio_mode == "driving" and (
            config.audio_input is not None or self._live_track() is not None
        )

    def take(self, config: LTX2Config, cut: Cut, kept: Kept | None) -> Taken:
        """The inputs of the next chunk; `kept` is what it goes on from.

        Raises MediaInputError and SoundFileError naming the file, TrackEnded after a track that is to stop,
        ValueError for inputs that do not go together.
        """
        pins, pin_notes = self._pins(config, repeated=0 if kept is None else len(kept.tail.frames))
        source = self._reference_source(config)
        reference = None if source is None else self._reference_frames(source, config, cut)
        driving, stretch = self._driving(config, cut)
        notes = (*pin_notes, *self._live_notes(config), *_damage_notes(stretch))
        voice = self._voice_of(config)
        inputs = ChunkInputs(
            pins,
            reference,
            driving,
            None if voice is None else voice.samples,
            None if kept is None else kept.tail,
            camera_may_come=self._camera_may_come and (source is None or source is self._live_frames),
        )

        place = self._reference_at

        def commit() -> None:
            self._reference_at = place + Fraction(cut.samples, SAMPLE_RATE)
            if stretch is not None:
                stretch[0].commit(stretch[1])

        def take_back() -> None:
            self._reference_at = place
            if stretch is not None:
                stretch[0].take_back(stretch[1])

        return Taken(inputs, commit, take_back, (*notes, *(voice.notes if voice else ())))

    def close(self) -> None:
        self._reference.close()
        self._track.close()
        for live in (self._live_frames, self._live_audio):
            if live is not None:
                live.close()
        self._images.clear()

    def _pins(self, config: LTX2Config, *, repeated: int) -> tuple[tuple[PinnedImage, ...], tuple[str, ...]]:
        """Without those among the frames that are `repeated` from the chunk before: these are not shown again."""
        pins = all_pins(config.i2v_image, config.i2v_strength, config.images, config.num_frames)
        held = [pin for pin in pins if pin.frame_idx < repeated]
        notes = (
            f"the image at frame {pin.frame_idx} held the first chunk; this one goes on from the chunk before, "
            f"of which it repeats {repeated} frames (continuity extend)"
            for pin in held
        )
        found = tuple(
            PinnedImage(self._image(pin.path, config), pin.frame_idx, pin.strength)
            for pin in pins
            if pin not in held
        )
        return found, tuple(notes)

    def _image(self, path: str, config: LTX2Config) -> Pixels:
        key = (_identity(path), config.height, config.width, config.image_fit)
        if key not in self._images:
            self._images[key] = prepare_pin(path, config.height, config.width, config.image_fit, PIN_CRF)
            while len(self._images) > KEPT_IMAGES:
                self._images.popitem(last=False)
        self._images.move_to_end(key)
        return self._images[key]

    def _reference_frames(self, source: ReferenceSource, config: LTX2Config, cut: Cut) -> Pixels:
        # A chunk that repeats frames looks at what the reference showed with them: before its first, its first.
        start = self._reference_at - Fraction(cut.overlap_samples, SAMPLE_RATE)
        times = FrameTimes(start, config.num_frames, cut.rate)
        return source.frames(times, config.height, config.width, config.image_fit)

    def _reference_source(self, config: LTX2Config) -> ReferenceSource | None:
        if self._live_frames is not None and self.live:
            return self._live_frames
        path = config.reference_video
        if path is None:
            self._reference.close()
            return None
        rate = Fraction(config.frame_rate).limit_denominator(1001)
        folder_rate = rate if Path(path).is_dir() else None
        source, opened = self._reference.get(
            (path, folder_rate), lambda: open_reference(path, rate, config.reference_at_end)
        )
        self._reference_at = (
            Fraction(0) if opened else source.end_with(config.reference_at_end, self._reference_at)
        )
        return source

    def _driving(self, config: LTX2Config, cut: Cut) -> tuple[DrivingSound | None, tuple[Track, Stretch] | None]:
        track = self._track_of(config) if cut.driven else None
        if track is None:
            self._track.close()
            return None, None
        if isinstance(track, LiveTrack):
            self._keep_up(track, cut)
        tokens = ChunkGeometry.of(config).audio_tokens
        stretch = track.peek(cut.samples, tokens, cut.overlap_samples)
        return DrivingSound(stretch.output, stretch.model), (track, stretch)

    def _keep_up(self, track: LiveTrack, cut: Cut) -> None:
        late_s, spare_s = (LIVE_LATE_S, LIVE_SPARE_S) if self.live else (LIVE_LAG_S, LIVE_LAG_S)
        if track.counts.waiting > cut.samples + late_s * SAMPLE_RATE:
            track.catch_up(cut.samples + round(spare_s * SAMPLE_RATE))

    def _track_of(self, config: LTX2Config) -> Track | None:
        live = self._live_track()
        if live is not None or config.audio_input is None:
            # It may have fallen silent since the chunk was cut as one that it drives: then that is silent, too.
            return live or self._live_audio
        path = config.audio_input
        track, _ = self._track.get(path, lambda: DrivingTrack(Path(path), config.audio_at_end))
        track.end_with(config.audio_at_end)
        return track

    def _live_track(self) -> LiveTrack | None:
        """While it is heard. What it still holds when it falls silent is let go: it would come minutes late."""
        live = self._live_audio
        if live is not None and self._clock.now() - self._live_audio_s > LIVE_HOLD_S:
            live.close()
            return None
        return live

    def _live_age_s(self) -> float | None:
        return None if self._live_frames is None else self._live_frames.newest_age_s()

    def _live_notes(self, config: LTX2Config) -> tuple[str, ...]:
        """What to tell about a live picture that stays away, or of which too few fit."""
        age_s = self._live_age_s()
        if self._live_frames is not None and age_s is not None and age_s <= LIVE_NOTED_S:
            kept = self._live_frames.thinned_rate
            if kept is None or kept >= config.frame_rate:
                return ()
            return (f"a chunk this long looks at {kept:.0f} of the live source's pictures a second: no more fit",)
        if age_s is None or not LIVE_NOTED_S < age_s <= LIVE_HOLD_S + LIVE_GONE_S:
            return ()
        if age_s <= LIVE_HOLD_S:
            return (f"the live source sends no picture: its last one is held for {LIVE_HOLD_S:g} s",)
        instead = "the prompt alone" if config.reference_video is None else config.reference_video
        lost = f"the live source was lost: no picture for over {LIVE_HOLD_S:g} s"
        return (f"{lost}, so the stream goes on from {instead}",)

    def _voice_of(self, config: LTX2Config) -> VoiceClip | None:
        if config.audio_mode != "id_lora" or config.audio_input is None:
            return None
        key = _identity(config.audio_input)
        if self._voice is None or self._voice[0] != key:
            self._voice = (key, read_voice(Path(config.audio_input)))
        return self._voice[1]


def _damage_notes(stretch: tuple[Track, Stretch] | None) -> tuple[str, ...]:
    track = None if stretch is None else stretch[0]
    return (track.damage,) if isinstance(track, DrivingTrack) and track.damage is not None else ()


def _identity(path: str) -> Hashable:
    """Changes when the file is replaced. A file that is not there is told by whoever opens it."""
    try:
        found = Path(path).stat()
    except OSError:
        return (path, None)
    return (path, found.st_size, found.st_mtime_ns)
