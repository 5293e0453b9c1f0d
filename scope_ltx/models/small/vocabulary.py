"""The small model's tokenizer: a SentencePiece model trained from a built-in list of words.

Ids are those of Gemma: pad 0, eos 1, bos 2, unk 3. Bytes are pieces of their own, so any text encodes.
Each common word is one piece, which lets the embedding give a colour word its colour.
"""

from __future__ import annotations

import io
from collections.abc import Sequence

import sentencepiece

COLOURS: dict[str, tuple[float, float, float]] = {
    "red": (1.0, -0.8, -0.8),
    "green": (-0.8, 0.7, -0.7),
    "blue": (-0.8, -0.5, 1.0),
    "yellow": (1.0, 0.8, -0.8),
    "orange": (1.0, 0.1, -0.9),
    "purple": (0.3, -0.8, 0.7),
    "pink": (1.0, 0.1, 0.5),
    "cyan": (-0.8, 0.8, 0.9),
    "teal": (-0.8, 0.2, 0.2),
    "brown": (0.1, -0.3, -0.7),
    "gold": (0.9, 0.5, -0.7),
    "silver": (0.4, 0.4, 0.5),
    "white": (1.0, 1.0, 1.0),
    "gray": (-0.1, -0.1, -0.1),
    "grey": (-0.1, -0.1, -0.1),
    "black": (-0.8, -0.8, -0.8),
    "navy": (-0.9, -0.8, 0.1),
    "beige": (0.7, 0.6, 0.3),
    "violet": (0.4, -0.6, 0.9),
    "turquoise": (-0.6, 0.7, 0.6),
    "crimson": (0.8, -0.9, -0.6),
    "sunset": (1.0, 0.1, -0.3),
    "ocean": (-0.8, 0.0, 0.6),
    "sea": (-0.7, 0.1, 0.5),
    "sky": (-0.3, 0.3, 1.0),
    "forest": (-0.8, 0.3, -0.7),
    "grass": (-0.5, 0.6, -0.8),
    "fire": (1.0, -0.1, -0.9),
    "night": (-0.8, -0.8, -0.3),
    "snow": (0.8, 0.9, 1.0),
    "sand": (0.6, 0.4, -0.1),
}
"""Words that carry a colour: red, green and blue, each in [-1, 1]."""

_WORDS = """
a an the and or of in on at to with without from into over under above below behind between near by for as is are
it its this that there one two three four five many some all no not very slowly quickly gently softly still
small medium large big tiny huge round bright dark light warm cold deep pale clear soft loud quiet
circle square triangle star ball box cube line ring spiral wave cloud dot stripe shape object light shadow
slides right left moves up down bounces around circles grows shrinks blinks repeatedly stays turns rotates falls
rises floats flies drifts glows fades spins jumps runs walks dances swims rolls shakes opens closes
background foreground scene video camera shot close wide view zoom pan tilt frame picture sound music voice
person man woman child people face hand dog cat bird horse fish tree flower leaf mountain river lake rain wind
water sun moon city street house room window door car train boat road bridge field garden beach
morning evening day summer winter spring autumn time slow fast moving cinematic realistic abstract colour color
"""

_VOCABULARY_SIZE = 2048


def train_tokenizer(more_words: Sequence[str] = ()) -> bytes:
    """A serialised SentencePiece model, the same bytes on every call. Takes about a tenth of a second.

    Every built-in word and each of `more_words` becomes one piece.
    """
    words = sorted({*COLOURS, *_WORDS.split(), *more_words})
    # Each word both inside a sentence and alone: a prompt's first word has no space before it.
    lines = [*3 * [" ".join(words)], *words, *(word.capitalize() for word in words)]
    lines += [" ".join(word.capitalize() for word in words), "0 1 2 3 4 5 6 7 8 9 . , ; : ! ? ' \" ( ) -"]
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines),
        model_writer=model,
        model_type="bpe",
        vocab_size=_VOCABULARY_SIZE,
        hard_vocab_limit=False,
        character_coverage=1.0,
        byte_fallback=True,
        split_digits=True,
        allow_whitespace_only_pieces=True,
        normalization_rule_name="identity",
        add_dummy_prefix=False,
        remove_extra_whitespaces=False,
        max_sentence_length=65536,
        pad_id=0,
        eos_id=1,
        bos_id=2,
        unk_id=3,
        num_threads=1,
        minloglevel=2,
    )
    return model.getvalue()


def read_pieces(model: bytes) -> list[str]:
    """The text of every piece by id, without the mark for a leading space."""
    processor = sentencepiece.SentencePieceProcessor(model_proto=model)
    return [str(processor.id_to_piece(i)).strip("\u2581") for i in range(processor.get_piece_size())]
