"""A small Hugging Face Hub: the HTTP API that downloads use, faithful enough for the real clients.

Repositories lie on disk as commits over content-addressed blobs, so that a revision is a commit, a
branch or a tag as on the Hub. Large files (LFS) are answered with a redirect to a second server, the
"CDN", on another host and port, by a signed URL that expires and that refuses an Authorization
header. Everything that can go wrong can be ordered: `faults` makes chosen requests fail.

As a fixture: `with HubServer(directory) as hub: hub.commit("datasets/owner/name", {"a.jsonl": b"..."})`
and HF_ENDPOINT=hub.url. From the shell:

    hub_server.py --root DIR --port 8000 --add datasets/owner/name=DIRECTORY

Faults may also be set over HTTP: POST /_control/faults with a JSON list of Fault's fields, and
GET /_control/log gives the requests that were seen.
"""

import argparse
import contextlib
import dataclasses
import hashlib
import hmac
import http.server
import json
import os
import pathlib
import random
import re
import shutil
import socket
import struct
import threading
import time
import urllib.parse

# What the Hub's default .gitattributes puts into LFS (an excerpt), and anything this large.
LFS_SUFFIXES = {".arrow", ".bin", ".gz", ".h5", ".onnx", ".parquet", ".pt", ".pth", ".safetensors"}
LFS_SUFFIXES |= {".zip", ".zst", ".gguf", ".model", ".png", ".tar", ".feather"}
LFS_BYTES = 10 << 20
SECRET = b"the signature of the CDN's URLs"


class HubError(Exception):
    """An answer that is not 200, with the headers that clients tell errors by."""

    def __init__(self, status, code, message, **headers):
        super().__init__(message)
        self.status, self.code, self.message, self.headers = status, code, message, headers


@dataclasses.dataclass
class Fault:
    """Makes requests fail: the first `count` that match, or each with `probability`."""

    kind: str  # an HTTP status ("500", "503", "429"), "reset", "truncate", "stall", "lie" (length)
    count: int = 1
    match: str = ""  # regular expression on the path with its query
    where: str = "any"  # "hub", "cdn" or "any"
    probability: float = 1.0
    retry_after: str = ""  # header of 429 and 503
    seconds: float = 30.0  # of a stall
    method: str = ""

    def takes(self, where, method, path, chance):
        if self.count <= 0 or (self.where != "any" and self.where != where):
            return False
        if self.method and self.method != method:
            return False
        if self.match and not re.search(self.match, path):
            return False
        if self.probability < 1.0 and chance.random() >= self.probability:
            return False
        self.count -= 1
        return True


def hash_blob(path, size):
    """(git's id of a blob, SHA-256) of a file."""
    git, sha = hashlib.sha1(b"blob %d\0" % size), hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            git.update(block)
            sha.update(block)
    return git.hexdigest(), sha.hexdigest()


