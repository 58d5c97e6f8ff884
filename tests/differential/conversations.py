#!/usr/bin/env python3
"""Plays conversations against this project's apiserver and a peer, and prints where what they answer differs.

A conversation is a document of conversations/*.yaml: `about`, words to fill in (`let`), bodies to build on (`bases`), lists
of variations (`lists`) and `steps`. A file's head may hold words, bodies and lists for all of its conversations. A step is
[METHOD, path, body, headers], or {do: METHOD path, body, each, headers, keep} for variations of a body and words to keep.
{for: LIST, steps} plays steps once for each item of a list, which is words to fill in; {p: PLURAL} also tells {gv} and {kind}.

Methods beside HTTP's: MERGE, JSON, STRATEGIC and APPLY patch, TABLE reads a Table, [SLEEP, seconds] and [WAIT, path, text]
wait; [ASKED, why] is what `hooks` (named answers of a server at {hook}, which {ca} signed) were asked since. A path that begins with no slash is a plural as discovery has it (`pods/p/status`). A body {+: BASE, dotted.path: value}
is a base, or a word's body, with changes; the base GET is what the server has there. A text with \\0 is bytes. {as: USER} impersonates. Every server plays a
conversation in a namespace of the same fresh name, `{ns}`.
"""

import argparse
import base64
import copy
import glob
import json
import os
import random
import re
import string
import sys
import time
from concurrent.futures import ThreadPoolExecutor

sys.dont_write_bytecode = True

import compare  # noqa: E402
import yaml  # noqa: E402
from hooks import Hooks  # noqa: E402
from servers import Answer, Server, Step  # noqa: E402

MEDIA = {
    "MERGE": "application/merge-patch+json",
    "JSON": "application/json-patch+json",
    "STRATEGIC": "application/strategic-merge-patch+json",
    "APPLY": "application/apply-patch+yaml",
}
TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"
DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
# Lists whose order tells nothing, or goes by times, and the fields that order them here.
ORDERS = {
    "causes": ("field", "reason", "message"),
    "resourceRules": ("resources", "verbs", "apiGroups"),
    "nonResourceRules": ("nonResourceURLs", "verbs"),
    "managedFields": ("manager", "operation", "subresource", "apiVersion"),
}
# Where texts tell a resourceVersion that the server chose.
VERSION = re.compile(
    r'(resourceVersion\\*"?: ?\\*"|too old resource version: \d+ \(|too old resource version: |'
    r"resource version: \d+, current: |ResourceVersion in record \()\d+"
)
GROUPS = ["/api/v1", "/apis/apps/v1", "/apis/batch/v1"]


