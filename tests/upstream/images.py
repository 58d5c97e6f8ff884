#!/usr/bin/env python3
"""Makes the images that Kubernetes' end-to-end tests run in pods, where no registry has them.

    images.py KUBERNETES PROGRAMS OUT.tar

KUBERNETES: its source tree. PROGRAMS: a folder with what conformance.sh builds of it. OUT.tar: an archive for
`coracle image load`. The images have Debian's busybox (busybox-static) and, where tests look about in the network, this
machine's bash, curl, dig, getent, ip, nc, nslookup and ss; what is told to be a web server is busybox's.
"""

import hashlib
import io
import json
import pathlib
import re
import shutil
import subprocess
import sys
import tarfile

TESTS = "registry.k8s.io/e2e-test-images/"
FOLDERS = (
    "bin dev etc home proc root run sbin sys usr usr/bin usr/local usr/local/bin usr/sbin var var/run "
    "usr/local/apache2 usr/local/apache2/conf usr/local/apache2/htdocs usr/share usr/share/nginx usr/share/nginx/html uploads"
).split()
TOOLS = "bash curl dig getent ip nc nslookup ss".split()
USERS = "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/home:/bin/false\n"
GROUPS = "root:x:0:\nusers:x:100:\nnogroup:x:65534:\n"


class Layer:
    """Files of an image, added one by one."""

    def __init__(self):
        self.bytes = io.BytesIO()
        self.tar = tarfile.open(fileobj=self.bytes, mode="w")
        self.names = set()

    def folder(self, name, mode=0o755):
        entry = tarfile.TarInfo(name)
        entry.type, entry.mode = tarfile.DIRTYPE, mode
        self.tar.addfile(entry)

    def link(self, name, to):
        entry = tarfile.TarInfo(name)
        entry.type, entry.linkname = tarfile.SYMTYPE, to
        self.tar.addfile(entry)

    def file(self, name, content, mode=0o644):
        if name in self.names:
            return
        self.names.add(name)
        content = content.encode() if isinstance(content, str) else content
        entry = tarfile.TarInfo(name)
        entry.size, entry.mode = len(content), mode
        self.tar.addfile(entry, io.BytesIO(content))

    def program(self, name, path, mode=0o755):
        self.file(name, pathlib.Path(path).read_bytes(), mode)

    def done(self):
        self.tar.close()
        return self.bytes.getvalue()


def base():
    layer = Layer()
    for name in FOLDERS:
        layer.folder(name)
    layer.folder("tmp", 0o1777)
    busybox = shutil.which("busybox") or sys.exit("install busybox-static")
    layer.program("bin/busybox", busybox)
    applets = subprocess.run([busybox, "--list"], capture_output=True, text=True, check=True).stdout.split()
    for applet in applets:
        if applet != "busybox":
            layer.link("bin/" + applet, "/bin/busybox")
    layer.link("usr/bin/env", "/bin/busybox")
    layer.file("etc/passwd", USERS)
    layer.file("etc/group", GROUPS)
    layer.file("etc/nsswitch.conf", "passwd: files\ngroup: files\nhosts: files dns\n")
    layer.file("usr/local/apache2/htdocs/index.html", "<html><body><h1>It works!</h1></body></html>\n")
    layer.file("usr/local/apache2/conf/httpd.conf", "#\n")
    layer.file("usr/share/nginx/html/index.html", "<html><title>Welcome to nginx!</title></html>\n")
    return layer.done()


def tools():
    """This machine's programs with what they are linked to, and what resolves names."""
    layer = Layer()
    paths = [shutil.which(name) or sys.exit(f"install what has {name}") for name in TOOLS]
    needed = subprocess.run(["ldd", *paths], capture_output=True, text=True, check=True).stdout
    libraries = set(re.findall(r"(/\S+\.so\S*)", needed))
    libraries |= {str(path) for path in pathlib.Path("/lib/x86_64-linux-gnu").glob("libnss_*.so.2")}
    for name, path in [*zip(TOOLS, paths), *((library, library) for library in sorted(libraries))]:
        layer.program(f"bin/{name}" if name in TOOLS else name.lstrip("/"), path)
    # Tests name variables as no POSIX shell does; busybox's drops these.
    layer.link("bin/sh", "/bin/bash")
    return layer.done()


