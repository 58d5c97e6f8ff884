#!/usr/bin/env python3
"""Starts this project's apiserver and a peer with the same flags and files, and plays conversations with both.

A document of configured/*.yaml is a conversation (see conversations.py) with `flags` and `files` (by name, in {dir}), and
`hooks` that both servers are told of. Answers are compared with their headers. A header `token` is a bearer token without a
certificate, `nobody` neither. Steps beside the others': [AUDIT, why] is what {dir}/audit.log was told since the last of them,
[STORED, key] what precedes the value in the store, [LOOK, path, pattern] what matches in a text, [FILES, {name: content}]
changes files, [REFUSED, [flags]] is why it does not start with
each of them, [RESTART, flags] starts again, [STOP, seconds] asks it to
stop and goes on after so long, [EXCHANGE] starts the other program on the same store. `tokens` are words for
JWTs with these claims, which {hook} issues.
{together: COUNT, steps} sends what the steps hold from as many threads, each in turn.
"""

import argparse
import base64
import copy
import glob
import http.client
import json
import os
import re
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor

sys.dont_write_bytecode = True

import compare  # noqa: E402
import conversations  # noqa: E402
import yaml  # noqa: E402
from hooks import Hooks  # noqa: E402
from servers import Answer, Server  # noqa: E402
from started import Started, jwt, key_set, keys  # noqa: E402

# By connection, by time, by chance.
UNTOLD = {"date", "content-length", "transfer-encoding", "connection", "etag", "last-modified"}
AGENT = "differential"


class Playing(conversations.Play):
    def __init__(self, server, conversation, places, exchanged):
        self.told = conversation.get("hooks")
        super().__init__(server, {k: v for k, v in conversation.items() if k != "hooks"}, "configured", places)
        self.hooks = server.hooks
        self.words.update(server.words)
        self.exchanged, self.read = exchanged, 0

    def answers(self):
        self.audited()
        yield from super().answers()

    def requests(self, step):
        if isinstance(step, dict) and "together" in step:
            yield step, None, None, None, {}
        else:
            yield from super().requests(step)

    def ask(self, asked):
        method, path, body, headers, _ = asked
        server = self.server
        if isinstance(method, dict):
            yield from self.together(method)
        elif method == "AUDIT":
            yield f"AUDIT {path or ''}", Answer(200, self.audited(), [], "")
        elif method == "STORED":
            value = server.value_of(self.filled(path))
            yield f"STORED {path}", Answer(200, re.sub(r"[^\x20-\x7e].*", "", value[:60].decode("latin-1")), [], "")
        elif method == "LOOK":
            text = server.get(self.filled(path)).body
            found = re.findall(self.filled(body), text if isinstance(text, str) else json.dumps(text), re.MULTILINE)
            yield f"LOOK {path} {body}", Answer(200, sorted(set(found)), [], "")
        elif method == "FILES":
            server.write(self.filled(path))
        elif method == "REFUSED":
            for flags in path:
                yield f"REFUSED {flags}", Answer(200, server.refusal([flags] if isinstance(flags, str) else flags), [], "")
        elif method == "STOP":
            server.process.terminate()
            time.sleep(path or 0)
        elif method in ("RESTART", "EXCHANGE"):
            server.end()
            if path is not None:
                server.flags = path
            if method == "EXCHANGE":
                server.command, self.exchanged = self.exchanged, server.command
            server.start()
        else:
            yield from super().ask(asked)

    def together(self, step):
        """What came back to as many requests at once: how often each answer, for their order is chance."""
        with ThreadPoolExecutor(step["together"]) as pool:
            wanted = [asked for one in self.unrolled(step["steps"]) for asked in self.requests(one)]
            work = [pool.submit(lambda a=asked: list(self.ask(a))) for asked in wanted * step.get("times", 1)]
            all_of_them = [answer for one in work for _, answer in one.result()]
        counts = {}
        for answer in all_of_them:
            shown = json.dumps(conversations.seen(answer, True), sort_keys=True)
            counts[shown] = counts.get(shown, 0) + 1
        yield f"together {step}", Answer(200, [[counts[one], json.loads(one)] for one in sorted(counts)], [], "")

    def audited(self):
        """The events of this program's own requests, in the order of their stages."""
        time.sleep(0.4)
        path = os.path.join(self.server.folder, "audit.log")
        if not os.path.exists(path):
            return []
        with open(path, encoding="utf-8") as file:
            lines = file.readlines()
        new, self.read = lines[self.read :], len(lines)
        events = [json.loads(line) if line.startswith("{") else line for line in new]
        return [order(one) for one in events if AGENT in json.dumps(one)]


def order(event):
    """The event as is, and in which order its fields are written."""
    if isinstance(event, str):
        return re.sub(r"^\S+ ", "", event)
    return {**event, "fields": list(event)}