class Play:
    """One conversation on one server."""

    def __init__(self, server, conversation, namespace, places):
        self.server = server
        self.words = {"ns": namespace, **conversation.get("let", {})}
        self.bases, self.lists = conversation["bases"], conversation["lists"]
        self.steps = conversation["steps"]
        self.hooks = Hooks(conversation["hooks"]) if "hooks" in conversation else None
        self.words.update(self.hooks.words if self.hooks else {})
        self.places = places
        self.made = []
        self.started = {"metadata": {"name": namespace, "labels": conversation.get("labels", {})}}

    def answers(self):
        """(what was asked, what came back) of every request."""
        self.server.send(Step("POST", "/api/v1/namespaces", self.started))
        # A controller makes it, which need not run.
        account = {"metadata": {"name": "default"}}
        self.server.send(Step("POST", f"/api/v1/namespaces/{self.words['ns']}/serviceaccounts", account))
        try:
            for step in self.unrolled(self.steps):
                for asked in self.requests(step):
                    yield from self.ask(asked)
        finally:
            if self.hooks:
                self.hooks.close()
            for path in reversed(self.made):
                self.server.send(Step("DELETE", f"{path}?gracePeriodSeconds=0"))
            self.server.send(Step("DELETE", f"/api/v1/namespaces/{self.words['ns']}"))
            self.server.send(Step("PUT", f"/api/v1/namespaces/{self.words['ns']}/finalize", self.started))

    def unrolled(self, steps):
        for step in steps:
            if not isinstance(step, dict) or "for" not in step:
                yield step
                continue
            words = step["for"]
            for said in self.lists[words] if isinstance(words, str) else words:
                self.words.update(said)
                if "p" in said:
                    prefix, _, _, kind = self.places[said["p"]]
                    self.words.update(gv=re.sub("^/apis?/", "", prefix), kind=kind)
                yield from self.unrolled(step["steps"])

    def requests(self, step):
        """A step: the list of four, or {do, body, each, headers, keep} with as many variations of the body."""
        if isinstance(step, list):
            yield (step + [None] * 4)[:4] + [{}]
            return
        body = step.get("body", {})
        each = step.get("each", [{}])
        for change in self.lists[each] if isinstance(each, str) else each:
            whole = change if isinstance(change, (str, list)) else {**body, **change}
            method, _, path = step["do"].partition(" ")
            yield [method, path, None if whole == {} else whole, step.get("headers"), step.get("keep", {})]

    def ask(self, asked):
        method, path, body, headers, keep = asked
        if method == "SLEEP":
            time.sleep(path)
            return
        if method == "ASKED":
            yield path, Answer(200, self.hooks.taken(), [], "")
            return
        method, path = self.filled(method), self.url(self.filled(path)).replace(" ", "%20")
        step = self.request(method, path, body, self.filled(headers or {}))
        if method == "WAIT":
            self.wait(step, self.filled(body))
            return
        answer = self.server.send(step)
        self.note(step, answer)
        for word, where in keep.items():
            self.words[word] = str(at(answer.body, where))
        yield f"{method} {path} {headers or ''} {told(step.body):.400}", answer

    def request(self, method, path, body, headers):
        media = "application/json"
        if method in MEDIA:
            method, media = "PATCH", MEDIA[method]
        if method == "TABLE":
            method, headers = "GET", {"Accept": TABLE, **headers}
        if method == "WAIT":
            method, body = "GET", None
        if "as" in headers:
            headers["Impersonate-User"] = headers.pop("as")
        return Step(method, path, self.built(body, path), headers.pop("Content-Type", media), headers)

    def built(self, body, path):
        """A body from its base: {+: NAME, dotted.path: value}; the base GET is what the server has at the path."""
        body = self.filled(body)
        if isinstance(body, str):
            return body.encode("latin-1" if "\0" in body else "utf-8")
        if not isinstance(body, dict) or not any(name == "+" or "." in name for name in body):
            return body
        changes = dict(body)
        base = changes.pop("+", None)
        if base == "GET":
            made = self.server.get(path.partition("?")[0]).body
        elif base is None:
            made = {}
        elif isinstance(base, dict):
            made = base
        else:
            made = self.built(copy.deepcopy(self.bases[base]), path)
        for where, value in changes.items():
            if isinstance(made, dict):
                put(made, where.split("."), value)
        return made

    def filled(self, value):
        if isinstance(value, dict):
            return {self.filled(name): self.filled(part) for name, part in value.items()}
        if isinstance(value, list):
            return [self.filled(part) for part in value]
        if isinstance(value, str):
            whole = self.words.get(value[1:-1]) if re.fullmatch(r"{\w+}", value) else None
            if isinstance(whole, (dict, list)):
                return self.filled(whole)
            # A word may hold other words.
            for _ in range(3):
                for word, text in self.words.items():
                    value = value.replace(f"{{{word}}}", str(text))
        return value

    def url(self, path):
        """A path, or a plural as discovery has it: `pods/p/status`."""
        if path.startswith("/"):
            return path
        plural, rest = re.match(r"([\w.-]+)(.*)", path).groups()
        prefix, namespaced, plural, _ = self.places[plural]
        within = f"/namespaces/{self.words['ns']}" if namespaced else ""
        return f"{prefix}{within}/{plural}{rest}"

    def wait(self, step, text):
        for _ in range(100):
            if text in json.dumps(self.server.send(step).body):
                return
            time.sleep(0.1)

    def note(self, step, answer):
        """Remembers what is to be taken away again, and waits until a definition is served."""
        path, _, query = step.path.partition("?")
        if answer.code not in (200, 201) or "dryRun" in query or not isinstance(answer.body, dict):
            return
        name = (answer.body.get("metadata") or {}).get("name")
        if step.method == "POST" and "/namespaces/" not in path and name:
            self.made.append(f"{path}/{name}")
        if path.startswith(DEFINITIONS) and step.method != "GET":
            seen = Step("GET", f"{DEFINITIONS}/{name}")
            for _ in range(40):
                definition = self.server.send(seen).body
                conditions = at(definition, "status.conditions") or []
                states = {c["type"]: c["status"] for c in conditions}
                if states.get("Established") == "True" or states.get("NamesAccepted") == "False":
                    break
                time.sleep(0.1)
            time.sleep(0.7)


