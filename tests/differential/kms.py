"""A key management service (KMS v2) on a unix socket, which does as a file tells: the keys are made of their ids, so that any
two of these open what either has sealed. Needs Debian's python3-grpcio."""

import hashlib
import json
import os
from concurrent.futures import ThreadPoolExecutor

import wire


def sealed(key_id, data):
    """And opened: the same again."""
    stream = hashlib.shake_256(key_id.encode()).digest(len(data))
    return bytes(one ^ other for one, other in zip(data, stream))


def message(fields):
    """A message with these byte strings as its fields."""
    parts = [(number, value.encode() if isinstance(value, str) else value) for number, value in fields]
    return b"".join(bytes([number << 3 | 2]) + varint(len(value)) + value for number, value in parts)


def varint(number):
    low, rest = number & 0x7F, number >> 7
    return bytes([low]) if rest == 0 else bytes([low | 0x80]) + varint(rest)


def strings(data):
    """The byte strings of a message, by their fields' numbers."""
    found, at = {}, 0
    while at < len(data):
        key, at = wire.number(data, at)
        size, at = wire.number(data, at)
        found[key >> 3], at = data[at : at + size], at + size
    return found


class Service:
    """`healthz`, `version`, `key_id`, `annotations` and `refuse` (a method and why) stand in the file."""

    def __init__(self, folder):
        import grpc

        self.grpc, self.told = grpc, os.path.join(folder, "kms.json")
        self.server = grpc.server(ThreadPoolExecutor(4))
        methods = {"Status": self.status, "Encrypt": self.encrypt, "Decrypt": self.decrypt}
        handlers = {name: grpc.unary_unary_rpc_method_handler(answer) for name, answer in methods.items()}
        self.server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("v2.KeyManagementService", handlers)])
        self.server.add_insecure_port("unix://" + os.path.join(folder, "kms.sock"))
        self.server.start()

    def now(self, method, context):
        with open(self.told, encoding="utf-8") as file:
            told = json.load(file)
        if method in told.get("refuse", {}):
            context.abort(self.grpc.StatusCode.INTERNAL, told["refuse"][method])
        return told

    def status(self, _, context):
        told = self.now("Status", context)
        return message([(1, told.get("version", "v2")), (2, told.get("healthz", "ok")), (3, told["key_id"])])

    def encrypt(self, request, context):
        told = self.now("Encrypt", context)
        plain = strings(request)[1]
        notes = [(3, message([(1, name), (2, value)])) for name, value in told.get("annotations", {}).items()]
        return message([(1, sealed(told["key_id"], plain)), (2, told["key_id"]), *notes])

    def decrypt(self, request, context):
        self.now("Decrypt", context)
        asked = strings(request)
        return message([(1, sealed(asked[3].decode(), asked[1]))])

    def close(self):
        self.server.stop(None).wait()