class Headed(Started):
    """A server whose answers hold their headers."""

    def exchange(self, method, path, data, headers):
        without = headers.pop("nobody", None)
        if "token" in headers:
            headers["Authorization"] = f"Bearer {headers.pop('token')}"
            without = True
        if without:
            connection = http.client.HTTPSConnection(self.url.hostname, self.url.port, context=self.bare, timeout=60)
            connection.request(method, path, data, headers)
            response = connection.getresponse()
        else:
            response = super().exchange(method, path, data, headers)
        self.local.headers = response.headers
        return response

    def send(self, step):
        self.local.headers = None
        answer = super().send(step)
        found = {}
        for name, value in (self.local.headers or {}).items():
            if name.lower() not in UNTOLD:
                found.setdefault(name.lower(), []).append(value)
        answer.body = {"body": answer.body, "headers": found} if answer.code else answer.body
        return answer

    def get(self, path):
        answer = super().get(path)
        answer.body = answer.body["body"] if answer.code else {}
        return answer


def documents(match):
    folder = os.path.join(os.path.dirname(os.path.abspath(__file__)), "configured")
    for name in sorted(glob.glob(os.path.join(folder, "*.yaml"))):
        topic, shared = os.path.basename(name).removesuffix(".yaml"), {}
        with open(name, encoding="utf-8") as file:
            for document in yaml.safe_load_all(file):
                if "steps" not in document:
                    shared = document
                    continue
                for part in ("let", "bases", "lists", "files"):
                    document[part] = {**shared.get(part, {}), **document.get(part, {})}
                if isinstance(document["steps"], str):
                    document["steps"] = document["lists"][document["steps"]]
                document["flags"] = shared.get("flags", []) + document.get("flags", [])
                document["about"] = f"{topic}: {document['about']}"
                if match in document["about"]:
                    yield document


def played(name, commands, pki, document):
    """What one server answers."""
    document = copy.deepcopy(document)
    hooks = Hooks(document.get("hooks", {}))
    pem = base64.b64decode(hooks.words["ca"]).decode()
    words = {**hooks.words, "pem": pem.replace("\n", "\\n")}
    hooks.answers["jwks"] = {"body": key_set(pki)}
    discovery = {"issuer": words["hook"], "jwks_uri": words["hook"] + "/jwks"}
    signed = {"response_types_supported": ["id_token"], "subject_types_supported": ["public"]}
    algorithms = {"id_token_signing_alg_values_supported": ["RS256"]}
    hooks.answers[".well-known/openid-configuration"] = {"body": {**discovery, **signed, **algorithms}}
    for word, claims in document.get("tokens", {}).items():
        filled = json.loads(json.dumps(claims).replace("{hook}", words["hook"]))
        words[word] = jwt(pki, {"iss": words["hook"], "iat": 0, "exp": 3600, **filled}, filled.pop("head", None))
    if any(flag.startswith("--authorization-config") for flag in document["flags"]):
        commands = [[part for part in one if not part.startswith("--authorization-mode")] for one in commands]
    server = Headed(name, commands[0], pki, document["files"], document["flags"], words)
    server.hooks = hooks
    try:
        ended = server.process.poll()
        if ended is not None:
            with open(os.path.join(server.folder, "apiserver.log"), encoding="utf-8") as file:
                last = [line for line in file.read().splitlines() if line.strip()][-3:]
            print(f"  {name} does not start: {last}")
            return [("start", Answer(0, "does not start", [], ""))]
        return list(Playing(server, document, conversations.places(server), commands[1]).answers())
    finally:
        server.close()


def compared(document, told, arguments):
    sides = zip(*told)
    found = []
    for number, (own, other) in enumerate(sides, 1):
        seen = [conversations.seen(side[1], True) for side in (own, other)]
        for path, ours, theirs in conversations.differing(*seen):
            found.append((f"{number} {own[0]}", path, str(ours), str(theirs)))
    if len(told[0]) != len(told[-1]):
        found.append(("count", "", str(len(told[0])), str(len(told[-1]))))
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ours", required=True, metavar="COMMAND", help="e.g. 'coracle apiserver'")
    parser.add_argument("--peer", required=True, metavar="COMMAND", help="e.g. kube-apiserver")
    parser.add_argument("--match", default="", help="only documents whose name (topic: about) holds this")
    parser.add_argument("--show", type=int, default=6)
    parser.add_argument("--width", type=int, default=500)
    parser.add_argument("--full", type=int, default=0, metavar="CHARS", help="print answers, also of what agrees")
    args = parser.parse_args()
    pki = tempfile.mkdtemp()
    keys(pki)
    commands = [args.ours.split(), args.peer.split()]
    count = differing = 0
    for document in documents(args.match):
        with ThreadPoolExecutor(2) as pool:
            work = [
                pool.submit(played, "ours", commands, pki, document),
                pool.submit(played, "peer", commands[::-1], pki, document),
            ]
            told = [one.result() for one in work]
        if args.full:
            for name, answers in zip(("ours", "peer"), told):
                for asked, answer in answers:
                    print(f"{name}: {asked}\n    {json.dumps(conversations.seen(answer, True))[: args.full]}")
        found = compared(document, told, args)
        count += len(told[0])
        requests = {one[0] for one in found}
        differing += len(requests)
        print(f"\n## {document['about']}: {len(requests)} of {len(told[0])} differ", flush=True)
        conversations.show(found, args.show, args.width)
    print(f"\n{differing} of {count} answers differ")
    sys.exit(differing > 0)


if __name__ == "__main__":
    main()
