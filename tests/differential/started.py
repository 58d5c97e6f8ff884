"""An apiserver of its own: with an etcd, files and flags that a conversation tells, and a certificate for its admin."""

import base64
import json
import os
import re
import socket
import ssl
import subprocess
import tempfile
import time

import yaml
from kms import Service
from servers import Server, Step

ISSUER = "https://kubernetes.default.svc.cluster.local"
CURVE = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]


def ports(count):
    """Ports that nobody has now."""
    taken = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    found = [one.getsockname()[1] for one in taken]
    for one in taken:
        one.close()
    return found


def openssl(*arguments):
    return subprocess.run(["openssl", *arguments], check=True, capture_output=True).stdout


def keys(folder):
    """What both servers are started with: an authority, certificates that it signed, and keys for tokens."""
    at = lambda name: os.path.join(folder, name)  # noqa: E731
    usage = ["-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=critical,keyCertSign,cRLSign"]
    openssl("req", "-x509", *CURVE, "-keyout", at("ca.key"), "-out", at("ca.crt"), "-days", "9", "-subj", "/CN=ca", *usage)
    for name, subject, extension in [
        ("serving", "/CN=kube-apiserver", "subjectAltName=DNS:localhost,IP:127.0.0.1\nextendedKeyUsage=serverAuth"),
        ("admin", "/O=system:masters/CN=admin", "extendedKeyUsage=clientAuth"),
    ]:
        openssl("req", *CURVE, "-keyout", at(name + ".key"), "-out", at(name + ".csr"), "-subj", subject)
        with open(at(name + ".ext"), "w", encoding="utf-8") as file:
            file.write(extension)
        signer = ["-CA", at("ca.crt"), "-CAkey", at("ca.key"), "-CAcreateserial", "-days", "9"]
        openssl("x509", "-req", "-in", at(name + ".csr"), "-out", at(name + ".crt"), "-extfile", at(name + ".ext"), *signer)
    openssl("genrsa", "-out", at("sa.key"), "2048")
    openssl("rsa", "-in", at("sa.key"), "-pubout", "-out", at("sa.pub"))


