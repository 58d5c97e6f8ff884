#!/usr/bin/env python3
"""Plays gets, lists and watches against this project's apiserver and another, and prints where bytes, codes or headers differ."""

import argparse
import base64
import collections
import gzip
import itertools
import json
import re
import sys
import time
from concurrent.futures import ThreadPoolExecutor

sys.dont_write_bytecode = True

import compare  # noqa: E402
import wire  # noqa: E402
import yaml  # noqa: E402
from reads import resources  # noqa: E402
from samples import Catalog  # noqa: E402
from servers import Server, Step  # noqa: E402

NAMESPACE = "/api/v1/namespaces/watched"
MAPS, CUSTOM = f"{NAMESPACE}/configmaps", "/apis/differential.example/v1/namespaces/watched/gadgets"
MERGE = "application/merge-patch+json"
# Whose values are compared, and of which only that they are there.
HEADERS = ["Content-Type", "Warning", "Cache-Control", "Content-Encoding", "Vary", "Allow", "X-Content-Type-Options", "Retry-After", "Location"]
PRESENT = ["Audit-Id", "X-Kubernetes-Pf-Flowschema-Uid", "X-Kubernetes-Pf-Prioritylevel-Uid"]
AGE = re.compile(r'"(\d+[smhdy])+"')


def meta(form, version="v1", media="application/json", group="meta.k8s.io"):
    return f"{media};as={form};v={version};g={group}"


class Player:
    """A server and what stands for words in paths: its own versions, of each collection, and its tokens."""

    def __init__(self, name, kubeconfig):
        self.server, self.words, self.customs = Server(name, kubeconfig), {}, {}

    def ask(self, method, path, headers, body=None):
        """Everything of an answer; the server ends watches."""
        for word, value in (self.customs if "gadgets" in path else self.words).items():
            path = path.replace(f"{{{word}}}", value)
        body = body(self) if callable(body) else body
        headers = {"User-Agent": "watches", **headers}
        response = self.server.exchange(method, path, body, headers)
        return response.status, response.headers, response.read()

    def send(self, method, path, body=None, media="application/json"):
        return self.server.send(Step(method, path, body, media)).body

    def prepare(self):
        """The same objects on each server, and versions in between."""
        self.send("DELETE", f"{NAMESPACE}?gracePeriodSeconds=0")
        self.send("PUT", f"{NAMESPACE}/finalize", {"kind": "Namespace", "apiVersion": "v1", "metadata": {"name": "watched"}, "spec": {}})
        self.send("POST", "/api/v1/namespaces", {"metadata": {"name": "watched"}})
        for collection in (MAPS, CUSTOM):
            self.send("DELETE", collection)
            for n in range(4):
                self.send("POST", collection, one(collection, f"k{n}", {"n": str(n), "odd": str(n % 2)}))
        self.words["old"] = self.send("GET", MAPS)["metadata"]["resourceVersion"]
        for collection in (MAPS, CUSTOM):
            for change in ({"labels": {"odd": "1"}}, {"labels": {"odd": "0"}}, {"annotations": {"a": "b"}}):
                self.send("PATCH", f"{collection}/k2", {"metadata": change}, MERGE)
            self.send("DELETE", f"{collection}/k1")
        latest = [self.send("POST", collection, one(collection, "k9", {"odd": "1"})) for collection in (MAPS, CUSTOM)]
        page = self.send("GET", f"{MAPS}?limit=2")["metadata"]
        self.words |= {"now": latest[0]["metadata"]["resourceVersion"], "token": page["continue"]}
        for word, changed in (("foreign", {"start": "../x"}), ("zero", {"rv": 0}), ("latest", {"rv": -1}), ("v9", {"v": "v9"}),
                              ("empty", {"start": ""}), ("tomorrow", {"rv": 99999999})):
            inner = json.loads(base64.urlsafe_b64decode(page["continue"] + "==="))
            text = base64.urlsafe_b64encode(json.dumps({**inner, **changed}).encode()).decode()
            self.words[word] = text.rstrip("=")
        self.customs = {**self.words, "now": latest[1]["metadata"]["resourceVersion"]}


def one(collection, name, labels):
    made = {"metadata": {"name": name, "labels": labels}}
    if collection == CUSTOM:
        return {**made, "apiVersion": "differential.example/v1", "kind": "Gadget", "spec": {"size": "small"}}
    return {**made, "data": {"a": name}}


