import io
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin

from datasets.images.png import Png, stored_png
from tests.support.strategies import photo, seeds

WIDTH, HEIGHT = 37, 29
FILTERS = range(5)


def encoded(image: Image.Image, **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "PNG", **options)
    return stream.getvalue()


def by_hand(pixels: np.ndarray, colour: int, first: int, *, bits: int = 8, lace: int = 0) -> bytes:
    """A PNG whose rows take the filters in turn, beginning with `first`."""
    height, width, channels = pixels.shape
    step = channels * bits // 8
    before, lines = np.zeros(width * step, np.int64), b""
    for number, row in enumerate(pixels.reshape(height, -1).astype(f">u{bits // 8}")):
        line = np.frombuffer(row.tobytes(), np.uint8).astype(np.int64)
        left, corner = (
            np.concatenate([np.zeros(step, np.int64), r])[:-step] for r in (line, before)
        )
        guess = left + before - corner
        far = [abs(guess - left), abs(guess - before), abs(guess - corner)]
        paeth = np.where((far[0] <= far[1]) & (far[0] <= far[2]), left, before)
        paeth = np.where((far[2] < far[0]) & (far[2] < far[1]), corner, paeth)
        kind = (first + number) % 5
        guesses = (np.zeros_like(line), left, before, (left + before) // 2, paeth)
        lines += bytes([kind]) + ((line - guesses[kind]) % 256).astype(np.uint8).tobytes()
        before = line
    header = struct.pack(">II5B", width, height, bits, colour, 0, 0, lace)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(lines)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*given) for given in chunks)


def chunk(name: bytes, data: bytes) -> bytes:
    checksum = zlib.crc32(name + data).to_bytes(4, "big")
    return len(data).to_bytes(4, "big") + name + data + checksum


def pillow(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)))


