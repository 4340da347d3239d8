"""Writes a sound as a FLAC file without compressing it, which needs no encoder.

Source: RFC 9639. Each block is stored verbatim, or as one number where it is silent; so all but the checksums is a
matter of putting bytes in order.
"""

from __future__ import annotations

import hashlib
import struct
import sys
from array import array
from collections.abc import Iterator
from typing import Final

BLOCK: Final = 4096
"""Samples of a block, of each channel."""

_BITS: Final = 16
_CONSTANT, _VERBATIM = 0, 1


def _table(polynomial: int, bits: int) -> tuple[int, ...]:
    top, mask = 1 << (bits - 1), (1 << bits) - 1
    entries = []
    for byte in range(256):
        value = byte << (bits - 8)
        for _ in range(8):
            value = ((value << 1) ^ polynomial if value & top else value << 1) & mask
        entries.append(value)
    return tuple(entries)


_CRC8: Final = _table(0x07, 8)
_CRC16: Final = _table(0x8005, 16)


def flac(samples: array[int], rate: int, channels: int) -> bytes:
    """The file's bytes. `samples` are signed 16-bit numbers of one channel, which all channels play.

    `rate` is in samples a second, at most 655,350; `channels` from 1 to 8.
    """
    frames = b"".join(_frame(number, block, channels) for number, block in enumerate(_blocks(samples)))
    return b"fLaC" + bytes((0x80,)) + struct.pack(">I", 34)[1:] + _information(samples, rate, channels) + frames


def _blocks(samples: array[int]) -> Iterator[array[int]]:
    return (samples[start : start + BLOCK] for start in range(0, len(samples), BLOCK))


def _information(samples: array[int], rate: int, channels: int) -> bytes:
    packed = rate << 44 | (channels - 1) << 41 | (_BITS - 1) << 36 | len(samples)
    return struct.pack(">HH6xQ", BLOCK, BLOCK, packed) + _digest(samples, channels)


def _digest(samples: array[int], channels: int) -> bytes:
    """MD5 of the samples as they are heard: channels interleaved, little-endian."""
    interleaved = array("h", bytes(len(samples) * channels * 2))
    for channel in range(channels):
        interleaved[channel::channels] = samples
    if sys.byteorder == "big":
        interleaved.byteswap()
    return hashlib.md5(interleaved.tobytes(), usedforsecurity=False).digest()


def _frame(number: int, block: array[int], channels: int) -> bytes:
    # Block size in 16 bits at the header's end (0111), rate and sample size as the file's head says (0000, 000).
    head = bytes((0xFF, 0xF8, 0x70, (channels - 1) << 4)) + _coded(number) + struct.pack(">H", len(block) - 1)
    head += bytes((_checksum8(head),))
    content = head + _subframe(block) * channels
    return content + struct.pack(">H", _checksum16(content))


def _subframe(block: array[int]) -> bytes:
    if block.count(block[0]) == len(block):
        return struct.pack(">Bh", _CONSTANT << 1, block[0])
    ordered = array("h", block)
    if sys.byteorder == "little":
        ordered.byteswap()
    return bytes((_VERBATIM << 1,)) + ordered.tobytes()


def _coded(number: int) -> bytes:
    """A frame's number, coded as UTF-8 codes a character."""
    return chr(number).encode("utf-8", "surrogatepass")


def _checksum8(content: bytes) -> int:
    checksum = 0
    for byte in content:
        checksum = _CRC8[checksum ^ byte]
    return checksum


def _checksum16(content: bytes) -> int:
    checksum, table = 0, _CRC16
    for byte in content:
        checksum = (checksum << 8 & 0xFF00) ^ table[checksum >> 8 ^ byte]
    return checksum