def query(**parts):
    return "&".join(f"{name}={value}" for name, value in parts.items() if value is not None)


def versions():
    """resourceVersion, resourceVersionMatch, limit and continue together, of lists, watches, deletes and gets."""
    texts = [None, "", "0", "1", "{now}", "{old}", "x", "-1", "01", "1.5", "+1", "18446744073709551615", "18446744073709551616"]
    for path in (MAPS, CUSTOM):
        for version, rule in itertools.product(texts, (None, "", "Exact", "NotOlderThan", "x")):
            both = {"resourceVersion": version, "resourceVersionMatch": rule}
            for limit, token in ((None, None), ("1", None), ("0", ""), ("2", "{token}"), (None, "bad"), ("-1", None)):
                if path == CUSTOM and token:
                    continue
                yield "GET", f"{path}?{query(**both, limit=limit, **{'continue': token})}", {}
            for limit, token in ((None, None), ("1", None), ("1", "bad")):
                yield "DELETE", f"{path}?dryRun=All&{query(**both, limit=limit, **{'continue': token})}", {}
            yield "GET", f"{path}/k0?{query(**both)}", {}
            for marks in (None, "true"):
                yield "GET", f"{path}?watch=1&timeoutSeconds=1&{query(**both, allowWatchBookmarks=marks)}", {}


def initial():
    """Watches that begin with what is there, for a peer with the feature gate WatchList and an etcd that tells its progress."""
    texts, rules, flags = (None, "0", "{now}", "x"), (None, "", "Exact", "NotOlderThan"), (None, "", "true", "false", "x")
    for path, version, rule, send, marks in itertools.product((MAPS, CUSTOM), texts, rules, flags, (None, "true")):
        asked = query(resourceVersion=version, resourceVersionMatch=rule, sendInitialEvents=send, allowWatchBookmarks=marks)
        yield "GET", f"{path}?watch=1&timeoutSeconds=1&{asked}", {}


def pages():
    """Continue tokens of all sorts."""
    tokens = ["{token}", "{foreign}", "{zero}", "{latest}", "{v9}", "{empty}", "{tomorrow}", "bad", "e30", "e30=", "%21", "bnVsbA", "W10", "IiI"]
    for token, path in itertools.product(tokens, (MAPS, f"{NAMESPACE}/secrets", "/api/v1/configmaps", "/api/v1/namespaces")):
        for more in ("", "&limit=1", "&limit=1&labelSelector=n", "&limit=1&fieldSelector=metadata.name%3Dk3"):
            yield "GET", f"{path}?continue={token}{more}", {}
    for limit, selector in itertools.product(("1", "2", "3", "4", "5"), ("", "labelSelector=n", "labelSelector=odd%3D1", "fieldSelector=metadata.name!%3Dk0")):
        for version in ("", "&resourceVersion=0", "&resourceVersion={now}", "&resourceVersion={now}&resourceVersionMatch=NotOlderThan", "&resourceVersion={old}&resourceVersionMatch=Exact"):
            yield "GET", f"{MAPS}?limit={limit}&{selector}{version}", {}
            yield "GET", f"{CUSTOM}?limit={limit}&{selector}{version}", {}


