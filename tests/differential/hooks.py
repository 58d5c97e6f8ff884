"""A server that the apiservers call: it answers as a conversation tells, and remembers what it was asked."""

import base64
import copy
import http.server
import json
import os
import ssl
import subprocess
import tempfile
import threading
import time

# What differs by connection or by client.
UNTOLD = {"host", "content-length", "user-agent", "accept-encoding", "connection", "traceparent"}


class Quiet(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_):
        """Whoever does not trust the certificate hangs up."""


class Hooks:
    """One server for one player: `{hook}` and `{ca}` are its address and the authority that signed it."""

    def __init__(self, answers):
        self.answers, self.asked = answers, []
        folder = tempfile.mkdtemp()
        certificate, key = os.path.join(folder, "crt"), os.path.join(folder, "key")
        subject = ["-subj", "/CN=hooks", "-addext", "subjectAltName=IP:127.0.0.1"]
        curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
        made = ["openssl", "req", "-x509", *curve, "-keyout", key, "-out", certificate, "-days", "2", *subject]
        subprocess.run(made, check=True, capture_output=True)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        hooks = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                hooks.answer(self)

            def do_GET(self):
                hooks.answer(self)

            def log_message(self, *_):
                pass

        self.server = Quiet(("127.0.0.1", 0), Handler)
        self.server.socket = context.wrap_socket(self.server.socket, server_side=True, do_handshake_on_connect=False)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        with open(certificate, "rb") as file:
            authority = base64.b64encode(file.read()).decode()
        self.words = {"hook": f"https://127.0.0.1:{self.server.server_port}", "ca": authority}

    def answer(self, request):
        text = request.rfile.read(int(request.headers.get("Content-Length", 0)))
        try:
            asked = json.loads(text)
        except ValueError:
            asked = text.decode(errors="replace")
        headers = {name.lower(): value for name, value in request.headers.items()}
        told = {name: value for name, value in headers.items() if name not in UNTOLD}
        name, _, query = request.path.removeprefix("/").partition("?")
        query = [part for part in query.split("&") if part]
        self.asked.append({"name": name, "query": query, "headers": told, "body": asked})
        if "wait" in self.answers.get(name, {}):
            time.sleep(self.answers[name]["wait"])
        code, body = said(self.answers.get(name, {"code": 404}), copy.deepcopy(asked))
        data = body.encode() if isinstance(body, str) else json.dumps(body).encode()
        request.send_response(code)
        request.send_header("Content-Type", "application/json")
        request.send_header("Content-Length", str(len(data)))
        request.end_headers()
        request.wfile.write(data)

    def taken(self):
        """What was asked since this was called last, whichever came first."""
        asked, self.asked = self.asked, []
        return sorted(asked, key=lambda one: one["name"])

    def close(self):
        self.server.shutdown()
        self.server.server_close()


def said(answer, asked):
    """An answer: `admit` is a review's response, `convert` what changes in the objects, `body` all of it."""
    code = answer.get("code", 200)
    if "body" in answer or not isinstance(asked, dict):
        return code, answer.get("body", "")
    review = {"apiVersion": asked.get("apiVersion"), "kind": asked.get("kind")}
    request = asked.get("request", {})
    response = {"uid": request.get("uid")}
    if "convert" in answer:
        objects = request.get("objects", [])
        for one in objects:
            one["apiVersion"] = request["desiredAPIVersion"]
            for part, value in answer["convert"].items():
                one[part] = {**one[part], **value} if isinstance(value, dict) else value
        response.update(result={"status": "Success"}, convertedObjects=objects)
    response.update(answer.get("response", {}))
    patch = answer.get("patch")
    if patch is not None:
        patch = patch if isinstance(patch, str) else json.dumps(patch)
        response.update(patch=base64.b64encode(patch.encode()).decode())
        response.setdefault("patchType", "JSONPatch")
    return code, {**review, "response": response, **answer.get("review", {})}
