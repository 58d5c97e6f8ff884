"""Cases of each mode: a label and the requests that every server is sent."""

import glob
import itertools
import os
from dataclasses import dataclass

import mutations
import yaml
from samples import key
from servers import Step

# What the server alone writes.
SERVERS = [("metadata", "managedFields")]
PATCHES = {
    "merge": "application/merge-patch+json",
    "json": "application/json-patch+json",
    "strategic": "application/strategic-merge-patch+json",
}


@dataclass
class Case:
    kind: str
    label: str
    steps: list


def label(sample, path, name):
    return f"{key(sample)}: {mutations.told(path)} {name}"


def creates(catalog, samples, _server):
    for sample in samples:
        url = f"{catalog.collection(sample)}?dryRun=All"
        sent = {part: value for part, value in sample.items() if part != "status"}
        yield Case(sample["kind"], f"{key(sample)}: as it is", [Step("POST", url, sent)])
        for path, name, new in mutations.of_object(sent):
            body = mutations.applied(sent, path, new)
            yield Case(sample["kind"], label(sample, path, name), [Step("POST", url, body)])


def updates(catalog, samples, server):
    yield from puts(catalog, samples, server, "", lambda path: path[0] != "status")


def statuses(catalog, samples, server):
    with_status = [s for s in samples if "status" in catalog.place(s).subresources]
    # A word of the rest, for what a status write keeps of it.
    few = {("metadata", "labels"), ("metadata", "annotations"), ("metadata", "finalizers"), ("spec",)}
    yield from puts(catalog, with_status, server, "status", lambda path: path[0] == "status" or path in few)
    yield from merges(catalog, with_status, server, "status", lambda path: path[0] == "status")


def changes(sample, server, wanted):
    """The changes of a stored object, told by the first server's."""
    stored = server.stored.get(key(sample))
    if stored is not None:
        for path, name, new in mutations.of_object(stored, SERVERS):
            if wanted(path):
                yield path, name, new


def own(sample, path, change, form):
    """The body that changes each server's own object, as far as it has the field."""

    def body(server):
        stored = server.stored[key(sample)]
        try:
            return form(stored, path, change)
        except (KeyError, IndexError, TypeError):
            return stored

    return body


def whole(stored, path, change):
    changed = mutations.applied(stored, path, change)
    if isinstance(changed.get("metadata"), dict):
        changed["metadata"].pop("managedFields", None)
    return changed


def puts(catalog, samples, server, subresource, wanted):
    for sample in samples:
        url = f"{catalog.url(sample, subresource)}?dryRun=All"
        for path, name, new in changes(sample, server, wanted):
            step = Step("PUT", url, own(sample, path, new, whole))
            yield Case(sample["kind"], label(sample, path, name), [step])


def merges(catalog, samples, server, subresource, wanted):
    for sample in samples:
        url = f"{catalog.url(sample, subresource)}?dryRun=All"
        for path, name, new in changes(sample, server, wanted):
            step = Step("PATCH", url, own(sample, path, new, mutations.merge_patch), PATCHES["merge"])
            yield Case(sample["kind"], label(sample, path, name) + " by merge patch", [step])


def patches(catalog, samples, server):
    for sample in samples:
        url = f"{catalog.url(sample)}?dryRun=All"
        for path, name, new in changes(sample, server, lambda path: path[0] != "status"):
            for form, media in PATCHES.items():
                make = mutations.json_patch if form == "json" else mutations.merge_patch
                step = Step("PATCH", url, own(sample, path, new, make), media)
                yield Case(sample["kind"], f"{label(sample, path, name)} by {form} patch", [step])
    yield from written("patches")


def applies(catalog, samples, server):
    for sample in samples:
        url = f"{catalog.url(sample)}?dryRun=All&fieldManager=other&force=true"
        sent = {part: value for part, value in sample.items() if part != "status"}
        for path, name, new in mutations.of_object(sent):
            body = mutations.applied(sent, path, new)
            step = Step("PATCH", url, body, "application/apply-patch+yaml")
            yield Case(sample["kind"], f"{label(sample, path, name)} by apply", [step])


def written(mode):
    """Cases that are written out, in requests/MODE.yaml."""
    folder = os.path.join(os.path.dirname(os.path.abspath(__file__)), "requests")
    for name in sorted(glob.glob(os.path.join(folder, f"{mode}.yaml"))):
        with open(name, encoding="utf-8") as file:
            for group in yaml.safe_load_all(file):
                yield from expanded(group or {})


def expanded(group):
    """A group is a list of `cases`, or one `request` with lists of values for the `{words}` in it."""
    for number, case in enumerate(group.get("cases", [])):
        steps = case if isinstance(case, list) else [case]
        text = case.get("name") if isinstance(case, dict) else None
        yield Case(group["about"], f"{group['about']} {number}: {text or told(steps)}", [step_of(s) for s in steps])
    words = group.get("each", {})
    for values in itertools.product(*words.values()) if words else []:
        chosen = dict(zip(words, values))
        steps = [filled(step, chosen) for step in group["request"]]
        yield Case(group["about"], f"{group['about']}: {told(steps)}", [step_of(step) for step in steps])


def filled(value, chosen):
    if isinstance(value, dict):
        return {name: filled(part, chosen) for name, part in value.items()}
    if isinstance(value, list):
        return [filled(part, chosen) for part in value]
    if isinstance(value, str):
        for word, new in chosen.items():
            if value == f"{{{word}}}":
                return new
            value = value.replace(f"{{{word}}}", str(new))
    return value


def told(steps):
    last = steps[-1]
    return f"{last['do']} {last.get('body', '')!s:.300}"


def step_of(step):
    method, _, path = step["do"].partition(" ")
    media = step.get("media", "application/json")
    media = {"apply": "application/apply-patch+yaml", **PATCHES}.get(media, media)
    body = step.get("body")
    if isinstance(body, str) and not step.get("quoted"):
        body = body.encode()
    return Step(method, path, body, media, step.get("headers", {}))


def options(_catalog, _samples, _server):
    yield from written("options")


def deletes(_catalog, _samples, _server):
    yield from written("deletes")


def subresources(_catalog, _samples, _server):
    yield from written("subresources")


# By name: what makes the cases, and whether the samples are there before.
MODES = {
    "create": (creates, False),
    "update": (updates, True),
    "status": (statuses, True),
    "patch": (patches, True),
    "apply": (applies, True),
    "subresources": (subresources, True),
    "options": (options, True),
    "delete": (deletes, True),
}