def at(value, where):
    for part in where.split("."):
        if isinstance(value, list):
            value = value[int(part)] if int(part) < len(value) else ""
        else:
            value = value.get(part, "") if isinstance(value, dict) else ""
    return value


def put(value, path, new):
    """Sets what is at a path; null takes it away, `+` is a new item at the end."""
    for part, after in zip(path, path[1:]):
        if isinstance(value, list):
            value = value[int(part)]
        else:
            if value.get(part) is None:
                value[part] = [] if after == "+" else {}
            value = value[part]
    last = path[-1]
    if last == "+":
        value.append(new)
    elif isinstance(value, list):
        value[int(last)] = new
    elif new is None:
        value.pop(last, None)
    else:
        value[last] = new


def told(body):
    return body.decode(errors="replace") if isinstance(body, bytes) else "" if body is None else json.dumps(body)


def claims(token):
    """What a signed token says, without when."""
    parts = token.split(".")
    if len(parts) != 3 or not token.startswith("eyJ"):
        return token
    said = json.loads(base64.urlsafe_b64decode(parts[1] + "=="))
    lasts = said["exp"] - said["iat"]
    return {**said, "exp": "<exp>", "iat": "<iat>", "nbf": "<nbf>", "lasts": lasts}


def rank(item, fields):
    return [str(item.get(field, "")) for field in fields] if isinstance(item, dict) else []


def settled(value, key=""):
    """A value without what compare.plain knows nothing of: tokens, hashes, ages, the order of causes."""
    if isinstance(value, dict):
        if value.get("kind") == "Status" and len((value.get("details") or {}).get("causes") or []) > 1:
            value = {**value, "message": value.get("message", "").partition(": [")[0] + ": [<causes>]"}
        return {name: settled(part, name) for name, part in value.items()}
    if isinstance(value, list):
        if key in ORDERS:
            value = sorted(value, key=lambda item: rank(item, ORDERS[key]))
        return [settled(part, key) for part in value]
    if isinstance(value, str):
        if key == "token":
            return settled(claims(value)) if value.startswith("eyJ") else "<token>"
        if key in ("storageVersionHash", "jti", "caBundle"):
            return f"<{key}>"
        if key == "cells":
            value = re.sub(r":3\d{4}/", ":<port>/", re.sub(r"^\d+[smh]\d*s?$", "<age>", value))
        value = re.sub(r"(127\.0\.0\.1|192\.0\.2\.\d+):\d+", "<server>", value)
        return VERSION.sub(r"\1<rv>", value)
    if key == "healthCheckNodePort" and isinstance(value, int) and value > 30110:
        return "<port>"
    return value


def differing(ours, theirs):
    """Where two answers differ, however they show the structures that they refuse."""
    for path, own, other in compare.differences(ours, theirs):
        texts = [side if isinstance(side, str) else json.dumps(side) for side in (own, other)]
        if "<value>" in texts[1]:
            pattern = re.escape(texts[1]).replace(re.escape("<value>"), r".*?")
            if re.fullmatch(pattern, texts[0], re.DOTALL):
                continue
        yield path, own, other


def seen(answer, exact):
    plain = compare.seen(Answer(answer.code, settled(answer.body), answer.warnings, answer.kind), exact)
    return {**plain, "type": answer.kind}