def selections():
    """Objects that come and go in a selection, watched from a version, in every form."""
    selectors = ["", "labelSelector=odd%3D1", "labelSelector=odd%3D0", "labelSelector=!odd", "labelSelector=n", "labelSelector=odd+in+(0,1),n",
                 "fieldSelector=metadata.name%3Dk2", "fieldSelector=metadata.name!%3Dk2", "fieldSelector=metadata.namespace%3Dwatched",
                 "fieldSelector=metadata.name%3Dk2&labelSelector=odd%3D1", "fieldSelector=metadata.namespace%3Dother", "fieldSelector=data.a%3D1"]
    accepts = ["application/json", meta("Table"), meta("Table", "v1beta1"), meta("PartialObjectMetadata"), meta("PartialObjectMetadataList"),
               "application/vnd.kubernetes.protobuf", "application/vnd.kubernetes.protobuf;stream=watch,application/json", "application/yaml", "application/json;stream=watch", "application/cbor-seq",
               meta("PartialObjectMetadata", media="application/vnd.kubernetes.protobuf")]
    for path, selector, accept in itertools.product((MAPS, CUSTOM), selectors, accepts):
        for version in (None, "{old}"):
            asked = query(watch="true", timeoutSeconds="1", resourceVersion=version)
            yield "GET", f"{path}?{asked}&{selector}", {"Accept": accept}
    for path, more in itertools.product((MAPS, CUSTOM), ("", "&includeObject=None", "&includeObject=Object", "&includeObject=x")):
        yield "GET", f"{path}?watch=true&timeoutSeconds=1&resourceVersion={{old}}{more}", {"Accept": meta("Table")}
        yield "GET", f"{path}?{more}", {"Accept": meta("Table")}
        yield "GET", f"{path}/k0?{more}", {"Accept": meta("Table")}
    for path in (MAPS.replace("/v1/", "/v1/watch/"), MAPS.replace("/v1/", "/v1/watch/") + "/k2", MAPS.replace("/v1/", "/v1/watch/") + "/none", "/api/v1/watch/configmaps", "/api/v1/watch/namespaces/watched", "/api/v1/watch/namespaces",
                 CUSTOM.replace("/v1/", "/v1/watch/"), CUSTOM.replace("/v1/", "/v1/watch/") + "/k2", "/api/v1/watch/none", "/apis/apps/v1/watch/deployments", "/api/v1/watch", f"{MAPS}/k2?watch=true"):
        for more in ("resourceVersion={old}", "resourceVersion=0", "fieldSelector=metadata.name%3Dk3", "watch=false"):
            yield "GET", f"{path}{'&' if '?' in path else '?'}timeoutSeconds=1&{more}", {}
    for seconds in ("0.5", "-1", "x", "1s", "9223372036854775808", "+1", " 1"):
        yield "GET", f"{MAPS}?watch=true&timeoutSeconds={seconds.replace(' ', '%20').replace('+', '%2B')}&resourceVersion=x", {}
    for flag in ("1", "true", "True", "t", "yes", "0", "false", "FALSE", "f", "x"):
        yield "GET", f"{MAPS}?watch={flag}&timeoutSeconds=1", {}


def accepts():
    """How answers are asked for."""
    forms = ["Table", "PartialObjectMetadata", "PartialObjectMetadataList", "Other", "APIGroupDiscoveryList", ""]
    headers = [meta(form, version, media, group) for form, (version, group), media in itertools.product(
        forms, (("v1", "meta.k8s.io"), ("v1beta1", "meta.k8s.io"), ("v2", "meta.k8s.io"), ("v1", "other"), ("", "")),
        ("application/json", "application/yaml", "application/vnd.kubernetes.protobuf"))]
    headers += [meta("Table") + ",application/json", "application/xml," + meta("Table"), meta("Table") + ";q=0.1,application/json", "application/json;q=0.1,application/yaml;q=0.9",
                "application/json;q=0", "application/json;q=x", "*/*", "*/*;q=0", "application/*", "text/*", "text/html", "text/html,*/*", "", "x", ",", ";", "application/json;", "application/json;charset=utf-8",
                "APPLICATION/JSON", "application/cbor", "application/cbor,application/json", "application/json;pretty=1", "application/json;pretty=true", "application/json;stream=watch", "application/vnd.kubernetes.protobuf;stream=watch",
                "application/yaml;pretty=1", "application/json, */*", "application/yaml,application/json", "application/vnd.kubernetes.protobuf,*/*", "application/json;as=Table", "application/json;as=Table;g=meta.k8s.io", 'application/json;as="Table";v="v1";g="meta.k8s.io"',
                "application/json;v=v1", "application/json;level=1", "application/apply-patch+yaml", "application/json;profile=x,application/yaml"]
    paths = [MAPS, f"{MAPS}/k0", f"{MAPS}/none", CUSTOM, f"{CUSTOM}/k0", f"{MAPS}?watch=1&timeoutSeconds=1", "/api", "/api/v1", "/apis", "/apis/apps", "/apis/apps/v1", "/apis/differential.example", "/apis/differential.example/v1", "/version", "/openapi/v3", "/openapi/v2", "/api/v1/nope",
             "/apis/apps/v1/namespaces/differential/deployments/deployment/scale", f"{CUSTOM}/k0/status", "/healthz", "/metrics", "/nope", "/", "/apis/nope", "/apis/nope/v1/x", "/apis/apps/v9"]
    for path, accept in itertools.product(paths, headers):
        if path not in ("/metrics", "/openapi/v2", "/openapi/v3") or "as=" not in accept:
            yield "GET", path, {"Accept": accept}
    forms = ["application/json", meta("PartialObjectMetadata"), meta("PartialObjectMetadataList"), meta("Table"), "application/yaml", "application/vnd.kubernetes.protobuf", "text/html"]
    for accept, collection in itertools.product(forms, (MAPS, CUSTOM)):
        asked = {"Accept": accept, "Content-Type": "application/json"}
        made = json.dumps({"kind": "ConfigMap", "apiVersion": "v1", **one(collection, "new", {})})
        yield "POST", f"{collection}?dryRun=All", asked, made
        yield "PUT", f"{collection}/k0?dryRun=All", asked, made.replace("new", "k0")
        yield "PATCH", f"{collection}/k0?dryRun=All", {**asked, "Content-Type": MERGE}, "{}"
        for path in (f"{collection}/k0", collection, f"{collection}/none"):
            yield "DELETE", f"{path}?dryRun=All", {"Accept": accept}
        yield "POST", f"{collection}?dryRun=All", asked, "{"
        yield "POST", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", asked, '{"spec":{"nonResourceAttributes":{"path":"/x","verb":"get"}}}'


