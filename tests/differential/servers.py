"""Servers that are asked the same: a kubeconfig in, answers out, over connections that are kept."""

import base64
import gzip
import http.client
import json
import ssl
import tempfile
import threading
import urllib.parse
from dataclasses import dataclass, field

import yaml


@dataclass
class Answer:
    code: int
    body: object
    warnings: list
    kind: str


@dataclass
class Step:
    """A request; `body` may be a function of the server, for what only that server's own objects tell."""

    method: str
    path: str
    body: object = None
    media: str = "application/json"
    headers: dict = field(default_factory=dict)


class Server:
    def __init__(self, name, kubeconfig):
        self.name = name
        self.stored = {}
        self.local = threading.local()
        with open(kubeconfig, encoding="utf-8") as file:
            config = yaml.safe_load(file)
        cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
        self.url = urllib.parse.urlparse(cluster["server"])
        self.tls = ssl._create_unverified_context()
        self.tls.load_cert_chain(pem(user, "client-certificate"), pem(user, "client-key"))

    def send(self, step):
        body = step.body(self) if callable(step.body) else step.body
        data = None
        if body is not None:
            data = body if isinstance(body, bytes) else json.dumps(body).encode()
        headers = {"User-Agent": "differential", "Accept": "application/json", **step.headers}
        if data is not None and step.media is not None:
            headers["Content-Type"] = step.media
        try:
            response = self.exchange(step.method, step.path, data, headers)
            text = response.read()
            if response.headers.get("Content-Encoding") == "gzip":
                text = gzip.decompress(text)
        except (http.client.HTTPException, OSError, EOFError) as error:
            return Answer(0, f"no answer: {error!r}", [], "")
        kind = response.headers.get("Content-Type", "")
        return Answer(response.status, read(text, kind), response.headers.get_all("Warning") or [], kind)

    def exchange(self, method, path, data, headers):
        """Once more where a kept connection was closed in between."""
        for attempt in (1, 2):
            connection = getattr(self.local, "connection", None)
            if connection is None:
                connection = http.client.HTTPSConnection(
                    self.url.hostname, self.url.port, context=self.tls, timeout=60
                )
                self.local.connection = connection
            try:
                connection.request(method, path, data, headers)
                return connection.getresponse()
            except (http.client.HTTPException, OSError):
                connection.close()
                self.local.connection = None
                if attempt == 2:
                    raise

    def get(self, path):
        return self.send(Step("GET", path))


def pem(user, key):
    """The file of a certificate or key, which the kubeconfig may hold itself."""
    if key in user:
        return user[key]
    with tempfile.NamedTemporaryFile(delete=False) as file:
        file.write(base64.b64decode(user[key + "-data"]))
        return file.name


def read(text, kind):
    if "json" not in kind:
        return text.decode(errors="replace")
    try:
        return json.loads(text)
    except ValueError:
        return [json.loads(line) for line in text.splitlines() if line.strip()]
