"""Answers without what differs by chance, what differs between two of them, and differences by their cause."""

import datetime
import json
import re

UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
YEAR = datetime.date.today().year
NOW = re.compile(rf"\b({YEAR}|{YEAR + 1})-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z")
# What servers choose themselves; samples name addresses and ports of their own.
ADDRESS = re.compile(r"\b10\.96\.(?!200\.)\d+\.\d+")
# Suffixes and names that a server draws or has.
DRAWN = [
    (re.compile(r"\bkube-api-access-\w{5}\b"), "kube-api-access-<drawn>"),
    (re.compile(r"^kube-apiserver-[\w.]+$"), "kube-apiserver"),
    (re.compile(r"^X509SHA256=\w+$"), "<certificate>"),
    (re.compile(r'(?<=parsing ")\d+(?=x?")'), "<number>"),
    (re.compile(r'in scheme "pkg/[^"]+"'), 'in scheme "…"'),
    (re.compile(r"\beyJ[\w-]+\.eyJ[\w-]+\.[\w-]+"), "<token>"),
    # Where the server is, and which it is.
    (re.compile(r"\b(?!10\.)\d+\.\d+\.\d+\.\d+:\d{4,5}\b"), "<server>"),
    (re.compile(r"hash=\w+"), "hash"),
    # Where the server's versions stand.
    (re.compile(r"(current: |resource version: \d+ \(|object meta: |in record \()\d+"), r"\1<version>"),
]
BUILD = {"gitVersion", "gitCommit", "gitTreeState", "buildDate", "goVersion", "compiler", "platform"}
ABSENT = "(absent)"


# A value as Go or JSON shows it begins so.
SHOWN = re.compile(r'(?<=value: )(?:"null"|null\b|<nil>|0x0\b|[\w.*&\[\]/]*[\[{(])')
# A whole object as a text within one, and one that lacks something.
OBJECT = re.compile(r'(?<=value: )"\{(?:[^"\\]|\\.)*"')
LACKING = re.compile(r"(?<=is missing in )'\{[\s\S]*\}'")
CLOSING = {"{": "}", "[": "]", "(": ")"}


def shown(text):
    """A refusal's text without the structures that it shows, whose form changes from release to release."""
    text = LACKING.sub("'<object>'", OBJECT.sub('"<object>"', text))
    out, at = "", 0
    while match := SHOWN.search(text, at):
        out += text[at : match.start()] + "<value>"
        at = match.end() if match.group()[-1] not in CLOSING else end_of(text, match.start())
    out += text[at:]
    # The difference of two specs.
    return re.sub(r"\n([ \xa0]*core\.|@@)[\s\S]*", " <difference>", out)


def end_of(text, at):
    """Where the brackets and quotes that are open from `at` on are closed."""
    open_, quoted = [], False
    while at < len(text):
        char = text[at]
        if quoted and char == "\\":
            at += 1
        elif char == '"':
            quoted = not quoted
        elif not quoted and char in CLOSING:
            open_.append(CLOSING[char])
        elif not quoted and open_ and char == open_[-1]:
            open_.pop()
        elif not quoted and not open_ and char == ":":
            return at
        at += 1
    return at


def plain(value):
    """`value` without random and server-given parts."""
    if isinstance(value, dict):
        kept = {key: part for key, part in value.items() if not untold(key, part)}
        return {key: plain_field(key, part, value) for key, part in kept.items()}
    if isinstance(value, list):
        return [plain(part) for part in value]
    if isinstance(value, str):
        if value.startswith('{"f:'):
            # Owners' fields, as protobuf has them.
            return plain(json.loads(value))
        value = UUID.sub("<uid>", value)
        for pattern, text in DRAWN:
            value = pattern.sub(text, value)
        return ADDRESS.sub("<address>", NOW.sub("<now>", value))
    return value


def untold(key, part):
    """A time that is not set, which some releases write as null; and what a server was built from."""
    if key in BUILD:
        return True
    return (key == "creationTimestamp" and part is None) or (key == "f:creationTimestamp" and part == {})