def coded(data):
    """Bytes as JWTs have them."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def jwt(pki, claims, head=None):
    """A token of the key that `key_set` tells; times are told from now on."""
    now = int(time.time())
    claims = {name: now + value if name in ("iat", "exp", "nbf") else value for name, value in claims.items()}
    head = {"alg": "RS256", "typ": "JWT", "kid": "k1", **(head or {})}
    text = ".".join(coded(json.dumps(part).encode()) for part in (head, claims))
    made = ["openssl", "dgst", "-sha256", "-sign", os.path.join(pki, "sa.key")]
    return f"{text}.{coded(subprocess.run(made, input=text.encode(), check=True, capture_output=True).stdout)}"


def key_set(pki):
    modulus = openssl("rsa", "-in", os.path.join(pki, "sa.key"), "-noout", "-modulus").decode().strip()
    number = coded(bytes.fromhex(modulus.partition("=")[2]))
    return {"keys": [{"kty": "RSA", "use": "sig", "alg": "RS256", "kid": "k1", "n": number, "e": "AQAB"}]}


class Started(Server):
    """A server with its store; `words` are what its flags and files may hold."""

    def __init__(self, name, command, pki, files, flags, words):
        self.folder = tempfile.mkdtemp()
        self.etcd_port, peer, self.port = ports(3)
        self.command, self.pki, self.flags = command, pki, flags
        self.words = {"dir": self.folder, "pki": pki, "port": self.port, **words}
        self.write(files)
        self.service = Service(self.folder) if "kms.json" in files else None
        config = os.path.join(self.folder, "kubeconfig")
        user = {"client-certificate": f"{pki}/admin.crt", "client-key": f"{pki}/admin.key"}
        with open(config, "w", encoding="utf-8") as file:
            cluster = {"cluster": {"server": f"https://127.0.0.1:{self.port}"}}
            yaml.safe_dump({"clusters": [cluster], "users": [{"user": user}]}, file)
        super().__init__(name, config)
        # Without a certificate, for tokens and for nobody.
        self.bare = ssl._create_unverified_context()
        url, own = f"http://127.0.0.1:{self.etcd_port}", f"http://127.0.0.1:{peer}"
        self.etcd = self.run("etcd", ["etcd", "--data-dir", f"{self.folder}/etcd", "--unsafe-no-fsync",
            "--listen-client-urls", url, "--advertise-client-urls", url, "--listen-peer-urls", own,
            "--initial-advertise-peer-urls", own, "--initial-cluster", f"default={own}"])  # fmt: skip
        self.process = None
        self.start()

    def write(self, files):
        """Files of a configuration; a text stays as it is."""
        for name, content in (files or {}).items():
            text = content if isinstance(content, str) else yaml.safe_dump(content, sort_keys=False)
            path = os.path.join(self.folder, name)
            with open(path + ".new", "w", encoding="utf-8") as file:
                file.write(self.filled(text))
            # As a kubelet puts a Secret's files: whole, at once.
            os.rename(path + ".new", path)

    def filled(self, text):
        for word, value in self.words.items():
            text = text.replace(f"{{{word}}}", str(value))
        return text

    def run(self, name, command):
        # The log stays open as long as the process.
        log = open(os.path.join(self.folder, name + ".log"), "a", encoding="utf-8")  # noqa: SIM115
        return subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)

    def start(self):
        self.process = self.run("apiserver", self.whole(self.flags))
        for _ in range(600):
            if self.process.poll() is not None or self.send(Step("GET", "/readyz")).code == 200:
                return
            time.sleep(0.1)

    def whole(self, flags, port=None):
        """The command line with these flags."""
        pki = self.pki
        return self.command + ["--etcd-servers", f"http://127.0.0.1:{self.etcd_port}",
            "--secure-port", str(port or self.port), "--bind-address", "127.0.0.1", "--advertise-address", "192.168.77.1",
            "--tls-cert-file", f"{pki}/serving.crt", "--tls-private-key-file", f"{pki}/serving.key",
            "--client-ca-file", f"{pki}/ca.crt", "--service-cluster-ip-range", "10.96.0.0/16",
            "--service-account-issuer", ISSUER, "--service-account-key-file", f"{pki}/sa.pub",
            "--service-account-signing-key-file", f"{pki}/sa.key", *(self.filled(flag) for flag in flags)]  # fmt: skip

    def refusal(self, flags):
        """Why it does not start with these flags; nothing where it does."""
        with tempfile.TemporaryFile("w+", encoding="utf-8") as log:
            process = subprocess.Popen(self.whole(flags, ports(1)[0]), stdout=log, stderr=log, start_new_session=True)
            try:
                process.wait(4)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                return ""
            log.seek(0)
            told = log.read()
        # Several lines are told as such.
        told = re.sub(r'err=<\n((?:\t.*\n)*) >', lambda found: "err=" + json.dumps(found[1].replace("\t", "").strip()), told)
        told = re.sub(r"(coracle apiserver: [^\0]*)", lambda found: found[1].strip().replace("\n", " "), told)
        told = re.sub(r' in scheme \\?".*?"', "", told.replace("\\n", " ")).splitlines()
        for line in reversed(told):
            found = re.search(r'"command failed" err=("(?:[^"\\]|\\.)*")|^[Ee]rror: (.*)|^coracle apiserver: (.*)', line)
            if found:
                quoted, flag, own = found.groups()
                told = json.loads(quoted) if quoted else flag or own
                # The two programs' words for the same fault of a flag.
                return re.sub(r"^invalid value '(.*)' for '(--[a-z0-9-]*).*?': ", r'invalid argument "\1" for "\2" flag: ', told)
        return told[-1:]

    def end(self):
        """Why it ended, if it ended by itself; what it says then."""
        by_itself = self.process.poll()
        if by_itself is None:
            self.process.terminate()
            self.process.wait(90)
        return by_itself

    def close(self):
        self.end()
        if self.service:
            self.service.close()
        self.etcd.terminate()
        self.etcd.wait(30)

    def value_of(self, key):
        """What lies at a key of the store, as bytes."""
        command = ["etcdctl", "--endpoints", f"http://127.0.0.1:{self.etcd_port}", "get", "--print-value-only", key]
        return subprocess.run(command, check=True, capture_output=True, env={**os.environ, "ETCDCTL_API": "3"}).stdout