class Repository:
    """Commits over blobs. `state.json` beside the blobs holds everything else."""

    def __init__(self, directory, kind, name):
        self.directory, self.kind, self.name = pathlib.Path(directory), kind, name
        self.state_path = self.directory / "state.json"
        (self.directory / "blobs").mkdir(parents=True, exist_ok=True)
        if self.state_path.exists():
            self.state = json.loads(self.state_path.read_text())
        else:
            self.state = {"private": False, "gated": False, "disabled": False}
            self.state |= {"branches": {}, "tags": {}, "commits": {}}

    def save(self):
        temporary = self.state_path.with_suffix(".tmp")
        temporary.write_text(json.dumps(self.state))
        temporary.replace(self.state_path)

    def add_blob(self, content):
        """Bytes, or the path of a file, which is linked rather than copied."""
        blobs = self.directory / "blobs"
        temporary = blobs / f"tmp-{threading.get_ident()}"
        if isinstance(content, bytes):
            temporary.write_bytes(content)
        else:
            try:
                os.link(content, temporary)
            except OSError:
                shutil.copyfile(content, temporary)
        size = temporary.stat().st_size
        oid, sha256 = hash_blob(temporary, size)
        temporary.replace(blobs / sha256)
        return {"oid": oid, "sha256": sha256, "size": size}

    def commit(self, files, branch="main", delete=(), title="commit", keep=True):
        parent = self.state["branches"].get(branch)
        tree = dict(self.state["commits"][parent]["files"]) if parent and keep else {}
        for path in delete:
            del tree[path]
        for path, content in files.items():
            if isinstance(content, str):
                content = content.encode()
            tree[path] = self.add_blob(content)
            lfs = pathlib.PurePosixPath(path).suffix in LFS_SUFFIXES
            tree[path]["lfs"] = lfs or tree[path]["size"] >= LFS_BYTES
        text = json.dumps([parent, branch, title, tree, len(self.state["commits"])], sort_keys=True)
        sha = hashlib.sha1(text.encode()).hexdigest()
        self.state["commits"][sha] = {"parent": parent, "title": title, "files": tree}
        self.state["branches"][branch] = sha
        self.save()
        return sha

    def resolve(self, revision):
        """The commit of a branch, tag or commit id."""
        for refs in (self.state["branches"], self.state["tags"]):
            if revision in refs:
                return refs[revision]
        if revision in self.state["commits"]:
            return revision
        raise HubError(404, "RevisionNotFound", f"Invalid rev id: {revision}")

    def files(self, sha):
        return self.state["commits"][sha]["files"]

    def blob(self, entry):
        return self.directory / "blobs" / entry["sha256"]

    def tree(self, sha, path, recursive, expand):
        """Entries below a directory as the tree endpoint gives them, folders before their files."""
        files, prefix = self.files(sha), f"{path}/" if path else ""
        entries = {}
        for name, entry in sorted(files.items()):
            if not name.startswith(prefix):
                continue
            parts = name[len(prefix) :].split("/")
            for depth in range(1, len(parts) if recursive else min(len(parts), 2)):
                folder = prefix + "/".join(parts[:depth])
                oid = hashlib.sha1(f"{sha} {folder}".encode()).hexdigest()
                entries[folder] = {"type": "directory", "oid": oid, "size": 0, "path": folder}
            if recursive or len(parts) == 1:
                entries[name] = self.describe(name, entry)
        if path and not entries:
            raise HubError(404, "EntryNotFound", f'{path} does not exist on "{sha}"')
        if expand:
            commit = {"id": sha, "title": self.state["commits"][sha]["title"]}
            commit["date"] = "2024-01-01T00:00:00.000Z"
            entries = {name: entry | {"lastCommit": commit} for name, entry in entries.items()}
        return sorted(entries.values(), key=lambda e: (e["type"] == "file", e["path"]))

    def describe(self, name, entry):
        described = {"type": "file", "oid": entry["oid"], "size": entry["size"], "path": name}
        if entry["lfs"]:
            pointer = {"oid": entry["sha256"], "size": entry["size"], "pointerSize": 134}
            described |= {"lfs": pointer}
        return described

    def info(self, sha, blobs):
        siblings = []
        for name, entry in sorted(self.files(sha).items()):
            sibling = {"rfilename": name}
            if blobs:
                sibling |= {"blobId": entry["oid"], "size": entry["size"]}
                if entry["lfs"]:
                    sibling["lfs"] = {"sha256": entry["sha256"], "size": entry["size"]}
                    sibling["lfs"]["pointerSize"] = 134
            siblings.append(sibling)
        info = {"_id": hashlib.sha1(self.name.encode()).hexdigest()[:24], "id": self.name}
        info |= {"author": self.name.split("/")[0], "sha": sha, "siblings": siblings}
        info |= {"lastModified": "2024-01-01T00:00:00.000Z", "createdAt": "2024-01-01T00:00:00.000Z"}
        info |= {"private": self.state["private"], "gated": self.state["gated"]}
        info |= {"disabled": self.state["disabled"], "downloads": 0, "likes": 0, "tags": []}
        if self.kind == "models":
            info["modelId"] = self.name
        info["cardData"] = {}
        return info