def protocol():
    """Methods, queries, indents, encodings and paths."""
    paths = [MAPS, f"{MAPS}/k0", CUSTOM, f"{CUSTOM}/k0", "/api/v1", "/api", "/apis", "/version", "/healthz", "/", "/nope", "/apis/nope", "/openapi/v3", "/openapi/v2", "/livez/ping", "/readyz/nope",
             "/api/v1/nodes/none/proxy/", "/apis/apps/v1/namespaces/differential/deployments/deployment/status", "/logs", "/swagger.json", "/.well-known/openid-configuration", "/openid/v1/jwks"]
    for method, path in itertools.product(("HEAD", "OPTIONS", "GET", "POST", "PUT", "PATCH", "DELETE", "TRACE", "FOO"), paths):
        if method not in ("POST", "PUT", "DELETE") or "watched" not in path:
            yield method, path, {"Content-Type": "application/json"}
    queries = ["pretty=true", "pretty=1", "pretty=0", "pretty=false", "pretty", "pretty=", "pretty=x", "unknown=1", "export=1", "exact=1", "a;b", "a=%zz", "limit=1;x", "&&", "=", "dryRun=All", "dryRun=x", "fieldManager=x", "timeout=1s", "timeout=x", "timeout=-1s",
               "timeout=0", "timeout=99h", "limit=1&limit=x", "limit=x&limit=1", "Limit=x", "labelSelector=n&labelSelector=nope", "resourceVersion=x&resourceVersion=0", "includeObject=x", "includeUninitialized=true", "verbose=1", "shardSelector=x"]
    for path, asked in itertools.product([*paths[:9], f"{NAMESPACE}/events", "/readyz", "/livez?verbose", "/healthz/ping"], queries):
        yield "GET", f"{path}{'&' if '?' in path else '?'}{asked}", {}
    for agent, path in itertools.product(("curl/8", "Mozilla/5.0", "Wget/1", "kubectl/v1", ""), (MAPS, CUSTOM, "/api", "/apis", "/version", "/nope", f"{MAPS}/none", "/apis/apps/v1")):
        yield "GET", path, {"User-Agent": agent}
    for encoding, path in itertools.product(("gzip", "deflate", "gzip;q=0", "*", "br, gzip", "identity"), ("/apis/apps/v1", "/openapi/v2", "/api/v1/configmaps", "/apis/rbac.authorization.k8s.io/v1/clusterroles", "/apis", "/metrics", f"{MAPS}?watch=1&timeoutSeconds=1", "/healthz", "/openapi/v3")):
        yield "GET", path, {"Accept-Encoding": encoding}
    for path in ("//api/v1", "/api/v1/", "/api/v1/namespaces/", "/api//v1", "/api/v1/namespaces/watched/", f"{MAPS}/", f"{MAPS}/k0/", f"{MAPS}//k0", "/api/v1/../v1", "/api/v1/%6eamespaces", f"{MAPS}/k%30", "/API/v1", "/apis/apps/", "/apis/", "/api/", "/version/", "/healthz/", "/apis/apps/v1/", "/apis//v1", "/api/v2",
                 "/apis/apps/v1/namespaces/watched", "/api/v1/namespaces/watched/nope", "/api/v1/namespaces//configmaps", "/api/v1/namespaces/none/configmaps", "/api/v1/namespaces/none/configmaps/x", f"{MAPS}/K0", f"{MAPS}/a%2Fb", f"{MAPS}/.", f"{MAPS}/..", f"{MAPS}/%00", f"{MAPS}/%25", f"{MAPS}/{'x' * 300}",
                 f"{NAMESPACE}/status", f"{NAMESPACE}/finalize", "/api/v1/componentstatuses", "/api/v1/bindings", "/apis/authentication.k8s.io/v1/tokenreviews", "/debug/pprof", "/debug/flags/v", "/debug/api_priority_and_fairness/dump_priority_levels", "/ui", "/static/x", "/index.html", "/openapi", "/openapi/v3/", "/openapi/v3/apis/apps/v1", "/openapi/v3/nope", "/openapi/v2/"):
        yield "GET", path, {}
        yield "HEAD", path, {}


