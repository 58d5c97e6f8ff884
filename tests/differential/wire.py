"""Protobuf bytes in, a tree of numbered fields out, in the order in which they were written: enough to compare two of them."""

# Seconds since 1970 above it are the present.
PRESENT = 1_700_000_000


def tree(data):
    """An envelope's fields, or those of each frame of a watch."""
    if data[:4] == b"k8s\0":
        return fields(data[4:])
    frames = []
    while len(data) >= 4:
        size = int.from_bytes(data[:4], "big")
        frames.append(fields(data[4 : 4 + size]))
        data = data[4 + size :]
    return frames


def fields(data):
    """The fields of a message, `None` where it is none. What could be a message is taken for one: the same on both sides."""
    out, at = [], 0
    while at < len(data):
        key, at = number(data, at)
        if key is None or key < 8 or key & 7 not in (0, 1, 2, 5):
            return None
        if key & 7 == 0:
            value, at = number(data, at)
        else:
            size, at = {1: (8, at), 5: (4, at)}.get(key & 7) or number(data, at)
            if size is None or at + size > len(data):
                return None
            value, at = part(data[at : at + size]), at + size
        if value is None:
            return None
        out.append([key >> 3, value])
    return "<now>" if out[:1] and out[0][0] == 1 and isinstance(out[0][1], int) and PRESENT < out[0][1] < 2 * PRESENT else out


def part(data):
    if data[:4] == b"k8s\0":
        return fields(data[4:])
    text = data.decode(errors="replace")
    if not data or (text.isprintable() and not any(c < " " for c in text[:3])):
        return "<number>" if text.isdigit() else text
    inner = fields(data)
    return text if inner is None else inner


def number(data, at):
    value = shift = 0
    while at < len(data) and shift < 64:
        value |= (data[at] & 127) << shift
        shift += 7
        at += 1
        if data[at - 1] < 128:
            return value, at
    return None, at