def plain_field(key, part, within):
    if key in ("resourceVersion", "continue") and isinstance(part, str) and part:
        return f"<{key}>"
    if key == "version" and within.get("title") == "Kubernetes":
        return "<release>"
    if key == "nodePort" and isinstance(part, int) and part > 30110:
        return "<port>"
    if key == "name" and isinstance(part, str) and isinstance(within.get("generateName"), str):
        if part.startswith(within["generateName"]):
            return "<generated>"
    return plain(part)


def seen(answer, exact=False):
    """What is compared of an answer."""
    body = plain(answer.body)
    if refused(body) and not exact:
        body["message"] = shown(body.get("message") or "")
        for told in (body.get("details") or {}).get("causes") or []:
            told["message"] = shown(told.get("message", ""))
    return {"code": answer.code, "body": body, "warnings": plain(answer.warnings)}


def differences(ours, theirs, path=""):
    """(path, ours, theirs) wherever two values differ."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        for key in list(ours) + [key for key in theirs if key not in ours]:
            inner = f"{path}.{key}" if path else key
            yield from differences(ours.get(key, ABSENT), theirs.get(key, ABSENT), inner)
    elif isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        for i, (own, other) in enumerate(zip(ours, theirs)):
            yield from differences(own, other, f"{path}[{i}]")
    elif ours != theirs or type(ours) is not type(theirs):
        yield path, ours, theirs


def found(ours, theirs):
    """The differences that tell most: of refusals with causes the causes alone, of other refusals the text."""
    own, other = ours["body"], theirs["body"]
    texts = [causes(body) for body in (own, other)]
    if ours["code"] == theirs["code"] and texts[0] != texts[1] and all(texts):
        extra = [text for text in texts[0] if text not in texts[1]]
        missing = [text for text in texts[1] if text not in texts[0]]
        counts = [len(of) for of in texts]
        if extra or missing:
            return [("causes", extra, missing)]
        return [("order of causes" if counts[0] == counts[1] else "number of causes", *texts)]
    if ours["code"] == theirs["code"] and all(texts) and "<value>" in message(own):
        # Go tells like causes once, but not where addresses make them differ.
        return []
    if ours["code"] != theirs["code"] or (refused(own) and refused(other) and message(own) != message(other)):
        return [("answer", summary(ours), summary(theirs))]
    return list(differences(ours, theirs))


def refused(body):
    return isinstance(body, dict) and body.get("kind") == "Status" and body.get("status") == "Failure"


def causes(body):
    found = (body.get("details") or {}).get("causes") if refused(body) else None
    return [f"{c.get('reason')} {c.get('field')}: {c.get('message')}" for c in found or []]


def message(body):
    return body.get("message") if isinstance(body, dict) else body


def summary(answer):
    body = answer["body"]
    if answer["code"] < 300:
        return f"{answer['code']} accepted"
    return f"{answer['code']} {message(body)}"


def cause(parts):
    """What a group of like differences has in common: no indices, no quoted values, no numbers."""
    out = set()
    for path, ours, theirs in parts:
        if path in ("causes", "order of causes", "number of causes", "answer") or path.startswith("warnings"):
            told = [path] + [general(side) for side in (ours, theirs)]
        else:
            told = [general(path)] + ["absent" if side == ABSENT else "there" for side in (ours, theirs)]
        out.add(" | ".join(told))
    return "; ".join(sorted(out))


def general(side):
    if isinstance(side, list):
        return " & ".join(sorted({general(text) for text in side}))
    text = re.sub(r"[\w.$/{}~-]*(\[[^\]]*\][\w.$/{}~-]*)+", "…", str(side)[:4000])
    text = re.sub(r"\b[a-z]\w*(\.\w+)+", "…", text)
    text = re.sub(r'"[^"]*"', "“”", text)
    return re.sub(r"\d+", "#", text)[:300]