def tables(peer):
    """Every kind that can be listed, in every form, and what it can be selected by."""
    for group in sorted(set(resources(peer.server))):
        for accept in (meta("Table"), meta("Table", "v1beta1"), meta("PartialObjectMetadataList")):
            yield "GET", f"{group}", {"Accept": accept}
        yield "GET", f"{group}?limit=1&includeObject=Object", {"Accept": meta("Table")}
        yield "GET", f"{group}?labelSelector=none", {"Accept": meta("Table")}
        yield "GET", f"{group}?labelSelector=none", {"Accept": meta("PartialObjectMetadataList")}
        yield "GET", f"{group}?labelSelector=none", {}
        yield "GET", f"{group}?labelSelector=none", {"Accept": "application/yaml"}
        yield "GET", f"{group}?watch=1&timeoutSeconds=1&includeObject=None", {"Accept": meta("Table")}
        yield "GET", f"{group}?watch=1&timeoutSeconds=1", {"Accept": meta("PartialObjectMetadata")}
        yield "GET", f"{group}/none", {}
        for field in FIELDS:
            yield "GET", f"{group}?limit=500&fieldSelector={field}%3Dx", {"Accept": meta("Table")}
        yield "GET", f"{group}?fieldSelector=metadata.name!%3Dx,status.phase!%3Dx", {"Accept": meta("Table")}
        for asked in ("labelSelector=%3D", "fieldSelector=x", "limit=x", "resourceVersion=x", "watch=1&resourceVersion=x", "watch=1&fieldSelector=x%3Dy"):
            yield "GET", f"{group}?{asked}", {}


def protobuf(peer, catalog):
    """Every sample and collection as protobuf, and each server's own bytes sent back to it."""
    media = "application/vnd.kubernetes.protobuf"

    def own(path):
        return lambda player: player.ask("GET", path, {"Accept": media})[2]

    for collection in sorted(set(resources(peer.server))):
        yield "GET", collection, {"Accept": media}
        yield "GET", f"{collection}?watch=1&timeoutSeconds=1", {"Accept": media}
    for sample in catalog.all:
        path = catalog.url(sample)
        yield "GET", path, {"Accept": media}
        yield "PUT", f"{path}?dryRun=All", {"Accept": media, "Content-Type": media}, own(path)
        yield "POST", f"{catalog.collection(sample)}?dryRun=All", {"Accept": media, "Content-Type": media}, own(path)
        yield "DELETE", f"{path}?dryRun=All", {"Accept": media}


FIELDS = """metadata.name metadata.namespace spec.nodeName spec.restartPolicy spec.schedulerName spec.serviceAccountName spec.hostNetwork status.phase status.podIP status.podIPs status.nominatedNodeName
spec.unschedulable spec.replicas status.replicas status.successful involvedObject.kind involvedObject.namespace involvedObject.name involvedObject.uid involvedObject.apiVersion involvedObject.resourceVersion involvedObject.fieldPath
reason reportingComponent source type regarding.kind reportingController spec.signerName spec.type spec.clusterIP name spec.parentRef.name spec.driver spec.size metadata.uid metadata.labels spec.podSelector""".split()


