#!/usr/bin/env python3
"""Objects and changes by chance, sent to this project's apiserver and a peer; prints where what they answer differs.

`create` changes samples in one to four places at once, `whole` makes objects of nothing but their schema, both as dry runs;
`update` makes an object and writes it in every way: PUT, patches, apply, status. What is put in is drawn by the name and type
of the field, with what does not fit among it. The same --seed draws the same.
"""

import argparse
import copy
import json
import os
import random
import re
import sys

sys.dont_write_bytecode = True

import conversations  # noqa: E402
from samples import NAMESPACE, Catalog  # noqa: E402
from servers import Server, Step  # noqa: E402

SCHEMAS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../libs/api/data/schemas.json")
# Kinds that are no objects, whose status controllers write, or whose text is kept as it was sent.
LEFT_OUT = {"Namespace", "TokenReview", "SubjectAccessReview", "SelfSubjectReview", "FlowSchema", "ControllerRevision",
    "ValidatingAdmissionPolicy", "CustomResourceDefinition", "IPAddress", "APIService"}  # fmt: skip
UNTOUCHED = {"status", "managedFields", "apiVersion", "kind"}
OTHERS = ["a", "a", "b", "x-y", "a.b/c", "A_b", "", "1", "x" * 64]
AMOUNTS = ["1", "2", "100m", "1Gi", "-1", "0", "1.5", "512Mi", "1k"]
KEYS = ["cpu", "memory", "storage", "pods", "ephemeral-storage", "nvidia.com/gpu", "hugepages-2Mi", "requests.cpu", "count/pods"]
TYPES = ["ClusterIP", "NodePort", "LoadBalancer", "ExternalName", "RuntimeDefault", "Localhost", "RollingUpdate", "OnDelete",
    "Recreate", "Resource", "Pods", "Utilization", "AverageValue", "Container", "PersistentVolumeClaim", "Ready", "x"]  # fmt: skip
CHOICES = ["Always", "Never", "OnFailure", "IfNotPresent", "Retain", "Delete", "DoNotSchedule", "ScheduleAnyway", "Cluster",
    "Local", "None", "Allow", "Forbid", "Replace", "Indexed", "NonIndexed", "Ignore", "Fail", "FailJob", "Block", "Filesystem",
    "SingleStack", "PreferDualStack", "ClusterFirst", "Default", "Namespaced", "HTTPS", "PriorityClass", "Immediate", "x"]  # fmt: skip
# What fields whose names match hold; the first that does counts.
DRAWN = [
    (r"ips?$|^addresses$", ["10.96.7.7", "10.0.0.1", "fd00::1", "1.2.3", ""]),
    (r"cidr", ["10.0.0.0/8", "10.1.1.1/24", "fd00::/64", "x"]),
    (r"path", ["/x", "x", "/a/../b", "", "/x:y"]),
    (r"^(port|targetport|number)$", ["http", "80", "x_y", ""]),
    (r"^operator$", ["In", "NotIn", "Exists", "DoesNotExist", "Gt", "Equal", "x"]),
    (r"^effect$", ["NoSchedule", "NoExecute", "PreferNoSchedule", "x"]),
    (r"^protocol$", ["TCP", "UDP", "SCTP", "x"]),
    (r"^type$", TYPES),
    (r"accessmodes", ["ReadWriteOnce", "ReadOnlyMany", "ReadWriteOncePod", "x"]),
    (r"policy|mode$|^(whenunsatisfiable|scope|action|affinity|scheme)|^when", CHOICES),
    (r"^schedule$", ["* * * * *", "@daily", "61 * * * *", "TZ=UTC * * * * *"]),
    (r"^kind$", ["Pod", "Deployment", "User", "Group", "ServiceAccount", "ClusterRole", "x", ""]),
    (r"^api(version|group)$", ["v1", "apps/v1", "rbac.authorization.k8s.io", "", "a/b/c"]),
    (r"^(verbs|resources|apigroups)$", ["*", "get", "pods", "", "apps", "pods/status"]),
    (r"url", ["https://x.y/z", "http://x", "/x", "x"]),
    (r"expression", ["true", "1", "object.metadata.name == 'x'", "x"]),
]


