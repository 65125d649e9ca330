"""A picture of a screen with at most 256 colours: half the bytes, and no eye sees it. Reads what Chromium writes,
PNG of 8 bits a channel without interlace."""

import collections
import struct
import zlib


def rows(png):
    """Width, height, and the pixels of each row as (red, green, blue), five bits a channel."""
    at, data, head = 8, b"", None
    while at < len(png):
        size, kind = struct.unpack(">I4s", png[at:at + 8])
        body = png[at + 8:at + 8 + size]
        head = body if kind == b"IHDR" else head
        data += body if kind == b"IDAT" else b""
        at += 12 + size
    width, height, depth, colour, _, _, interlace = struct.unpack(">IIBBBBB", head)
    if depth != 8 or colour not in (2, 6) or interlace:
        raise ValueError(f"a PNG of depth {depth}, colour type {colour}, interlace {interlace}")
    step, raw = (3 if colour == 2 else 4), zlib.decompress(data)
    before, pixels = bytearray(width * step), []
    for y in range(height):
        start = y * (width * step + 1)
        row = bytearray(raw[start + 1:start + 1 + width * step])
        unfilter(raw[start], row, before, step)
        pixels.append([tuple(c >> 3 for c in row[x:x + 3]) for x in range(0, len(row), step)])
        before = row
    return width, height, pixels


def unfilter(kind, row, before, step):
    for i in range(len(row)):
        left, up, corner = (row[i - step] if i >= step else 0), before[i], (before[i - step] if i >= step else 0)
        if kind == 1:
            row[i] = (row[i] + left) & 255
        elif kind == 2:
            row[i] = (row[i] + up) & 255
        elif kind == 3:
            row[i] = (row[i] + (left + up) // 2) & 255
        elif kind == 4:
            guess = left + up - corner
            nearest = min((abs(guess - left), 0, left), (abs(guess - up), 1, up), (abs(guess - corner), 2, corner))
            row[i] = (row[i] + nearest[2]) & 255


def reduced(png):
    """The same picture as a PNG with a palette of its most frequent colours."""
    width, height, pixels = rows(png)
    counts = collections.Counter(pixel for row in pixels for pixel in row)
    palette = [colour for colour, _ in counts.most_common(256)]
    place = {colour: i for i, colour in enumerate(palette)}
    for colour in counts:
        if colour not in place:
            far = [sum((a - b) ** 2 for a, b in zip(colour, other)) for other in palette]
            place[colour] = far.index(min(far))
    raw = b"".join(b"\0" + bytes(place[pixel] for pixel in row) for row in pixels)

    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    colours = bytes(c * 255 // 31 for colour in palette for c in colour)
    head = struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)
    return png[:8] + chunk(b"IHDR", head) + chunk(b"PLTE", colours) + chunk(b"IDAT", zlib.compress(raw, 9)) + chunk(b"IEND", b"")
