"""What a file's first bytes say it is, whatever its name or its sender calls it.

The signatures are those of the formats' own specifications, and for pages and texts those of the WHATWG's "MIME
Sniffing". They tell apart what ComfyUI's loaders open (Pillow's pictures, FFmpeg's containers) from what they do not.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal

HEAD_BYTES: Final = 4096
"""How many of a file's first bytes `content_of` looks at. It needs no more, and makes do with fewer."""

ContentKind = Literal["image", "video", "audio", "page", "text", "archive", "other"]


@dataclass(frozen=True, slots=True)
class Content:
    """A kind of file. `said` names one in a sentence; `suffixes` are the endings it goes by, the usual one first."""

    media_type: str
    suffixes: tuple[str, ...]
    kind: ContentKind
    said: str
    moves: bool = False
    """Whether a picture has several frames, and so may serve as a video."""

    @property
    def suffix(self) -> str:
        return self.suffixes[0]


def _content(media_type: str, suffixes: str, kind: ContentKind, said: str, *, moves: bool = False) -> Content:
    return Content(media_type, tuple(suffixes.split()), kind, said, moves)


_PNG: Final = _content("image/png", ".png .apng", "image", "a PNG picture")
_APNG: Final = _content("image/apng", ".png .apng", "image", "an animated PNG picture", moves=True)
_WEBP: Final = _content("image/webp", ".webp", "image", "a WebP picture")
_MOVING_WEBP: Final = _content("image/webp", ".webp", "image", "an animated WebP picture", moves=True)
_AVIF: Final = _content("image/avif", ".avif .avifs", "image", "an AVIF picture")
_HEIC: Final = _content("image/heic", ".heic .heif .hif", "other", "an HEIC picture")
_RAW: Final = _content("image/x-canon-cr3", ".cr3", "other", "a raw picture of a camera")
_MP4_SUFFIXES: Final = ".mp4 .m4v .mov .qt .3gp .3g2 .f4v .m4a"
_MP4: Final = _content("video/mp4", _MP4_SUFFIXES, "video", "an MP4 video")
_QUICKTIME: Final = _content("video/quicktime", ".mov .qt .mp4 .m4v", "video", "a QuickTime video")
_M4A: Final = _content("audio/mp4", ".m4a .m4b .m4p .mp4 .f4a .aac", "audio", "an M4A sound")
_3GP: Final = _content("video/3gpp", ".3gp .3g2 .mp4", "video", "a 3GP video")
_MATROSKA: Final = _content("video/x-matroska", ".mkv .mka .mk3d .webm", "video", "a Matroska video")
_WEBM: Final = _content("video/webm", ".webm .weba .mkv", "video", "a WebM video")
_AVI: Final = _content("video/x-msvideo", ".avi", "video", "an AVI video")
_TS: Final = _content("video/mp2t", ".ts .mts .m2ts .m2t", "video", "an MPEG transport stream")
_OGG_SUFFIXES: Final = ".ogg .oga .opus .spx"
_OGG_VIDEO: Final = _content("video/ogg", ".ogv .ogg", "video", "an Ogg video")
_OGG_AUDIO: Final = _content("audio/ogg", _OGG_SUFFIXES, "audio", "an Ogg sound")
_OPUS: Final = _content("audio/opus", ".opus .ogg .oga", "audio", "an Opus sound")
_WAV: Final = _content("audio/wav", ".wav .wave .bwf .rf64", "audio", "a WAV sound")
_MP3: Final = _content("audio/mpeg", ".mp3 .mp2 .mpga .mpa", "audio", "an MP3 sound")
_TAGGED: Final = _content("audio/mpeg", ".mp3 .mp2 .mpga .mpa .aac .flac .tta .wav", "audio", "an MP3 sound")
_AAC: Final = _content("audio/aac", ".aac .adts", "audio", "an AAC sound")
_AIFF: Final = _content("audio/aiff", ".aiff .aif .aifc", "audio", "an AIFF sound")
_HTML: Final = _content("text/html", ".html .htm .xhtml", "page", "an HTML page")
_SVG: Final = _content("image/svg+xml", ".svg", "text", "an SVG drawing")
_XML: Final = _content("text/xml", ".xml", "text", "an XML document")
_JSON: Final = _content("application/json", ".json", "text", "a JSON document")
_TEXT: Final = _content("text/plain", ".txt", "text", "plain text")
_BMP: Final = _content("image/bmp", ".bmp .dib", "image", "a BMP picture")
_ICON: Final = _content("image/vnd.microsoft.icon", ".ico", "image", "an ICO picture")
_PPM: Final = _content("image/x-portable-anymap", ".ppm .pgm .pbm .pnm .pam .pfm", "image", "a PPM picture")
_WINDOWS: Final = _content("application/vnd.microsoft.portable-executable", ".exe .dll", "other", "a Windows program")
_TAR: Final = _content("application/x-tar", ".tar", "archive", "a TAR archive")