def agnhost(source, programs):
    layer = Layer()
    layer.program("agnhost", programs / "agnhost")
    layer.link("agnhost-2", "agnhost")
    for name in ("localhost.crt", "localhost.key"):
        layer.program(name, source / "test/images/agnhost/porter" / name, 0o644)
    user = "user-defined-in-image:x:1000:1000::/home/user-defined-in-image:/bin/sh\n"
    group = "user-defined-in-image:x:1000:\ngroup-defined-in-image:x:50000:user-defined-in-image\n"
    layer.file("etc/passwd", USERS + user)
    layer.file("etc/group", GROUPS + group)
    return layer.done()


def pet(source, programs, name):
    layer = Layer()
    layer.program("agnhost", programs / "agnhost")
    for page in (source / "test/images" / name / "html").iterdir():
        layer.program(page.name, page, 0o644)
    layer.file("test-webserver", '#!/bin/sh\nexec /agnhost test-webserver "$@"\n', 0o755)
    return layer.done()


def only(name, path, mode=0o755):
    layer = Layer()
    layer.program(name, path, mode)
    return layer.done()


def images(source, programs):
    """(name, layers, what its configuration says)"""
    plain, network, host = base(), tools(), agnhost(source, programs)
    ports = {f"{port}/tcp": {} for port in (80, 5000, 8080, 8081, 9376)}
    yield TESTS + "agnhost:2.53", [plain, network, host], {"Entrypoint": ["/agnhost"], "Cmd": ["pause"], "ExposedPorts": ports}
    yield TESTS + "busybox:1.36.1-1", [plain], {"Cmd": ["sh"]}
    yield TESTS + "nonroot:1.4", [plain], {"Cmd": ["sh"], "User": "1234"}
    yield TESTS + "jessie-dnsutils:1.7", [plain, network], {"Cmd": ["sh"]}
    yield "registry.k8s.io/pause:3.10", [plain, host], {"Entrypoint": ["/agnhost", "pause"]}
    for name, pages in [
        ("httpd:2.4.38-4", "/usr/local/apache2/htdocs"),
        ("httpd:2.4.39-4", "/usr/local/apache2/htdocs"),
        ("nginx:1.14-4", "/usr/share/nginx/html"),
        ("nginx:1.15-4", "/usr/share/nginx/html"),
    ]:
        serve = ["httpd", "-f", "-v", "-p", "80", "-h", pages]
        yield TESTS + name, [plain], {"Cmd": serve, "ExposedPorts": {"80/tcp": {}}}
    for name in ("kitten", "nautilus"):
        yield TESTS + name + ":1.7", [plain, pet(source, programs, name)], {"Cmd": ["/test-webserver"]}
    nnp = only("usr/local/bin/nnp", programs / "nonewprivs", 0o6755)
    yield TESTS + "nonewprivs:1.3", [plain, nnp], {"Cmd": ["nnp"]}
    for name, tag in [("sample-apiserver", "1.29.2"), ("regression-issue-74839", "1.2")]:
        yield f"{TESTS}{name}:{tag}", [plain, only(name, programs / name)], {"Entrypoint": ["/" + name]}
    etcd = shutil.which("etcd") or sys.exit("install etcd-server")
    yield "registry.k8s.io/etcd:3.5.21-0", [plain, network, only("usr/local/bin/etcd", etcd)], {"Cmd": ["etcd"]}


def main():
    if len(sys.argv) != 4:
        sys.exit(__doc__.strip())
    source, programs = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
    archive, written, manifest = Layer(), set(), []
    archive.tar = tarfile.open(sys.argv[3], "w")

    def keep(content, suffix):
        name = hashlib.sha256(content).hexdigest() + suffix
        if name not in written:
            written.add(name)
            archive.file(name, content)
        return name

    path = {"Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]}
    for tag, layers, says in images(source, programs):
        names = [keep(layer, ".tar") for layer in layers]
        differ = ["sha256:" + name.removesuffix(".tar") for name in names]
        config = {"architecture": "amd64", "os": "linux", "config": {**path, **says}, "rootfs": {"type": "layers", "diff_ids": differ}}
        manifest.append({"Config": keep(json.dumps(config).encode(), ".json"), "RepoTags": [tag], "Layers": names})
        print(tag)
    archive.file("manifest.json", json.dumps(manifest))
    archive.tar.close()


if __name__ == "__main__":
    main()