def told(answer, options):
    """What is compared of an answer: the code, headers, and the body without what is a server's own."""
    code, headers, data = answer
    shown = {name: headers.get_all(name) for name in HEADERS if headers.get(name)}
    shown |= {name: "there" for name in PRESENT if headers.get(name) is not None}
    if headers.get("Content-Encoding") == "gzip":
        data = gzip.decompress(data)
    whole = {"code": code, "headers": shown}
    # Ours answers how it is to anybody at once, without the turn that upstream's headers tell of.
    if headers.get("Content-Type", "").startswith("text/plain"):
        for name in PRESENT[1:]:
            shown.pop(name, None)
    if "protobuf" in headers.get("Content-Type", ""):
        return {**whole, "body": compare.plain(wire.tree(data))}
    text = data.decode(errors="replace")
    body = compare.plain(parsed(text, headers.get("Content-Type", ""), options.bookmarks))
    body = json.loads(AGE.sub('"<age>"', json.dumps(body)))
    if not options.exact:
        return {**whole, "body": body}
    # Clients may not care, bytes do.
    form = {"first": text[:4], "end": text[-2:]} if isinstance(body, dict) else {}
    length = "there" if headers.get("Content-Length") is not None else "absent"
    return {**whole, "body": body, **form, "length": length, "order": json.dumps(body)}


def parsed(text, kind, bookmarks):
    """A document, the frames of a watch, or the text itself."""
    if "yaml" in kind:
        return yaml.load(text, yaml.CSafeLoader)
    try:
        return json.loads(text)
    except ValueError:
        pass
    try:
        lines = [json.loads(line) for line in text.splitlines()]
    except ValueError:
        return text
    marks = lambda line: line.get("type") == "BOOKMARK" and "annotations" not in line["object"]["metadata"]  # noqa: E731
    return [line for line in lines if bookmarks or not marks(line)]


def cause(parts):
    """What a group of like differences has in common: where they are, and codes."""
    where = {(re.sub(r"\[\d+\]", "[]", path), (ours, theirs) if path == "code" else "") for path, ours, theirs in parts}
    texts = {compare.general(side) for path, *sides in parts if path == "body.message" for side in sides}
    return str(sorted(where, key=str)), str(sorted(texts))


def main():
    modes = {"versions": versions, "initial": initial, "pages": pages, "selections": selections, "accepts": accepts, "protocol": protocol, "tables": tables, "protobuf": protobuf}
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("mode", choices=modes)
    parser.add_argument("--ours", required=True, metavar="KUBECONFIG")
    parser.add_argument("--peer", required=True, metavar="KUBECONFIG")
    parser.add_argument("--match", default="", help="only questions that hold this")
    parser.add_argument("--every", type=int, default=1)
    parser.add_argument("--threads", type=int, default=16)
    parser.add_argument("--examples", type=int, default=2, help="of each group")
    parser.add_argument("--exact", action="store_true", help="compare also the order of fields, indents and line ends")
    parser.add_argument("--bookmarks", action="store_true", help="compare also bookmarks in the midst of watches, which come when they may")
    arguments = parser.parse_args()
    players = [Player("ours", arguments.ours), Player("peer", arguments.peer)]
    catalog = Catalog(players[1].server)
    # The peer tells where kinds live.
    for player in reversed(players):
        catalog.make(player.server, print)
        player.prepare()
    # What servers do by themselves after a write.
    time.sleep(2)
    mode = modes[arguments.mode]
    if arguments.mode == "tables":
        questions = list(tables(players[1]))
    elif arguments.mode == "protobuf":
        questions = list(protobuf(players[1], catalog))
    else:
        questions = list(mode())
    questions = [q for q in questions if arguments.match in str(q)][:: arguments.every]

    def asked(question):
        return question, [told(player.ask(*question), arguments) for player in players]

    groups, differing = collections.defaultdict(list), 0
    with ThreadPoolExecutor(arguments.threads) as pool:
        for question, (own, other) in pool.map(asked, questions):
            orders = [answer.pop("order", "") for answer in (own, other)]
            parts = list(compare.differences(own, other))
            if not parts and orders[0] != orders[1]:
                parts = [("order", *orders)]
            if parts:
                differing += 1
                groups[cause(parts)].append((question, parts))
    for found in sorted(groups.values(), key=len, reverse=True):
        print(f"\n{len(found)} ×")
        for question, parts in found[: arguments.examples]:
            print(f"  {question}")
            for path, ours, theirs in parts[:5]:
                print(f"    {path}\n      ours   {ours!s:.260}\n      theirs {theirs!s:.260}")
    print(f"\n{differing} of {len(questions)} differ, in {len(groups)} groups")


if __name__ == "__main__":
    main()
