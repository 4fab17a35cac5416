"""A PostgreSQL server in a pod: Debian's programs of the node, with a certificate, reached by the name of a service."""

from __future__ import annotations

import base64
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from cluster.harness.certificates import Authority
from cluster.harness.cluster import Cluster
from cluster.harness.images import BUSYBOX
from support import postgresql

NAME, PORT = "postgresql", 5432
SUPERUSER, PASSWORD = "postgres", "the first password"
# Folders of the node in which its programs, their libraries and data are.
PROGRAMS = {"usr": "/usr", "lib": "/usr/lib", "lib64": "/usr/lib64"}


@dataclass(frozen=True)
class Server:
    """A server that answers. `authority` is the file of the certificate authority."""

    host: str
    address: str
    authority: Path
    programs: Path

    def authority_secret(self, namespace: str, name: str) -> dict[str, object]:
        """Return a secret with the authority's certificate, key `ca.pem`."""
        return _secret(namespace, name, {"ca.pem": self.authority})

    def psql(self, sql: str, *, database: str = "postgres") -> str:
        """Run statements as its superuser; return what they print, without headings. Fail with what it says when one fails."""
        where = {
            "host": self.host,
            "hostaddr": self.address,
            "dbname": database,
            "user": SUPERUSER,
            "sslmode": "verify-full",
            "sslrootcert": str(self.authority),
        }
        done = subprocess.run(
            [
                *(str(self.programs / "psql"), "--no-psqlrc", "--tuples-only", "--no-align", "--quiet"),
                *("--set", "ON_ERROR_STOP=1", " ".join(f"{key}={value}" for key, value in where.items())),
            ],
            input=sql,
            env={**os.environ, "PGPASSWORD": PASSWORD},
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()


@contextmanager
def postgresql_pod(cluster: Cluster, namespace: str, folder: Path) -> Iterator[Server]:
    """Run a server in a namespace, with which it goes."""
    programs = postgresql.programs()
    if programs is None:
        pytest.skip("Debian's postgresql is not installed")
    host = f"{NAME}.{namespace}.svc"
    authority = Authority(folder)
    pair = authority.server(NAME, NAME, [host])
    cluster.apply(
        _secret(namespace, f"{NAME}-tls", {"tls.crt": pair.certificate, "tls.key": pair.key}),
        _pod(namespace, programs),
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": NAME, "namespace": namespace},
            "spec": {"selector": {"app": NAME}, "ports": [{"port": PORT}]},
        },
    )
    cluster.wait(namespace, f"pod/{NAME}", "condition=Ready")
    address = cluster.kubectl("-n", namespace, "get", "service", NAME, "-o", "jsonpath={.spec.clusterIP}")
    yield Server(host, address, authority.pair.certificate, programs)


def _secret(namespace: str, name: str, files: dict[str, Path]) -> dict[str, object]:
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name, "namespace": namespace},
        "data": {key: base64.b64encode(path.read_bytes()).decode() for key, path in files.items()},
    }


def _pod(namespace: str, programs: Path) -> dict[str, object]:
    options = {
        "listen_addresses": "*",
        "unix_socket_directories": "/data",
        "ssl": "on",
        "ssl_cert_file": "/tls/tls.crt",
        "ssl_key_file": "/tls/tls.key",
        "fsync": "off",
    }
    script = f"""
        printf %s "$PASSWORD" > /data/password
        {programs}/initdb -D /data/db -U {SUPERUSER} -A scram-sha-256 --pwfile=/data/password -E UTF8 --no-locale --no-sync
        echo 'hostssl all all all scram-sha-256' >> /data/db/pg_hba.conf
        exec {programs}/postgres -D /data/db {" ".join(f"-c {key}='{value}'" for key, value in options.items())}
    """
    mounts: list[dict[str, object]] = [
        {"name": name, "mountPath": f"/{name}", "readOnly": True} for name in PROGRAMS
    ]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": NAME, "namespace": namespace, "labels": {"app": NAME}},
        "spec": {
            "automountServiceAccountToken": False,
            "securityContext": {"runAsUser": 1000, "runAsGroup": 1000, "fsGroup": 1000},
            "containers": [
                {
                    "name": NAME,
                    "image": BUSYBOX,
                    "command": ["/bin/sh", "-ec", script],
                    "env": [{"name": "PASSWORD", "value": PASSWORD}],
                    "ports": [{"containerPort": PORT}],
                    "readinessProbe": {
                        "exec": {"command": [f"{programs}/pg_isready", "-q", "-h", "/data"]},
                        "periodSeconds": 1,
                    },
                    "volumeMounts": [
                        *mounts,
                        {"name": "data", "mountPath": "/data"},
                        {"name": "tls", "mountPath": "/tls", "readOnly": True},
                    ],
                }
            ],
            "volumes": [
                *({"name": name, "hostPath": {"path": path}} for name, path in PROGRAMS.items()),
                {"name": "data", "emptyDir": {}},
                {"name": "tls", "secret": {"secretName": f"{NAME}-tls", "defaultMode": 0o440}},
            ],
        },
    }