def places(server):
    """By plural, where the kinds that are built in live: (prefix, namespaced, plural, kind); also by plural.group."""
    found = {}
    groups = [group["preferredVersion"]["groupVersion"] for group in server.get("/apis").body["groups"]]
    for prefix in GROUPS + [f"/apis/{version}" for version in groups]:
        group = prefix.split("/")[2] if prefix.startswith("/apis/") else "core"
        told = server.get(prefix).body
        for resource in told.get("resources", []) if isinstance(told, dict) else []:
            place = prefix, resource["namespaced"], resource["name"], resource["kind"]
            found.setdefault(resource["name"], place)
            found[f"{resource['name']}.{group}"] = place
    return found


def conversations(arguments):
    folder = os.path.join(os.path.dirname(os.path.abspath(__file__)), "conversations")
    for name in sorted(glob.glob(os.path.join(folder, "*.yaml"))):
        topic = os.path.basename(name).removesuffix(".yaml")
        with open(name, encoding="utf-8") as file:
            shared = {}
            for document in yaml.safe_load_all(file):
                if "steps" not in document:
                    shared = document
                    continue
                for part in ("let", "bases", "lists"):
                    document[part] = {**shared.get(part, {}), **document.get(part, {})}
                document["about"] = f"{topic}: {document['about']}"
                if arguments.match in document["about"]:
                    yield document


def played(servers, where, conversation, arguments):
    """The conversation's name, how many requests it has, and what differs: (request, path, ours, theirs)."""
    namespace = "c" + "".join(random.choices(string.ascii_lowercase, k=7))
    play = lambda server: list(Play(server, conversation, namespace, where).answers())  # noqa: E731
    with ThreadPoolExecutor(len(servers)) as pool:
        told_by = list(pool.map(play, servers))
    if arguments.full:
        for server, answers in zip(servers, told_by):
            for asked, answer in answers:
                print(f"{server.name}: {asked}\n    {json.dumps(seen(answer, True))[: arguments.full]}")
    found = []
    for number, (own, other) in enumerate(zip(told_by[0], told_by[-1]), 1):
        sides = [seen(side[1], arguments.exact) for side in (own, other)]
        for path, ours, theirs in differing(*sides):
            texts = [str(side).replace(namespace, "{ns}") for side in (own[0], path, ours, theirs)]
            found.append((f"{number} {texts[0]}", *texts[1:]))
    return conversation["about"], len(told_by[0]), found


def show(found, limit, width):
    """Prints at most `limit` differences of each request; returns how many requests differ."""
    last, shown, count = "", 0, 0
    for request, path, ours, theirs in found:
        count, shown = (count, shown + 1) if request == last else (count + 1, 0)
        if request != last:
            print(f"  {request}"[:width])
        if shown < limit:
            print(f"    {path}\n      ours   {ours:.{width}}\n      theirs {theirs:.{width}}")
        last = request
    return count


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ours", required=True, metavar="KUBECONFIG")
    parser.add_argument("--peer", metavar="KUBECONFIG", help="without one, nothing is compared")
    parser.add_argument("--match", default="", help="only conversations whose name (topic: about) holds this")
    parser.add_argument("--threads", type=int, default=6)
    parser.add_argument("--show", type=int, default=4, help="how many differences of a request are printed")
    parser.add_argument("--exact", action="store_true", help="compare also how refusals show structures")
    parser.add_argument("--full", type=int, default=0, metavar="CHARS", help="print answers, also of what agrees")
    args = parser.parse_args()
    servers = [Server("ours", args.ours)] + ([Server("peer", args.peer)] if args.peer else [])
    where = places(servers[-1])
    requests = differing = whole = count = 0
    with ThreadPoolExecutor(args.threads) as pool:
        for about, asked, found in pool.map(lambda c: played(servers, where, c, args), conversations(args)):
            count, requests, whole = count + 1, requests + asked, whole + (not found)
            if found:
                print(f"\n## {about}")
            differing += show(found, args.show, 600)
    print(f"\n{differing} of {requests} answers differ, in {count - whole} of {count} conversations")
    sys.exit(differing > 0)


if __name__ == "__main__":
    main()
