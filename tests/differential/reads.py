#!/usr/bin/env python3
"""Asks this project's apiserver and another for what clients derive from: discovery, OpenAPI, Tables; prints what differs."""

import argparse
import json
import re
import sys

sys.dont_write_bytecode = True

from servers import Server, Step  # noqa: E402

AGGREGATED = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io"
# What each server has of its own.
OWN = {"serverAddress", "serverAddressByClientCIDRs", "creationTimestamp", "uid", "resourceVersion", "managedFields"}
AGE = re.compile(r"^(\d+[smhdy])+$|^\d{4}-\d\d-\d\dT[\d:.]+Z$|^10\.96\.\d+\.\d+$")
SHOWN = 12


def differences(theirs, ours, at=""):
    """Paths at which two values differ, with both."""
    if isinstance(theirs, dict) and isinstance(ours, dict):
        for key in sorted({*theirs, *ours} - OWN):
            if key not in theirs or key not in ours:
                yield f"{at}/{key}", theirs.get(key, "(absent)"), ours.get(key, "(absent)")
            else:
                yield from differences(theirs[key], ours[key], f"{at}/{key}")
    elif isinstance(theirs, list) and isinstance(ours, list) and len(theirs) == len(ours):
        for index, (one, other) in enumerate(zip(theirs, ours)):
            yield from differences(one, other, f"{at}/{index}")
    elif theirs != ours and not (aged(theirs) and aged(ours)):
        yield at, theirs, ours


def aged(value):
    return isinstance(value, str) and AGE.match(value)


def rows(table):
    """A Table's rows by their objects, so that what one server has more of says nothing of the others."""
    if not isinstance(table, dict) or "rows" not in table:
        return table
    named = {}
    for row in table["rows"] or []:
        metadata = row["object"]["metadata"]
        named[f"{metadata.get('namespace', '')}/{metadata['name']}"] = row
    return {"columns": table["columnDefinitions"], "rows": named}


def resources(server):
    """The collections that can be listed, by their paths."""
    for root in ("/apis", "/api"):
        answer = server.send(Step("GET", root, headers={"Accept": AGGREGATED}))
        for group in answer.body["items"]:
            name = group["metadata"].get("name", "")
            for version in group["versions"]:
                base = f"/apis/{name}/{version['version']}" if name else f"/api/{version['version']}"
                for resource in version.get("resources", []):
                    if "list" in resource["verbs"]:
                        yield f"{base}/{resource['resource']}"


def documents(server):
    yield from ("/api", "/apis", "/openapi/v2")
    index = server.get("/openapi/v3").body
    # kube-apiserver says that it is no JSON.
    index = json.loads(index) if isinstance(index, str) else index
    yield from (f"/openapi/v3/{path}" for path in index["paths"])


def questions(mode, server):
    if mode == "documents":
        yield from ((path, {}) for path in documents(server))
        yield from ((path, {"Accept": AGGREGATED}) for path in ("/api", "/apis"))
    else:
        yield from ((path, {"Accept": TABLE}) for path in resources(server))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("mode", choices=["documents", "tables"])
    parser.add_argument("--ours", required=True, metavar="KUBECONFIG")
    parser.add_argument("--peer", required=True, metavar="KUBECONFIG")
    arguments = parser.parse_args()
    ours, peer = Server("ours", arguments.ours), Server("peer", arguments.peer)
    differing = 0
    for path, headers in questions(arguments.mode, peer):
        answers = [server.send(Step("GET", path, headers=headers)) for server in (peer, ours)]
        found = list(differences(*(rows(answer.body) for answer in answers)))
        found = [one for one in found if one[0] != "/info/version"]
        if not found:
            continue
        differing += 1
        print(f"\n{path}: {len(found)}")
        for at, theirs, own in found[:SHOWN]:
            print(f"  {at}: {json.dumps(theirs)[:160]} | {json.dumps(own)[:160]}")
    print(f"\n{differing} differ")
    return 1 if differing else 0


if __name__ == "__main__":
    sys.exit(main())
