#!/usr/bin/env python3
"""images.py DIR: writes small images as OCI layouts, one layout a repository, ready for `skopeo copy --all`.

Every run writes the same bytes, and no two repositories share a blob, so an origin's access log can be read blob by
blob. `alpine` is an index of two platforms; the others are single manifests.
"""

import gzip
import hashlib
import io
import json
import pathlib
import random
import sys
import tarfile

CLIENTS = ["skopeo", "podman", "buildah", "docker", "containerd"]
PLATFORMS = ["amd64", "arm64"]
# From less than one read to several of a proxy's buffers.
LAYER_BYTES = [1_000, 200_000, 3_000_000]


def digest(data):
    return "sha256:" + hashlib.sha256(data).hexdigest()


class Layout:
    """One OCI image layout directory."""

    def __init__(self, directory):
        self.directory = directory
        (directory / "blobs/sha256").mkdir(parents=True)
        (directory / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')

    def add(self, media_type, data):
        name = digest(data)
        (self.directory / "blobs/sha256" / name.split(":")[1]).write_bytes(data)
        return {"mediaType": media_type, "digest": name, "size": len(data)}

    def add_json(self, media_type, value):
        return self.add(media_type, json.dumps({"schemaVersion": 2, "mediaType": media_type, **value}).encode())

    def tag(self, descriptor, name):
        entry = {**descriptor, "annotations": {"org.opencontainers.image.ref.name": name}}
        (self.directory / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [entry]}))


def layer(seed, size):
    """A tar of one file that no compression shrinks."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        info = tarfile.TarInfo(f"data-{size}")
        info.size = size
        tar.addfile(info, io.BytesIO(random.Random(f"{seed}/{size}").randbytes(size)))
    return out.getvalue()


def image(layout, seed, arch):
    tars = [layer(f"{seed}/{arch}", size) for size in LAYER_BYTES]
    config = {
        "architecture": arch,
        "os": "linux",
        "config": {"Labels": {"roadstead.image": seed}},
        "rootfs": {"type": "layers", "diff_ids": [digest(tar) for tar in tars]},
        "history": [{"created_by": f"{seed} layer {n}"} for n in range(len(tars))],
    }
    return layout.add_json(
        "application/vnd.oci.image.manifest.v1+json",
        {
            "config": layout.add("application/vnd.oci.image.config.v1+json", json.dumps(config).encode()),
            "layers": [
                layout.add("application/vnd.oci.image.layer.v1.tar+gzip", gzip.compress(tar, mtime=0)) for tar in tars
            ],
        },
    )


def index(layout, seed):
    manifests = [
        {**image(layout, seed, arch), "platform": {"os": "linux", "architecture": arch}} for arch in PLATFORMS
    ]
    return layout.add_json("application/vnd.oci.image.index.v1+json", {"manifests": manifests})


def main(directory):
    layout = Layout(directory / "library/alpine")
    layout.tag(index(layout, "library/alpine"), "latest")
    for client in CLIENTS:
        for name in [f"clients/{client}", f"clients/{client}-pinned", f"second/{client}"]:
            layout = Layout(directory / name)
            layout.tag(image(layout, name, "amd64"), "latest")


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