class Chance:
    """Draws values for a schema."""

    def __init__(self, seed):
        self.draw = random.Random(seed)
        with open(SCHEMAS, encoding="utf-8") as file:
            self.schemas = json.load(file)

    def root(self, sample):
        group, _, version = sample["apiVersion"].rpartition("/")
        of = {"group": group, "version": version, "kind": sample["kind"]}
        found = (one for one in self.schemas.values() if of in one.get("x-kubernetes-group-version-kind", []))
        return next(found, {})

    def resolved(self, schema):
        return self.schemas.get(schema["$ref"].split("/")[-1], {}) if "$ref" in schema else schema

    def value(self, schema, name, share, depth=0):
        """What may stand in a field; of the fields that need not be there, about this share is."""
        of = schema.get("$ref", "").split(".")[-1]
        special = {"Quantity": AMOUNTS, "IntOrString": [1, 0, -1, 80, "10%", "101%", "http"], "Time": ["2020-01-01T00:00:00Z"],
            "MicroTime": ["2020-01-01T00:00:00.000000Z"], "JSON": [{}], "JSONSchemaProps": [{"type": "object"}],
            "RawExtension": [{}]}  # fmt: skip
        if of in special:
            return self.draw.choice(special[of])
        if of == "ObjectMeta":
            return {"labels": {self.draw.choice(["a", "app", "x/y"]): self.draw.choice(["b", "1", "B c"])}}
        schema = self.resolved(schema)
        if schema.get("type") == "array":
            count = self.draw.choice([0, 1, 1, 1, 2, 2, 3]) if depth < 6 else 1
            return [self.value(schema["items"], name, share, depth + 1) for _ in range(count)]
        if "properties" in schema:
            required = schema.get("required", [])
            fields = [field for field in schema["properties"] if field not in ("status", "managedFields")]
            kept = [field for field in fields if self.draw.random() < (0.96 if field in required else share)]
            return {field: self.value(schema["properties"][field], field, share * 0.9, depth + 1) for field in kept}
        if "additionalProperties" in schema:
            inner = schema["additionalProperties"]
            keys = KEYS if inner.get("$ref", "").endswith("Quantity") else ["a", "b", "app", "x/y", "A b"]
            count = self.draw.choice([0, 1, 1, 2])
            return {self.draw.choice(keys): self.value(inner, name, share, depth + 1) for _ in range(count)}
        return self.plain(schema, name)

    def plain(self, schema, name):
        if schema.get("type") == "boolean":
            return self.draw.random() < 0.6
        if schema.get("type") in ("integer", "number"):
            return self.draw.choice([0, 1, 2, 3, 80, -1, 100, 65536, 3600, 99999])
        if schema.get("type") == "object":
            return {}
        if schema.get("format") == "byte":
            return self.draw.choice(["YQ==", "", "eA=="])
        drawn = next((values for pattern, values in DRAWN if re.search(pattern, name.lower())), OTHERS)
        return self.draw.choice(drawn)

    def changed(self, sample, root, count):
        """A copy with this many changes: what goes, what comes, and what becomes something else."""
        made = copy.deepcopy(sample)
        for _ in range(count):
            places = [place for place in walk(made) if place[0] not in ("apiVersion", "kind", "metadata")]
            if places:
                self.change(made, root, self.draw.choice(places))
        return made

    def change(self, made, root, place):
        holder, outer = made, root
        for part in place[:-1]:
            holder, outer = holder[part], self.inner(outer, part)
        part, name, act = place[-1], next(one for one in reversed(place) if isinstance(one, str)), self.draw.random()
        fields = [field for field in self.resolved(outer).get("properties", {}) if field not in UNTOUCHED and field != "metadata"]
        if act < 0.25:
            del holder[part]
        elif act < 0.65 and isinstance(holder, list):
            again = copy.deepcopy(holder[part]) if self.draw.random() < 0.4 else self.value(self.inner(outer, part), name, 0.4)
            holder.insert(part, again)
        elif act < 0.65 and fields:
            field = self.draw.choice(fields)
            holder[field] = self.value(self.inner(outer, field), field, 0.35)
        else:
            holder[part] = self.value(self.inner(outer, part), name, 0.4)

    def inner(self, schema, part):
        schema = self.resolved(schema)
        if isinstance(part, int):
            return schema.get("items", {})
        return schema.get("properties", {}).get(part) or schema.get("additionalProperties") or {}


def walk(value, place=()):
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for part, inner in parts:
        yield (*place, part)
        yield from walk(inner, (*place, part))