_STARTS: Final[tuple[tuple[bytes, Content], ...]] = (
    (b"\xff\xd8\xff", _content("image/jpeg", ".jpg .jpeg .jpe .jfif .mpo", "image", "a JPEG picture")),
    (b"GIF87a", gif := _content("image/gif", ".gif", "image", "a GIF picture", moves=True)),
    (b"GIF89a", gif),
    (b"II*\0", tiff := _content("image/tiff", ".tif .tiff .dng", "image", "a TIFF picture")),
    (b"MM\0*", tiff),
    (b"II+\0", tiff),
    (b"MM\0+", tiff),
    (b"\0\0\0\x0cjP  \r\n\x87\n", _content("image/jp2", ".jp2 .jpf .j2k", "other", "a JPEG 2000 picture")),
    (b"\0\0\0\x0cJXL \r\n\x87\n", jxl := _content("image/jxl", ".jxl", "other", "a JPEG XL picture")),
    (b"\xff\x0a", jxl),
    (b"8BPS", _content("image/vnd.adobe.photoshop", ".psd", "other", "a Photoshop picture")),
    (b"v/1\x01", _content("image/x-exr", ".exr", "other", "an OpenEXR picture")),
    (b"#?RADIANCE", _content("image/vnd.radiance", ".hdr", "other", "a Radiance picture")),
    (b"DDS ", _content("image/vnd-ms.dds", ".dds", "other", "a DDS texture")),
    (b"FLV\x01", _content("video/x-flv", ".flv", "video", "an FLV video")),
    (b"\0\0\x01\xba", ps := _content("video/mpeg", ".mpg .mpeg .vob .m2p", "video", "an MPEG video")),
    (b"\0\0\x01\xb3", ps),
    (b"YUV4MPEG2 ", _content("video/x-yuv4mpeg", ".y4m", "video", "a Y4M video")),
    (b"\x06\x0e\x2b\x34\x02\x05\x01\x01", _content("application/mxf", ".mxf", "video", "an MXF video")),
    (b"DKIF\0\0", _content("video/x-ivf", ".ivf", "video", "an IVF video")),
    (
        b"\x30\x26\xb2\x75\x8e\x66\xcf\x11",
        _content("video/x-ms-asf", ".wmv .wma .asf", "video", "a Windows Media file"),
    ),
    (b"fLaC", _content("audio/flac", ".flac", "audio", "a FLAC sound")),
    (b"#!AMR", _content("audio/amr", ".amr", "audio", "an AMR sound")),
    (b"caff\0\x01", _content("audio/x-caf", ".caf", "audio", "a CAF sound")),
    (b".snd\0\0\0", _content("audio/basic", ".au .snd", "audio", "an AU sound")),
    (b"wvpk", _content("audio/x-wavpack", ".wv", "audio", "a WavPack sound")),
    (b"\x0b\x77", _content("audio/ac3", ".ac3 .eac3", "audio", "an AC-3 sound")),
    (b"TTA1", _content("audio/x-tta", ".tta", "audio", "a True Audio sound")),
    (b"riff\x2e\x91\xcf\x11", _content("audio/x-w64", ".w64", "audio", "a Wave64 sound")),
    (b"MAC \x96\x0f", _content("audio/x-ape", ".ape", "audio", "a Monkey's Audio sound")),
    (b"%PDF-", _content("application/pdf", ".pdf", "other", "a PDF document")),
    (b"%!PS", _content("application/postscript", ".ps .eps", "other", "a PostScript document")),
    (b"PK\x03\x04", zipped := _content("application/zip", ".zip", "archive", "a ZIP archive")),
    (b"PK\x05\x06", zipped),
    (b"\x1f\x8b\x08", _content("application/gzip", ".gz .tgz", "archive", "a gzip archive")),
    (b"7z\xbc\xaf\x27\x1c", _content("application/x-7z-compressed", ".7z", "archive", "a 7-Zip archive")),
    (b"Rar!\x1a\x07", _content("application/vnd.rar", ".rar", "archive", "a RAR archive")),
    (b"\x28\xb5\x2f\xfd", _content("application/zstd", ".zst", "archive", "a Zstandard archive")),
    (b"\xfd7zXZ\0", _content("application/x-xz", ".xz", "archive", "an XZ archive")),
    (b"BZh", _content("application/x-bzip2", ".bz2", "archive", "a bzip2 archive")),
    (b"\x7fELF", _content("application/x-elf", ".elf .so", "other", "a Linux program")),
    (b"GGUF", _content("application/x-gguf", ".gguf", "other", "a GGUF model")),
)

