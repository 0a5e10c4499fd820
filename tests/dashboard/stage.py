"""What the dashboard is looked at with: a simulated Docker Hub, Roadstead before it, and clients that pull.

Everything is on loopback, on ports of this moment; what was started is ended by `Stage.close`.
"""

import http.client
import json
import pathlib
import random
import shutil
import socket
import subprocess
import tempfile
import threading
import time
import urllib.request

PATIENCE = 30.0
MANIFESTS = ", ".join(
    f"application/vnd.{kind}+json"
    for kind in (
        "oci.image.index.v1",
        "oci.image.manifest.v1",
        "docker.distribution.manifest.list.v2",
        "docker.distribution.manifest.v2",
    )
)
IMAGES = {
    "library/alpine:3.20": "layers=1,size=3MiB",
    "library/golang:1.23": "layers=5,size=4MiB",
    "library/nginx:1.27": "layers=4,size=1MiB",
    "library/node:22": "layers=4,size=3MiB",
    "library/node:lts-alpine": "layers=3,size=2MiB",
    "library/postgres:17": "layers=6,size=2MiB",
    "library/python:3.13": "layers=4,size=2MiB",
    "library/redis:7": "layers=3,size=1MiB",
    "grafana/grafana:11": "layers=3,size=2MiB",
    "nvidia/cuda:12.6": "layers=3,size=24MiB",
}


def free_port():
    with socket.socket() as it:
        it.bind(("127.0.0.1", 0))
        return it.getsockname()[1]


def eventually(what, condition, patience=PATIENCE):
    deadline = time.monotonic() + patience
    while True:
        found = condition()
        if found:
            return found
        if time.monotonic() > deadline:
            raise AssertionError(f"still waiting after {patience:.0f} s: {what}")
        time.sleep(0.05)


class Stage:
    def __init__(self, roadstead, hub):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="roadstead-dashboard."))
        self.children = []
        self.hub = self._start_hub(hub)
        self.port, self.admin_port = free_port(), free_port()
        self.admin = f"http://127.0.0.1:{self.admin_port}"
        self._start_roadstead(roadstead)

    def _start(self, name, command, **options):
        log = open(self.folder / f"{name}.log", "ab")
        child = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, **options)
        self.children.append(child)
        return child

    def _start_hub(self, hub):
        images = [argument for name, rest in IMAGES.items() for argument in ("--image", f"{name},{rest},seed={len(name)}")]
        self._start("hub", [hub, "--limit", "100", *images])
        log = self.folder / "hub.log"
        told = lambda: {line.split()[0]: line.split()[1] for line in log.read_text().splitlines() if "://" in line}
        return eventually("the simulator", lambda: len(told()) >= 3 and told())

    def _start_roadstead(self, roadstead):
        config = {
            "listen": [{"address": f"127.0.0.1:{self.port}"}],
            "admin": {"address": f"127.0.0.1:{self.admin_port}"},
            "upstreams": [
                {
                    "name": "docker.io",
                    "url": self.hub["registry"],
                    "token_realms": [self.hub["token"]],
                    "redirect_hosts": [self.hub["cdn"].removeprefix("http://").rsplit(":", 1)[0]],
                    "tags": {"fresh_for": "5s", "immutable": ["11"]},
                    "breaker": {"failures": 2},
                },
                {"name": "quay.io", "url": self.hub["registry"], "token_realms": [self.hub["token"]]},
            ],
            "store": {"directory": str(self.folder / "data"), "disk": "2GiB", "memory": "64MiB"},
        }
        path = self.folder / "roadstead.yaml"
        path.write_text(json.dumps(config))
        child = self._start("roadstead", [roadstead, "serve", "--config", str(path)])

        def is_ready():
            if child.poll() is not None:
                raise AssertionError("roadstead did not start: " + (self.folder / "roadstead.log").read_text()[-2000:])
            try:
                return urllib.request.urlopen(f"{self.admin}/readyz", timeout=1).status == 200
            except OSError:
                return False

        eventually("roadstead", is_ready)

    def close(self, show_log):
        for child in reversed(self.children):
            child.terminate()
        for child in self.children:
            try:
                child.wait(15)
            except subprocess.TimeoutExpired:
                child.kill()
        if show_log:
            lines = (self.folder / "roadstead.log").read_text().splitlines()
            print("\n".join(line for line in lines if " access" not in line)[-4000:])
        shutil.rmtree(self.folder, ignore_errors=True)

    # --- the simulator -------------------------------------------------------------------------------------------------

    def fault(self, scope, action):
        self._hub("POST", "faults", {"target": {"scope": scope}, "action": action})

    def no_faults(self):
        self._hub("DELETE", "faults")

    def _hub(self, method, path, body=None):
        data = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(f"{self.hub['registry']}/_hub/{path}", data, headers, method=method)
        urllib.request.urlopen(request, timeout=10).read()

    # --- the API -------------------------------------------------------------------------------------------------------

    def api(self, path):
        return json.load(urllib.request.urlopen(f"{self.admin}/api/v1/{path}", timeout=10))

    # --- clients -------------------------------------------------------------------------------------------------------

    def get(self, path, client="127.0.0.1", sink=None):
        """Status and body (its size alone where `sink` is given) of a pull's request by `client`."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120, source_address=(client, 0))
        try:
            connection.request("GET", path, headers={"Accept": MANIFESTS})
            answer = connection.getresponse()
            if sink is None:
                return answer.status, answer.read()
            size = 0
            while piece := answer.read(65536):
                size += len(piece)
            return answer.status, size
        finally:
            connection.close()

    def pull(self, image, client="127.0.0.1"):
        """As a client does it: the index, the first platform's manifest, its configuration and layers."""
        repository, tag = image.split(":")
        base = f"/v2/{repository}"
        status, body = self.get(f"{base}/manifests/{tag}", client)
        if status != 200:
            return status
        found = json.loads(body)
        if "manifests" in found:
            _, body = self.get(f"{base}/manifests/{found['manifests'][0]['digest']}", client)
            found = json.loads(body)
        for blob in [found["config"], *found["layers"]]:
            status, size = self.get(f"{base}/blobs/{blob['digest']}", client, sink=True)
            if status != 200 or size != blob["size"]:
                return status
        return 200

    def pulling(self, image, client="127.0.0.1"):
        thread = threading.Thread(target=self.pull, args=(image, client), daemon=True)
        thread.start()
        return thread

    def traffic(self, seconds, pause=0.4):
        """Some clients pull this and that."""
        clients = [f"127.0.0.{last}" for last in (2, 3, 3, 3, 4, 4, 7, 9)]
        images = [image for image in IMAGES if "cuda" not in image]
        weights = [len(images) - place for place in range(len(images))]
        deadline = time.monotonic() + seconds
        chance = random.Random(7)
        while time.monotonic() < deadline:
            self.pull(chance.choices(images, weights)[0], chance.choice(clients))
            time.sleep(chance.random() * pause)