IMAGE = photo(5, (WIDTH, HEIGHT))
KINDS = {
    "colour": encoded(IMAGE),
    "grey": encoded(IMAGE.convert("L")),
    "palette": encoded(IMAGE.quantize(256)),
    "palette of 4 bits": encoded(IMAGE.quantize(9), bits=4),
    "grey of 1 bit": encoded(IMAGE.convert("1")),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rows", [1, 2, 17, HEIGHT - 1, HEIGHT])
def test_upper_rows_are_those_of_the_whole_image(kind: str, rows: int) -> None:
    png = Png.of(KINDS[kind])
    assert png is not None
    assert png.size == (WIDTH, HEIGHT)

    assert np.array_equal(pillow(png.upper(rows)), pillow(KINDS[kind])[:rows])


@given(seeds, st.sampled_from(FILTERS), st.integers(1, HEIGHT), st.booleans())
def test_the_fast_decoder_makes_pillow_s_bytes(
    seed: int, first: int, rows: int, is_grey: bool
) -> None:
    pixels = np.asarray(photo(seed, (WIDTH, HEIGHT)))[..., : 1 if is_grey else 3]
    data = by_hand(pixels, 0 if is_grey else 2, first)
    png = Png.of(data)
    assert png is not None

    decoded = png.fast(rows)

    assert decoded is not None
    assert decoded.dtype == np.uint8
    assert np.array_equal(decoded.reshape(rows, WIDTH, -1), pixels[:rows])
    assert np.array_equal(decoded, pillow(data)[:rows])


@pytest.mark.parametrize("rows", [1, 20, HEIGHT])
def test_gamma_and_resolution_do_not_move_a_byte(rows: int) -> None:
    plain = KINDS["colour"]
    extra = chunk(b"gAMA", (45455).to_bytes(4, "big")) + chunk(b"sRGB", b"\0")
    extra += chunk(b"cHRM", struct.pack(">8I", *[31270] * 8)) + chunk(b"pHYs", b"\0" * 9)
    png = Png.of(plain[:33] + extra + plain[33:])
    assert png is not None

    decoded = png.fast(rows)

    assert decoded is not None
    assert np.array_equal(decoded, pillow(plain)[:rows])


def sixteen_bits(colour: int) -> bytes:
    channels = 3 if colour == 2 else 1
    pixels = np.arange(WIDTH * HEIGHT * channels).reshape(HEIGHT, WIDTH, channels) * 20
    return by_hand(pixels.astype(np.uint16), colour, 0, bits=16)


def animated() -> bytes:
    stream = io.BytesIO()
    IMAGE.save(stream, "PNG", save_all=True, append_images=[IMAGE.transpose(0)])
    return stream.getvalue()


WHOLE = {
    "16-bit colour": sixteen_bits(2),
    "16-bit grey": sixteen_bits(0),
    "alpha": encoded(IMAGE.convert("RGBA")),
    "grey and alpha": encoded(IMAGE.convert("LA")),
    "transparent colour": encoded(IMAGE, transparency=(1, 2, 3)),
    "transparent palette entry": encoded(IMAGE.quantize(9), transparency=3),
    "interlaced": by_hand(np.zeros((8, 8, 3), np.uint8), 2, 0, lace=1),
    "animated": animated(),
    "cut short": KINDS["colour"][:-20],
    "without end": KINDS["colour"][:-12],
    "no PNG": b"\xff\xd8\xff\xe0" + bytes(60),
    "a name and nothing else": b"\x89PNG\r\n\x1a\n",
    "nothing": b"",
}


@pytest.mark.parametrize("kind", WHOLE)
def test_what_must_be_seen_whole_is_left_to_pillow(kind: str) -> None:
    assert Png.of(WHOLE[kind]) is None


def test_a_picture_above_pillow_s_limit_is_left_to_pillow(monkeypatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", WIDTH * HEIGHT - 1)

    assert Png.of(KINDS["colour"]) is None


@pytest.mark.parametrize("name", ["palette", "palette of 4 bits", "grey of 1 bit"])
def test_layouts_that_decoders_expand_differently_are_left_to_pillow(name: str) -> None:
    png = Png.of(KINDS[name])

    assert png is not None
    assert png.fast(3) is None


def test_metadata_that_pillow_is_asked_about_are_left_to_it() -> None:
    text = PngImagePlugin.PngInfo()
    text.add_text("Raw profile type exif", "x")
    exif = Image.Exif()
    exif[0x0112] = 6
    for options in ({"pnginfo": text}, {"exif": exif}):
        png = Png.of(encoded(IMAGE, **options))
        assert png is not None
        assert png.fast(HEIGHT) is None


@given(seeds, st.integers(33, 900), st.integers(1, 255))
def test_the_fast_decoder_never_makes_other_bytes_of_a_damaged_file(
    seed: int, place: int, flip: int
) -> None:
    data = bytearray(by_hand(np.asarray(photo(seed, (16, 16))), 2, seed))
    data[place % len(data)] ^= flip
    png = Png.of(bytes(data))

    decoded = None if png is None else png.fast(16)

    if decoded is not None:
        assert np.array_equal(decoded, pillow(bytes(data)))


def test_without_the_extra_all_is_left_to_pillow() -> None:
    code = """
import sys
sys.modules["kornia_rs"] = None
from datasets.images.png import Png, stored_png
png = Png.of(sys.stdin.buffer.read())
print(png.fast(5))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], input=KINDS["colour"], capture_output=True, check=True
    )

    assert done.stdout == b"None\n"


@pytest.mark.parametrize("size", [(1, 1), (37, 29), (160, 150)])  # the last has two blocks
def test_a_stored_png_is_read_by_every_decoder(size: tuple[int, int]) -> None:
    image = photo(5, size)
    grey, colours = image.getchannel("R"), bytes(range(256)) * 3

    rgb = stored_png(np.asarray(image))
    indexed = stored_png(np.asarray(grey), colours)

    assert Image.open(io.BytesIO(rgb)).tobytes() == image.tobytes()
    assert Image.open(io.BytesIO(stored_png(np.asarray(grey)))).tobytes() == grey.tobytes()
    read = Image.open(io.BytesIO(indexed))
    assert (read.mode, read.tobytes(), bytes(read.getpalette())) == ("P", grey.tobytes(), colours)
    for rows in {1, size[1]}:
        assert np.array_equal(Png.of(rgb).fast(rows), np.asarray(image)[:rows])
        upper = Image.open(io.BytesIO(Png.of(indexed).upper(rows)))
        assert np.array_equal(np.asarray(upper), np.asarray(grey)[:rows])


def test_the_bytes_of_a_stored_png_never_change() -> None:
    pixels = np.arange(6, dtype=np.uint8).reshape(1, 2, 3)

    # One stored block of 7 bytes; Adler-32 by hand: 1 + 15 = 0x10, 1+1+2+4+7+11+16 = 0x2a.
    assert stored_png(pixels).hex() == (
        "89504e470d0a1a0a"
        "0000000d49484452000000020000000108020000007b40e8dd"
        "00000012494441547801010700f8ff00000102030405002a0010c8715bbd"
        "0000000049454e44ae426082"
    )
