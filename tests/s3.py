"""A server of objects on this machine that speaks as much of S3 as a store needs, and counts what it is asked."""

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape, unescape


class Server(ThreadingHTTPServer):
    """Objects by bucket and key; `refuse` says of a request (method, key) whether it fails."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.objects: dict[str, bytes] = {}
        self.uploads: dict[str, dict[int, bytes]] = {}
        self.asked: list[tuple[str, str, str]] = []
        self.refuse = lambda method, key: False

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    """GET, HEAD and PUT of objects, lists, removal of many at once, and uploads in parts."""

    protocol_version = "HTTP/1.1"
    server: Server

    def log_message(self, *_: object) -> None:
        pass

    def answer(self, code: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(code)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Last-Modified", "Fri, 27 Nov 2026 12:00:00 GMT")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def handle_one(self) -> None:
        parts = urlsplit(self.path)
        key, query = unquote(parts.path).lstrip("/"), parse_qs(parts.query, keep_blank_values=True)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        server = self.server
        server.asked.append((self.command, key, self.headers.get("Authorization", "")))
        known = self.headers.get("Authorization", "").startswith("AWS4-HMAC-SHA256 Credential=somebody/")
        if not known or server.refuse(self.command, key):
            self.answer(403, b"<Error><Code>AccessDenied</Code></Error>")
        elif self.command in ("GET", "HEAD"):
            self.list(key, query) if "list-type" in query else self.give(key)
        elif self.command == "DELETE":
            server.objects.pop(key, None)
            self.answer(204)
        elif self.command == "POST" and "delete" in query:
            names = re.findall(r"<Key>(.*?)</Key>", body.decode())
            for name in names:
                server.objects.pop(f"{key.rstrip('/')}/{unescape(name)}", None)
            told = "".join(f"<Deleted><Key>{name}</Key></Deleted>" for name in names)
            self.answer(200, f"<DeleteResult>{told}</DeleteResult>".encode())
        elif self.command == "POST" and "uploads" in query:
            name = str(len(server.uploads))
            server.uploads[name] = {}
            told = f"<InitiateMultipartUploadResult><UploadId>{name}</UploadId></InitiateMultipartUploadResult>"
            self.answer(200, told.encode())
        elif self.command == "PUT" and "partNumber" in query:
            server.uploads[query["uploadId"][0]][int(query["partNumber"][0])] = body
            self.answer(200, ETag='"part"')
        elif self.command == "POST" and "uploadId" in query:
            server.objects[key] = b"".join(part for _, part in sorted(server.uploads.pop(query["uploadId"][0]).items()))
            self.answer(200, b'<CompleteMultipartUploadResult><ETag>"whole"</ETag></CompleteMultipartUploadResult>')
        elif self.command == "PUT":
            server.objects[key] = body
            self.answer(200, ETag='"whole"')
        else:
            self.answer(501)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = handle_one  # noqa: N815 - so the module calls them

    def give(self, key: str) -> None:
        data = self.server.objects.get(key)
        if data is None:
            self.answer(404, b"<Error><Code>NoSuchKey</Code></Error>")
            return
        wanted = re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers.get("Range", ""))
        if wanted is None:
            self.answer(200, data, ETag='"whole"')
            return
        first, last = wanted.groups()
        start = int(first) if first else max(0, len(data) - int(last))
        end = min(len(data), int(last) + 1) if first and last else len(data)
        self.answer(206, data[start:end], ETag='"whole"', Content_Range=f"bytes {start}-{end - 1}/{len(data)}")

    def list(self, bucket: str, query: dict[str, list[str]]) -> None:
        prefix, delimiter = query.get("prefix", [""])[0], query.get("delimiter", [""])[0]
        files, folders = [], set()
        for key, data in sorted(self.server.objects.items()):
            name = key.removeprefix(f"{bucket.rstrip('/')}/")
            rest = name.removeprefix(prefix)
            if name == key or not name.startswith(prefix):
                continue
            if delimiter and delimiter in rest:
                folders.add(prefix + rest.split(delimiter)[0] + delimiter)
            else:
                files.append((name, len(data)))
        told = "".join(
            f"<Contents><Key>{escape(name)}</Key><LastModified>2026-11-27T12:00:00.000Z</LastModified>"
            f"<ETag>whole</ETag><Size>{size}</Size></Contents>"
            for name, size in files
        )
        told += "".join(f"<CommonPrefixes><Prefix>{escape(name)}</Prefix></CommonPrefixes>" for name in sorted(folders))
        body = f"<ListBucketResult><IsTruncated>false</IsTruncated><KeyCount>{len(files)}</KeyCount>{told}</ListBucketResult>"
        self.answer(200, body.encode(), Content_Type="application/xml")


@contextmanager
def serving() -> Iterator[Server]:
    """The server, in a thread."""
    server = Server()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
