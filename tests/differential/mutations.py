"""Every field of an object, changed in about ten ways each."""

import copy

LONG = "x" * 300
BAD = "Bad_Ünï !/"
REMOVED = Ellipsis


def told(path):
    """A path as validation tells it."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else ("." if text else "") + part
    return text


def to(new):
    return lambda _: copy.deepcopy(new)


CHANGES = {
    bool: [("flipped", lambda old: not old), ("a string", to("x")), ("0", to(0)), ("{}", to({}))],
    int: [
        ("0", to(0)),
        ("-1", to(-1)),
        ("changed", lambda old: old + 1),
        ("2^31", to(2**31)),
        ("10^19", to(10**19)),
        ("1.5", to(1.5)),
        ("a string", to("x")),
        ("[]", to([])),
    ],
    str: [
        ("empty", to("")),
        ("changed", lambda old: old + "x"),
        ("bad characters", to(BAD)),
        ("too long", to(LONG)),
        ("0", to(0)),
        ("-1 as text", to("-1")),
        ("true", to(True)),
        ("[]", to([])),
        ("{}", to({})),
    ],
    list: [
        ("[]", to([])),
        ("{}", to({})),
        ("a string", to("x")),
        ("[null]", to([None])),
        ("duplicate", lambda old: old + copy.deepcopy(old[:1])),
        ("without first", lambda old: old[1:]),
        ("reversed", lambda old: old[::-1]),
    ],
    dict: [
        ("{}", to({})),
        ("[]", to([])),
        ("a string", to("x")),
        ("0", to(0)),
        ("unknown field", lambda old: {**old, "unknownField": 1}),
    ],
}
CHANGES[float] = CHANGES[int]


def of_value(value):
    """(name, what makes the new value of the old) of each change of one value."""
    yield "removed", to(REMOVED)
    yield "null", to(None)
    for name, new in CHANGES.get(type(value), []):
        if name != "reversed" or len(value) > 1:
            yield name, new


def walk(value, path=()):
    """(path, value) of everything in `value` but itself; of plain items of a list the first stands for all."""
    if isinstance(value, dict):
        parts = value.items()
    elif isinstance(value, list):
        plain = value and not isinstance(value[0], (dict, list))
        parts = enumerate(value[:1] if plain else value)
    else:
        return
    for key, part in parts:
        yield path + (key,), part
        yield from walk(part, path + (key,))


def of_object(value, skip=()):
    """(path, name, change) of each change of each field."""
    for path, part in walk(value):
        if any(path[: len(skipped)] == skipped for skipped in skip):
            continue
        for name, new in of_value(part):
            yield path, name, new


def applied(value, path, change):
    """A copy of `value` with one field changed."""
    changed = copy.deepcopy(value)
    place = changed
    for key in path[:-1]:
        place = place[key]
    new = change(place[path[-1]])
    if new is REMOVED:
        del place[path[-1]]
    else:
        place[path[-1]] = new
    return changed


def at(value, path):
    for key in path:
        value = value[key]
    return value


def merge_patch(value, path, change):
    """The change as a merge patch: lists are sent whole."""
    upto = next((i for i, key in enumerate(path) if isinstance(key, int)), len(path))
    if upto < len(path):
        patch = applied(at(value, path[:upto]), path[upto:], change)
    else:
        patch = change(at(value, path))
        patch = None if patch is REMOVED else patch
    for key in reversed(path[:upto]):
        patch = {key: patch}
    return patch


def json_patch(value, path, change):
    pointer = "".join("/" + str(key).replace("~", "~0").replace("/", "~1") for key in path)
    new = change(at(value, path))
    if new is REMOVED:
        return [{"op": "remove", "path": pointer}]
    return [{"op": "replace", "path": pointer, "value": new}]
