"""The sample objects, where they live, and how they come onto a server."""

import glob
import os
import time
from dataclasses import dataclass

import yaml
from servers import Step

NAMESPACE = "differential"


@dataclass
class Place:
    """A kind as discovery tells it."""

    path: str
    namespaced: bool
    subresources: list


class Catalog:
    """Samples and the paths of their kinds."""

    def __init__(self, server):
        self.server = server
        self.places = {}
        self.all = []
        folder = os.path.join(os.path.dirname(os.path.abspath(__file__)), "samples")
        for name in sorted(glob.glob(os.path.join(folder, "*.yaml"))):
            with open(name, encoding="utf-8") as file:
                self.all += [sample for sample in yaml.safe_load_all(file) if sample]
        self.all.sort(key=lambda sample: (not is_base(sample), sample["kind"] != "Namespace"))

    def place(self, sample):
        version, kind = sample["apiVersion"], sample["kind"]
        if (version, kind) not in self.places:
            self.discover(version)
        return self.places[version, kind]

    def discover(self, version):
        prefix = f"/apis/{version}" if "/" in version else f"/api/{version}"
        answer = self.server.get(prefix)
        resources = answer.body["resources"] if answer.code == 200 else []
        for resource in resources:
            plural, _, subresource = resource["name"].partition("/")
            if not subresource:
                place = Place(f"{prefix}/{plural}", resource["namespaced"], [])
                self.places[version, resource["kind"]] = place
        for resource in resources:
            plural, _, subresource = resource["name"].partition("/")
            for place in self.places.values():
                if subresource and place.path == f"{prefix}/{plural}":
                    place.subresources.append(subresource)

    def collection(self, sample):
        place = self.place(sample)
        if not place.namespaced:
            return place.path
        head, _, plural = place.path.rpartition("/")
        return f"{head}/namespaces/{sample['metadata']['namespace']}/{plural}"

    def url(self, sample, subresource=""):
        url = f"{self.collection(sample)}/{sample['metadata']['name']}"
        return f"{url}/{subresource}" if subresource else url

    def chosen(self, kinds):
        """What is mutated: no base."""
        return [s for s in self.all if not is_base(s) and (not kinds or s["kind"] in kinds)]

    def bases(self):
        return [sample for sample in self.all if is_base(sample)]

    def make(self, server, complain):
        """Every sample with its status, as far as it is not there; what the server then has is kept in `stored`."""
        for sample in self.all:
            # Kinds of a definition are served a moment after it.
            for _ in range(50):
                if (sample["apiVersion"], sample["kind"]) in self.places or self.known(sample):
                    break
                time.sleep(0.1)
            self.make_one(server, sample, complain)
        # Once more, after what the server's own controllers have written.
        time.sleep(3)
        for sample in self.all:
            self.make_one(server, sample, complain)

    def known(self, sample):
        self.discover(sample["apiVersion"])
        return (sample["apiVersion"], sample["kind"]) in self.places

    def make_one(self, server, sample, complain):
        found = server.get(self.url(sample))
        if found.code == 404:
            self.make_new(server, sample, complain)
            found = server.get(self.url(sample))
        if found.code == 200:
            server.stored[key(sample)] = found.body

    def make_new(self, server, sample, complain):
        answer = server.send(Step("POST", self.collection(sample), sample))
        # Kinds of a definition are served a moment after it.
        for _ in range(50):
            if answer.code != 404:
                break
            time.sleep(0.1)
            answer = server.send(Step("POST", self.collection(sample), sample))
        if answer.code != 201:
            complain(f"{server.name}: POST {key(sample)}: {answer.code} {answer.body}")
        elif "status" in sample and "status" in self.place(sample).subresources:
            # A controller of the server may come in between.
            for _ in range(5):
                made = {**server.get(self.url(sample)).body, "status": sample["status"]}
                kept = server.send(Step("PUT", self.url(sample, "status"), made))
                if kept.code != 409:
                    break
            if kept.code != 200:
                complain(f"{server.name}: PUT status of {key(sample)}: {kept.code} {kept.body}")

    def unmake(self, server):
        """Every sample away, whatever holds it."""
        for sample in reversed(self.all):
            try:
                url = self.url(sample)
            except KeyError:
                # Of a definition that is not there.
                continue
            server.send(Step("DELETE", f"{url}?gracePeriodSeconds=0&propagationPolicy=Background"))
            free = {"metadata": {"finalizers": None}}
            server.send(Step("PATCH", url, free, "application/merge-patch+json"))
            if sample["kind"] == "Namespace":
                empty = {**sample, "spec": {"finalizers": []}}
                server.send(Step("PUT", f"{url}/finalize", empty))


def is_base(sample):
    return sample["metadata"].get("labels", {}).get("base") == "true"


def key(sample):
    return f"{sample['kind']} {sample['metadata']['name']}"