_RIFF: Final[dict[bytes, Content]] = {b"AVI ": _AVI, b"WAVE": _WAV, b"WEBP": _WEBP}
_FORM: Final[dict[bytes, Content]] = {b"AIFF": _AIFF, b"AIFC": _AIFF}
_BRANDS: Final[dict[bytes, Content]] = {
    **dict.fromkeys((b"avif", b"avis"), _AVIF),
    **dict.fromkeys((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"), _HEIC),
    **dict.fromkeys((b"M4A ", b"M4B ", b"M4P ", b"F4A "), _M4A),
    b"qt  ": _QUICKTIME,
    b"crx ": _RAW,
}
_PICTURE_BRANDS: Final = frozenset({b"mif1", b"msf1", b"miaf"})
"""Brands that say only that it is a picture; the compatible ones say of which kind."""
_QUICKTIME_ATOMS: Final = frozenset({b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot"})
_SPACE: Final = 0x20
"""A box's size begins with a byte below it, unless the file is a text: `The wide road` is no box named `wide`."""
_BMP_HEADERS: Final = frozenset({12, 16, 40, 52, 56, 64, 108, 124})
"""Sizes in bytes that the second header of a BMP may have."""

_BOMS: Final = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_PAGE: Final = re.compile(
    r"<(?:!doctype\s+html|(?:html|head|body|title|script|style|iframe|table|div|font|br|p|a|b|h1)[\s>/])", re.IGNORECASE
)
_LEAD: Final = re.compile(r"\s*(?:<\?xml[^>]*>\s*|<!--.*?-->\s*|<!doctype\s+svg[^>]*>\s*)*", re.IGNORECASE | re.DOTALL)
_JSON_START: Final = re.compile(r"\s*(?:\{\s*[\"}]|\[\s*[\[\]{\"0-9tfn-])")
_ELEMENT: Final = re.compile(r"<[a-z_][\w.:-]*[\s>/]", re.IGNORECASE)
_PPM_START: Final = re.compile(rb"P[1-7yfF][ \t\r\n#]")
_SUFFIXED: Final = re.compile(r"(.+)(\.[A-Za-z0-9]{1,16})", re.DOTALL)
_BINARY: Final = re.compile(r"[\x00-\x08\x0e-\x1a\x1c-\x1f]")


def content_of(head: bytes) -> Content | None:
    """What a file that begins with `head` is, or None when nothing in it says so."""
    head = head[:HEAD_BYTES]
    for look in _LOOKS:
        if (found := look(head)) is not None:
            return found
    return None


def right_name(name: str, content: Content | None, *, or_its_own: bool = False) -> str:
    """A file's name with an ending that says what it is, because loader nodes list files by it: added where there is
    none, replaced where it says otherwise. With `or_its_own` any that is there stays."""
    if content is None:
        return name
    match = _SUFFIXED.fullmatch(name)
    stem, suffix = (match[1], match[2]) if match else (name, "")
    is_medium = content.kind in ("image", "video", "audio")
    if suffix and (or_its_own or not is_medium or suffix.lower() in content.suffixes):
        return name
    return stem + content.suffix


def _by_start(head: bytes) -> Content | None:
    return next((content for start, content in _STARTS if head.startswith(start)), None)


def _png(head: bytes) -> Content | None:
    """An animated one says so in a chunk before the first picture's data (APNG specification, `acTL`)."""
    if not head.startswith(b"\x89PNG\r\n\x1a\n"):
        return None
    animated, data = head.find(b"acTL"), head.find(b"IDAT")
    return _APNG if animated != -1 and (data == -1 or animated < data) else _PNG


def _riff(head: bytes) -> Content | None:
    if head[:4] in (b"RIFF", b"RIFX", b"RF64"):
        found = _RIFF.get(head[8:12])
        is_extended = found is _WEBP and head[12:16] == b"VP8X"
        return _MOVING_WEBP if is_extended and head[20:21] and head[20] & 0x02 else found
    return _FORM.get(head[8:12]) if head[:4] == b"FORM" else None


def _iso(head: bytes) -> Content | None:
    """ISO base media: the major brand in its first box, then the compatible ones (ISO/IEC 14496-12, `ftyp`)."""
    kind = head[4:8]
    if kind in _QUICKTIME_ATOMS and (head[0] < _SPACE or kind == b"mdat"):
        return _QUICKTIME
    if kind != b"ftyp" or head[0] >= _SPACE:
        return None
    major = head[8:12]
    if major in _BRANDS:
        return _BRANDS[major]
    if major[:3] in (b"3gp", b"3g2", b"3ge"):
        return _3GP
    if major in _PICTURE_BRANDS:
        end = int.from_bytes(head[:4], "big")
        brands = (head[at : at + 4] for at in range(16, min(end, len(head)), 4))
        return next((_BRANDS[brand] for brand in brands if brand in _BRANDS), _HEIC)
    return _MP4


def _matroska(head: bytes) -> Content | None:
    if not head.startswith(b"\x1a\x45\xdf\xa3"):
        return None
    return _WEBM if b"webm" in head[:64] else _MATROSKA


def _ogg(head: bytes) -> Content | None:
    """An Ogg file's streams all begin in its first pages (RFC 3533), each with the name of its codec."""
    if not head.startswith(b"OggS"):
        return None
    if any(name in head for name in (b"\x80theora", b"BBCD\0", b"OVP80\x01")):
        return _OGG_VIDEO
    return _OPUS if b"OpusHead" in head else _OGG_AUDIO


def _transport_stream(head: bytes) -> Content | None:
    """Packets of 188 bytes that begin with 0x47, on a disc each behind a time code of four bytes."""
    for first, step in ((0, 188), (4, 192)):
        starts = head[first : first + 3 * step + 1 : step]
        if len(starts) == 4 and set(starts) == {0x47}:
            return _TS
    return None


def _mpeg_sound(head: bytes) -> Content | None:
    """MP3 and AAC have no signature but the eleven bits that each frame begins with; so the frame must be a possible
    one, and end where the next begins."""
    if head[:3] == b"ID3" and len(head) > 9 and 2 <= head[3] <= 4 and max(head[6:10]) < 0x80:
        return _TAGGED
    for length_of, content in ((_mp3_frame_bytes, _MP3), (_adts_frame_bytes, _AAC)):
        length = length_of(head)
        if length is not None and length_of(head[length:] or head) is not None:
            return content
    return None


_MP3_BITRATES: Final = {  # kbit/s by (is MPEG 1, layer), ISO/IEC 11172-3 and 13818-3
    (True, 1): (32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (True, 2): (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (True, 3): (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (False, 1): (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (False, 2): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (False, 3): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
_MP3_RATES: Final = (44100, 48000, 32000)


def _mp3_frame_bytes(head: bytes) -> int | None:
    if len(head) < 4 or head[0] != 0xFF or head[1] & 0xE0 != 0xE0:
        return None
    version, layer = head[1] >> 3 & 3, 4 - (head[1] >> 1 & 3)
    bitrate, rate, padding = head[2] >> 4, head[2] >> 2 & 3, head[2] >> 1 & 1
    if version == 1 or layer == 4 or bitrate in (0, 15) or rate == 3:
        return None
    is_first = version == 3
    bits = _MP3_BITRATES[is_first, layer][bitrate - 1] * 1000
    samples_a_second = _MP3_RATES[rate] // {3: 1, 2: 2, 0: 4}[version]
    if layer == 1:
        return (12 * bits // samples_a_second + padding) * 4
    return (144 if is_first or layer == 2 else 72) * bits // samples_a_second + padding


def _adts_frame_bytes(head: bytes) -> int | None:
    if len(head) < 6 or head[0] != 0xFF or head[1] & 0xF6 != 0xF0 or head[2] >> 2 & 15 > 12:
        return None
    length = (head[3] & 3) << 11 | head[4] << 3 | head[5] >> 5
    return length if length > 6 else None


def _bitmap(head: bytes) -> Content | None:
    if head[:2] == b"BM" and len(head) > 18 and int.from_bytes(head[14:18], "little") in _BMP_HEADERS:
        return _BMP
    is_icon = head[:4] == b"\0\0\x01\0" and len(head) > 9 and head[4:6] != b"\0\0" and head[9] == 0
    return _ICON if is_icon else _PPM if _PPM_START.match(head) else None


def _program(head: bytes) -> Content | None:
    if head[:2] != b"MZ" or len(head) < 64:
        return None
    at = int.from_bytes(head[60:64], "little")
    return _WINDOWS if head[at : at + 4] == b"PE\0\0" else None


def _tar(head: bytes) -> Content | None:
    return _TAR if head[257:262] == b"ustar" else None


def _text(head: bytes) -> Content | None:
    text = _as_text(head)
    if text is None:
        return None
    body = text[lead.end() :] if (lead := _LEAD.match(text)) else text
    if _PAGE.match(body):
        return _HTML
    if body[:4].lower() == "<svg":
        return _SVG
    if text.lstrip()[:5].lower() == "<?xml" or _ELEMENT.match(body):
        return _XML
    return _JSON if _JSON_START.match(text) else _TEXT


def _as_text(head: bytes) -> str | None:
    """The head as text; None when it is empty, or has what no text has in it."""
    start, encoding = next(((bom, name) for bom, name in _BOMS if head.startswith(bom)), (b"", "utf-8"))
    try:
        # The last character may be cut.
        text = codecs.getincrementaldecoder(encoding)().decode(head[len(start) :])
    except UnicodeDecodeError:
        return None
    return text if text and not _BINARY.search(text) else None


_LOOKS: Final[tuple[Callable[[bytes], Content | None], ...]] = (
    _by_start,
    _png,
    _riff,
    _iso,
    _matroska,
    _ogg,
    _bitmap,
    _program,
    _tar,
    _text,
    _transport_stream,
    _mpeg_sound,
)