class Comparison:
    def __init__(self, ours, peer):
        self.servers, self.asked, self.groups = (ours, peer), 0, {}

    def both(self, step):
        return [server.send(step) for server in self.servers]

    def ask(self, step, kind):
        """Whether both have done it."""
        answers = self.both(step)
        self.asked += 1
        # A peer that panics has said nothing.
        if answers[1].code:
            seen = [conversations.seen(answer, False) for answer in answers]
            found = list(conversations.differing(*seen))
            if found:
                where = "; ".join(sorted({re.sub(r"\d+", "N", path) for path, _, _ in found}))
                self.groups.setdefault(f"{step.method} {kind}: {where[:200]}", []).append((step, found))
        return all(answer.code in (200, 201) for answer in answers)

    def show(self, width):
        for name, examples in sorted(self.groups.items(), key=lambda group: -len(group[1])):
            step, found = min(examples, key=lambda example: len(json.dumps(example[0].body)))
            print(f"\n## {len(examples)} {name}\n  {step.path} {json.dumps(step.body)[:width]}")
            for path, own, other in found[:4]:
                print(f"    {path}\n      ours   {str(own)[:width]}\n      theirs {str(other)[:width]}")
        count = sum(map(len, self.groups.values()))
        print(f"\n{count} of {self.asked} answers differ")


def written(chance, comparison, sample, root, path, name):
    """An object that is made, and six ways to write it."""
    sample = copy.deepcopy(sample)
    sample["metadata"]["name"] = name
    made = chance.changed(sample, root, chance.draw.choice([0, 0, 1, 2]))
    kind = sample["kind"]
    if comparison.ask(Step("POST", path, made), kind):
        for _ in range(6):
            new = chance.changed(made, root, chance.draw.choice([1, 1, 2, 3]))
            how = chance.draw.choice(["PUT", "PUT", "MERGE", "STRATEGIC", "APPLY", "STATUS"])
            at, media = f"{path}/{name}", conversations.MEDIA.get(how, conversations.MEDIA["MERGE"])
            if how == "PUT":
                comparison.ask(Step("PUT", f"{at}?dryRun=All", new), kind)
            elif how == "STATUS" and "status" in root["properties"]:
                status = chance.value(root["properties"]["status"], "status", 0.5)
                comparison.ask(Step("PATCH", f"{at}/status?dryRun=All", {"status": status}, media), kind)
            elif how != "STATUS":
                query = "&fieldManager=f&force=true" if how == "APPLY" else ""
                comparison.ask(Step("PATCH", f"{at}?dryRun=All{query}", new, media), kind)
    comparison.both(Step("DELETE", f"{path}/{name}?gracePeriodSeconds=0"))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("mode", choices=["create", "whole", "update"])
    parser.add_argument("--ours", required=True, metavar="KUBECONFIG")
    parser.add_argument("--peer", required=True, metavar="KUBECONFIG")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--count", type=int, default=300, help="objects")
    parser.add_argument("--kind", action="append", help="only these")
    parser.add_argument("--width", type=int, default=700)
    args = parser.parse_args()
    chance, comparison = Chance(args.seed), Comparison(Server("ours", args.ours), Server("peer", args.peer))
    catalog = Catalog(comparison.servers[1])
    samples = [one for one in catalog.all if one["kind"] not in LEFT_OUT and chance.root(one)]
    samples = [one for one in samples if not args.kind or one["kind"] in args.kind]
    comparison.both(Step("POST", "/api/v1/namespaces", {"metadata": {"name": NAMESPACE}}))
    comparison.both(Step("POST", f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts", {"metadata": {"name": "default"}}))
    for number in range(args.count):
        sample = copy.deepcopy(chance.draw.choice(samples))
        root, path = chance.root(sample), catalog.collection(sample)
        sample["metadata"] = {"name": "chance", "labels": sample["metadata"].get("labels", {})}
        if args.mode == "update":
            written(chance, comparison, sample, root, path, f"chance-{args.seed}-{number}")
        elif args.mode == "create":
            made = chance.changed(sample, root, chance.draw.choice([1, 2, 3, 4]))
            comparison.ask(Step("POST", f"{path}?dryRun=All", made), sample["kind"])
        else:
            made = {**chance.value(root, "", chance.draw.choice([0.15, 0.25, 0.4])), "metadata": {"name": "chance"}}
            made.update(apiVersion=sample["apiVersion"], kind=sample["kind"])
            comparison.ask(Step("POST", f"{path}?dryRun=All", made), sample["kind"])
    comparison.show(args.width)
    sys.exit(bool(comparison.groups))


if __name__ == "__main__":
    main()
