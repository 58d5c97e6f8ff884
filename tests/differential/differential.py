#!/usr/bin/env python3
"""Sends the same writes to this project's apiserver and to others, and prints where it agrees with none of them."""

import argparse
import collections
import json
import sys
from concurrent.futures import ThreadPoolExecutor

sys.dont_write_bytecode = True

import cases  # noqa: E402
import compare  # noqa: E402
from samples import Catalog  # noqa: E402
from servers import Server  # noqa: E402


def arguments():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("mode", choices=[*cases.MODES, "remove"], help="remove takes the samples away again")
    parser.add_argument("--ours", required=True, metavar="KUBECONFIG")
    parser.add_argument("--peer", required=True, action="append", metavar="KUBECONFIG")
    parser.add_argument("--kind", action="append", default=[], help="only samples of this kind")
    parser.add_argument("--match", default="", help="only cases whose label holds this")
    parser.add_argument("--every", type=int, default=1, help="only each so many-th case")
    parser.add_argument("--threads", type=int, default=8)
    parser.add_argument("--examples", type=int, default=1, help="of each group")
    parser.add_argument("--groups", type=int, default=80, help="how many are printed")
    parser.add_argument("--warnings", action="store_true", help="compare nothing but Warning headers")
    parser.add_argument("--exact", action="store_true", help="compare also how refusals show structures")
    parser.add_argument("--full", action="store_true", help="print whole answers, also of what agrees")
    return parser.parse_args()


def asked(servers, case, exact):
    """What each server answers to the steps of a case."""
    return [[compare.seen(server.send(step), exact) for step in case.steps] for server in servers]


def judged(answers):
    """The differences of ours from the peer that it comes closest to, step by step; none where it agrees with one."""
    ours, peers = answers[0], answers[1:]
    best = None
    for peer in peers:
        parts = [part for own, other in zip(ours, peer) for part in compare.found(own, other)]
        distance = [own["code"] for own in ours] != [other["code"] for other in peer], len(parts)
        if best is None or distance < best[0]:
            best = distance, parts
    return best[1]


def compared(servers, case, arguments):
    answers = asked(servers, case, arguments.exact)
    if arguments.warnings:
        answers = [[{**a, "body": None} for a in steps] for steps in answers]
    if arguments.full:
        for server, steps in zip(servers, answers):
            print(case.label, server.name, json.dumps(steps, ensure_ascii=False), sep="\n  ")
    return case, judged(answers)


def report(results, arguments):
    groups, total = collections.defaultdict(list), 0
    for case, parts in results:
        total += 1
        if parts:
            groups[compare.cause(parts)].append((case, parts))
    differing = sum(map(len, groups.values()))
    for found in sorted(groups.values(), key=len, reverse=True)[: arguments.groups]:
        kinds = collections.Counter(case.kind for case, _ in found)
        print(f"\n{len(found)} × {dict(kinds.most_common(6))}")
        for case, parts in found[: arguments.examples]:
            print(f"  {case.label}")
            for path, ours, theirs in parts[:6]:
                print(f"    {path}\n      ours   {ours!s:.700}\n      theirs {theirs!s:.700}")
    print(f"\n{differing} of {total} differ, in {len(groups)} groups")


def main():
    args = arguments()
    servers = [Server("ours", args.ours)]
    servers += [Server(f"peer {i}", path) for i, path in enumerate(args.peer, 1)]
    catalog = Catalog(servers[1])
    complain = lambda text: print(text, file=sys.stderr)  # noqa: E731
    generate, made = cases.MODES.get(args.mode, (None, False))
    # The first peer tells where kinds live.
    for server in servers[1:] + servers[:1]:
        if made:
            catalog.make(server, complain)
        else:
            catalog.unmake(server)
    if generate is None:
        return
    if not made:
        for server in servers:
            for base in catalog.bases():
                catalog.make_one(server, base, complain)
    chosen = generate(catalog, catalog.chosen(args.kind), servers[1])
    chosen = [case for case in chosen if args.match in case.label][:: args.every]
    with ThreadPoolExecutor(args.threads) as pool:
        report(pool.map(lambda case: compared(servers, case, args), chosen), args)


if __name__ == "__main__":
    main()