class HubServer:
    """Both servers. Attributes may be changed while they run."""

    def __init__(self, root, port=0, page_size=1000, url_lifetime=3600.0, resolve_cache=False, seed=1):
        self.root = pathlib.Path(root)
        self.repositories, self.aliases = {}, {}
        self.tokens = {}  # token -> {"name": user, "repos": gated and private ones it may read}
        self.faults, self.log = [], []
        self.page_size, self.url_lifetime = page_size, url_lifetime
        self.resolve_cache = resolve_cache  # small files by a redirect on the same host, as today
        self.cdn_ranges = True  # whether the CDN honours Range
        self.on_request = None  # called with each logged request, before it is answered
        self.injected = 0  # faults so far
        self.chance = random.Random(seed)
        self.lock = threading.RLock()
        for state in sorted(self.root.glob("*/**/state.json")):
            kind, *name = state.parent.relative_to(self.root).parts
            self.repository(f"{kind}/{'/'.join(name)}")
        self.hub = self._server("hub", port)
        self.cdn = self._server("cdn", 0)
        self.url = f"http://127.0.0.1:{self.hub.server_port}"
        self.cdn_url = f"http://localhost:{self.cdn.server_port}"

    def _server(self, where, port):
        handler = type("Handler", (Handler,), {"owner": self, "where": where})
        server = Threads(("127.0.0.1", port), handler)
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        return server

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()

    def close(self):
        for server in (self.hub, self.cdn):
            server.shutdown()
            server.server_close()

    # ---- what a test sets up ---------------------------------------------------------------------

    def repository(self, name):
        """"datasets/owner/name" or "models/owner/name", created if it is not there."""
        with self.lock:
            if name not in self.repositories:
                kind, _, rest = name.partition("/")
                self.repositories[name] = Repository(self.root / name, kind, rest)
            return self.repositories[name]

    def commit(self, name, files, branch="main", **options):
        """Adds a commit and returns its id. Keyword `keep=False` begins from an empty tree."""
        with self.lock:
            return self.repository(name).commit(files, branch, **options)

    def commit_directory(self, name, directory, **options):
        directory = pathlib.Path(directory)
        paths = [path for path in sorted(directory.rglob("*")) if path.is_file()]
        files = {path.relative_to(directory).as_posix(): path for path in paths}
        return self.commit(name, files, **options)

    def tag(self, name, tag, revision="main"):
        repository = self.repository(name)
        repository.state["tags"][tag] = repository.resolve(revision)
        repository.save()

    def set(self, name, **state):
        """private=True, gated="auto", disabled=True."""
        self.repository(name).state.update(state)
        self.repository(name).save()

    def add_token(self, token, name="someone", repos=()):
        self.tokens[token] = {"name": name, "repos": set(repos)}

    def fail(self, kind, **fields):
        with self.lock:
            self.faults.append(Fault(str(kind), **fields))

    def requests(self, match="", where=None):
        with self.lock:
            log = list(self.log)
        return [r for r in log if re.search(match, r["path"]) and where in (None, r["where"])]

    def environment(self, home, token=None):
        """What a client needs to talk to this server and to nothing else."""
        env = {"HF_ENDPOINT": self.url, "HF_HOME": str(home), "HF_HUB_OFFLINE": "0"}
        env |= {"no_proxy": "127.0.0.1,localhost", "NO_PROXY": "127.0.0.1,localhost"}
        env |= {"HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
        return env | ({"HF_TOKEN": token} if token else {})

    # ---- what the handlers ask -------------------------------------------------------------------

    def take_fault(self, where, method, path):
        with self.lock:
            for fault in self.faults:
                if fault.takes(where, method, path, self.chance):
                    self.injected += 1
                    return dataclasses.replace(fault)
        return None

    def find(self, kind, name, user):
        """The repository, if `user` may know of it."""
        repository = self.repositories.get(f"{kind}/{name}")
        hidden = repository is None or (
            repository.state["private"] and (user is None or name not in user["repos"])
        )
        if hidden:
            if user is None:
                realm = 'Bearer realm="Authentication required", charset="UTF-8"'
                headers = {"WWW-Authenticate": realm}
                raise HubError(401, "", "Invalid username or password.", **headers)
            raise HubError(404, "RepoNotFound", "Repository not found")
        if repository.state["disabled"]:
            raise HubError(403, "", "Access to this resource is disabled.")
        return repository

    def check_access(self, repository, user):
        """Files of a gated repository are for those who were let in."""
        if not repository.state["gated"] or (user and repository.name in user["repos"]):
            return
        what = f"Access to {repository.kind[:-1]} {repository.name} is restricted"
        page = "datasets/" if repository.kind == "datasets" else ""
        if user is None:
            message = f"{what}. You must have access to it and be authenticated to access it. Please log in."
            raise HubError(401, "GatedRepo", message)
        visit = f"Visit https://huggingface.co/{page}{repository.name} to ask for access."
        raise HubError(403, "GatedRepo", f"{what} and you are not in the authorized list. {visit}")

    def sign(self, repository, entry):
        path = f"/{repository.kind}/{repository.name}/{entry['sha256']}"
        expires = f"{time.time() + self.url_lifetime:.3f}"
        return f"{self.cdn_url}{path}?Expires={expires}&Signature={signature(path, expires)}"


def signature(path, expires):
    return hmac.new(SECRET, f"{path} {expires}".encode(), hashlib.sha256).hexdigest()


class Threads(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256

    def handle_error(self, request, client_address):
        pass  # clients hang up when they please


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    owner, where = None, None  # set by HubServer

    def log_message(self, *args):
        pass

    def do_GET(self):
        self.answer()

    def do_HEAD(self):
        self.answer()

    def do_POST(self):
        self.answer()

    def answer(self):
        length = int(self.headers.get("Content-Length") or 0)
        self.body = self.rfile.read(length)
        self.fault = None
        if self.path.startswith("/_control/"):
            return self.control()
        request = {"where": self.where, "method": self.command, "path": self.path}
        request |= {"range": self.headers.get("Range"), "time": time.time()}
        request |= {"authorization": self.headers.get("Authorization")}
        with self.owner.lock:
            self.owner.log.append(request)
        if self.owner.on_request:
            self.owner.on_request(request)
        self.fault = self.owner.take_fault(self.where, self.command, self.path)
        if self.fault and self.fail_early():
            return None
        try:
            (self.answer_cdn if self.where == "cdn" else self.answer_hub)()
        except HubError as error:
            self.send_error_answer(error)

    # ---- faults ----------------------------------------------------------------------------------

    def fail_early(self):
        """Whether the fault is an answer of its own; the others spoil the body on its way."""
        kind = self.fault.kind
        if kind.isdigit():
            headers = {"Retry-After": self.fault.retry_after} if self.fault.retry_after else {}
            if kind == "429":
                headers |= {"RateLimit": '"api";r=0;t=1'}
                headers |= {"RateLimit-Policy": '"fixed window";"api";q=500;w=300'}
            text = {"429": "We had to rate limit your IP.", "503": "Service Unavailable"}
            self.send_error_answer(HubError(int(kind), "", text.get(kind, "Internal Error"), **headers))
            return True
        if kind == "reset" and self.command != "GET":
            self.reset()
            return True
        return False

    def reset(self):
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()
        self.close_connection = True

    def send_body(self, content, offset, length):
        """Sends a range of a file or of bytes, or less and worse if a fault says so."""
        kind = self.fault.kind if self.fault else ""
        part = length // 2 if kind in ("reset", "truncate", "stall") else length
        if isinstance(content, bytes):
            self.wfile.write(content[offset : offset + part])
        else:
            sent = 0
            while sent < part:
                at, rest = offset + sent, part - sent
                sent += os.sendfile(self.connection.fileno(), content.fileno(), at, rest)
        if kind == "reset":
            self.reset()
        elif kind == "truncate":
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
        elif kind == "stall":
            end = time.time() + self.fault.seconds
            while time.time() < end and not self.hung_up():
                time.sleep(0.05)
            self.reset()

    def hung_up(self):
        with contextlib.suppress(BlockingIOError):
            return self.connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b""
        return False

    # ---- answers ---------------------------------------------------------------------------------

    def send_head(self, status, headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def send_json(self, value, status=200, **headers):
        body = json.dumps(value).encode()
        length = len(body) - (1 if self.fault and self.fault.kind == "lie" else 0)
        headers = {"Content-Type": "application/json; charset=utf-8"} | headers
        self.send_head(status, headers | {"Content-Length": str(length)})
        if self.command != "HEAD":
            self.send_body(body, 0, length)

    def send_error_answer(self, error):
        headers = {"X-Error-Message": error.message} | error.headers
        if error.code:
            headers["X-Error-Code"] = error.code
        body = json.dumps({"error": error.message}).encode()
        headers |= {"Content-Type": "application/json", "Content-Length": str(len(body))}
        self.send_head(error.status, headers)
        if self.command != "HEAD":
            self.wfile.write(body)

    def send_blob(self, path, size, headers):
        """A file with its headers, or the range that was asked for (RFC 9110)."""
        wanted = self.headers.get("Range")
        if wanted and self.headers.get("If-Range", headers["ETag"]) != headers["ETag"]:
            wanted = None
        if self.headers.get("If-Match", headers["ETag"]) not in ("*", headers["ETag"]):
            raise HubError(412, "", "Precondition Failed")
        headers = {"Accept-Ranges": "bytes", "Content-Type": "application/octet-stream"} | headers
        begin, end, status = 0, size, 200
        if wanted and not (self.where == "cdn" and not self.owner.cdn_ranges):
            begin, end = parse_range(wanted, size)
            status = 206
            headers["Content-Range"] = f"bytes {begin}-{end - 1}/{size}"
        length = end - begin
        if self.fault and self.fault.kind == "lie" and length:
            length -= 1
        self.send_head(status, headers | {"Content-Length": str(length)})
        if self.command != "HEAD":
            with open(path, "rb") as file:
                self.send_body(file, begin, length)

    # ---- the Hub ---------------------------------------------------------------------------------

    def user(self):
        value = self.headers.get("Authorization")
        if not value:
            return None
        token = value.removeprefix("Bearer ")
        if token not in self.owner.tokens:
            raise HubError(401, "", "Invalid credentials in Authorization header")
        return self.owner.tokens[token]

    def answer_hub(self):
        path, _, query = self.path.partition("?")
        query = dict(urllib.parse.parse_qsl(query))
        parts = [urllib.parse.unquote(part) for part in path.strip("/").split("/")]
        user = self.user()
        if parts[0] != "api":
            return self.resolve(parts, user)
        if parts[1:] == ["whoami-v2"]:
            if user is None:
                raise HubError(401, "", "Invalid username or password.")
            return self.send_json({"type": "user", "name": user["name"], "orgs": [], "auth": {}})
        if parts[1] == "resolve-cache":
            return self.send_cached(parts[2:], user)
        if len(parts) < 3 or parts[1] not in ("models", "datasets"):
            raise HubError(404, "", "Sorry, we can't find the page you are looking for.")
        return self.api(parts[1], parts[2:], query, user)

    def api(self, kind, parts, query, user):
        verbs = ("revision", "tree", "paths-info", "refs", "commits")
        at = next((i for i, part in enumerate(parts) if i > 0 and part in verbs), len(parts))
        name, verb, rest = "/".join(parts[:at]), parts[at : at + 1], parts[at + 1 :]
        self.redirect_moved(kind, name, user)
        repository = self.owner.find(kind, name, user)
        with self.owner.lock:
            if not verb or verb == ["revision"]:
                sha = repository.resolve(rest[0] if rest else "main")
                return self.send_json(repository.info(sha, query.get("blobs") in ("True", "true", "1")))
            if verb == ["refs"]:
                return self.send_json(self.refs(repository))
            sha = repository.resolve(rest[0] if rest else "main")
            if verb == ["tree"]:
                return self.send_tree(repository, sha, "/".join(rest[1:]), query)
            if verb == ["paths-info"]:
                return self.send_json(self.paths_info(repository, sha))
            commit = repository.state["commits"][sha]
            entry = {"id": sha, "title": commit["title"], "message": "", "authors": []}
            return self.send_json([entry | {"date": "2024-01-01T00:00:00.000Z"}])

    def redirect_moved(self, kind, name, user):
        to = self.owner.aliases.get(f"{kind}/{name}")
        if to is None:
            return
        location = self.path.replace(f"/{name}", f"/{to.partition('/')[2]}", 1)
        raise HubError(307, "", f"Temporary Redirect. Redirecting to {location}", Location=location)

    def refs(self, repository):
        def entries(refs, prefix):
            return [{"name": n, "ref": f"{prefix}{n}", "targetCommit": c} for n, c in refs.items()]

        branches = repository.state["branches"]
        converts = {n: c for n, c in branches.items() if n.startswith("refs/convert/")}
        plain = {n: c for n, c in branches.items() if not n.startswith("refs/")}
        converts = [
            {"name": n.removeprefix("refs/convert/"), "ref": n, "targetCommit": c}
            for n, c in converts.items()
        ]
        answer = {"branches": entries(plain, "refs/heads/"), "converts": converts}
        return answer | {"tags": entries(repository.state["tags"], "refs/tags/"), "pullRequests": []}

    def send_tree(self, repository, sha, path, query):
        truth = ("True", "true", "1")
        expand = query.get("expand") in truth
        entries = repository.tree(sha, path, query.get("recursive") in truth, expand)
        size = min(self.owner.page_size, 50 if expand else self.owner.page_size)
        size = min(size, int(query.get("limit", size)))
        begin = int(query.get("cursor", "0"))
        headers = {}
        if begin + size < len(entries):
            base = self.path.partition("?")[0]
            more = urllib.parse.urlencode(query | {"cursor": str(begin + size)})
            headers["Link"] = f'<{self.owner.url}{base}?{more}>; rel="next"'
        self.send_json(entries[begin : begin + size], **headers)

    def paths_info(self, repository, sha):
        if "json" in (self.headers.get("Content-Type") or ""):
            paths = json.loads(self.body).get("paths", [])
        else:
            form = urllib.parse.parse_qs(self.body.decode())
            paths = form.get("paths", [])
        entries = {e["path"]: e for e in repository.tree(sha, "", True, False)}
        return [entries[path] for path in paths if path in entries]

    def resolve(self, parts, user):
        """GET or HEAD of /[datasets/]owner/name/resolve/revision/path."""
        kind = "datasets" if parts[0] == "datasets" else "models"
        parts = parts[1:] if kind == "datasets" else parts
        if "resolve" not in parts[:3]:
            raise HubError(404, "", "Sorry, we can't find the page you are looking for.")
        at = parts.index("resolve")
        name, revision, path = "/".join(parts[:at]), parts[at + 1], "/".join(parts[at + 2 :])
        self.redirect_moved(kind, name, user)
        repository = self.owner.find(kind, name, user)
        self.owner.check_access(repository, user)
        with self.owner.lock:
            sha = repository.resolve(revision)
            entry = repository.files(sha).get(path)
        if entry is None:
            raise HubError(404, "EntryNotFound", "Entry not found", **{"X-Repo-Commit": sha})
        headers = {"X-Repo-Commit": sha, "Accept-Ranges": "bytes"}
        if entry["lfs"]:
            headers |= {"X-Linked-Size": str(entry["size"])}
            headers |= {"X-Linked-ETag": f'"{entry["sha256"]}"', "ETag": f'"{entry["sha256"]}"'}
            headers |= {"Location": self.owner.sign(repository, entry)}
            return self.send_redirect(302, headers)
        headers["ETag"] = f'"{entry["oid"]}"'
        if self.owner.resolve_cache:
            place = urllib.parse.quote(f"/api/resolve-cache/{kind}/{name}/{sha}/{path}")
            headers |= {"Location": place, "X-Linked-ETag": headers["ETag"]}
            return self.send_redirect(307, headers | {"X-Linked-Size": str(entry["size"])})
        return self.send_blob(repository.blob(entry), entry["size"], headers)

    def send_cached(self, parts, user):
        kind, name, sha, path = parts[0], "/".join(parts[1:3]), parts[3], "/".join(parts[4:])
        repository = self.owner.find(kind, name, user)
        self.owner.check_access(repository, user)
        entry = repository.files(sha)[path]
        headers = {"X-Repo-Commit": sha, "ETag": f'"{entry["oid"]}"'}
        return self.send_blob(repository.blob(entry), entry["size"], headers)

    def send_redirect(self, status, headers):
        body = f"Found. Redirecting to {headers['Location']}".encode()
        self.send_head(status, headers | {"Content-Length": str(len(body))})
        if self.command != "HEAD":
            self.wfile.write(body)

    # ---- the CDN ---------------------------------------------------------------------------------

    def answer_cdn(self):
        path, _, query = self.path.partition("?")
        query = dict(urllib.parse.parse_qsl(query))
        if self.headers.get("Authorization"):
            raise HubError(400, "", "Only one auth mechanism allowed")
        expires = query.get("Expires", "0")
        if query.get("Signature") != signature(path, expires) or float(expires) < time.time():
            raise HubError(403, "", "Request has expired")
        kind, *name, sha256 = path.strip("/").split("/")
        blob = self.owner.root / kind / "/".join(name) / "blobs" / sha256
        headers = {"ETag": f'"{hashlib.md5(sha256.encode()).hexdigest()}"'}
        self.send_blob(blob, blob.stat().st_size, headers)

    # ---- control ---------------------------------------------------------------------------------

    def control(self):
        owner = self.owner
        with owner.lock:
            if self.path == "/_control/faults" and self.command == "POST":
                owner.faults = [Fault(**fields) for fields in json.loads(self.body or b"[]")]
            elif self.path == "/_control/log" and self.command == "POST":
                owner.log = []
            answer = {"injected": owner.injected, "log": owner.log, "cdn": owner.cdn_url}
            answer["faults"] = [dataclasses.asdict(fault) for fault in owner.faults]
        self.send_json(answer)


def parse_range(text, size):
    """[begin, end) of `bytes=a-b`, `bytes=a-` or `bytes=-n`."""
    match = re.fullmatch(r"bytes=(\d*)-(\d*)", text)
    if not match or match[1] == match[2] == "":
        raise HubError(416, "", "Range Not Satisfiable", **{"Content-Range": f"bytes */{size}"})
    if match[1] == "":
        begin, end = max(0, size - int(match[2])), size
    else:
        begin, end = int(match[1]), min(size, int(match[2]) + 1 if match[2] else size)
    if begin >= end:
        raise HubError(416, "", "Range Not Satisfiable", **{"Content-Range": f"bytes */{size}"})
    return begin, end


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", required=True, help="where the repositories lie")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--add", action="append", default=[], help="KIND/OWNER/NAME=DIRECTORY")
    args = parser.parse_args()
    hub = HubServer(args.root, args.port)
    for add in args.add:
        name, _, directory = add.partition("=")
        hub.commit_directory(name, directory, keep=False)
    print(hub.url, flush=True)
    with contextlib.suppress(KeyboardInterrupt):
        threading.Event().wait()


if __name__ == "__main__":
    main()
