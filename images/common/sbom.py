"""Print what an image holds as CycloneDX 1.5 JSON: Debian's packages, and the Python packages of this interpreter.

Runs inside the image while it is built, with nothing but the standard library. The same packages give the same text.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from importlib.metadata import Distribution, distributions
from typing import Any

FIELDS = "${Package}\t${Version}\t${Architecture}\t${db:Status-Status}\n"


def python_packages() -> list[dict[str, Any]]:
    """Return a component for every installed distribution."""
    return [_of_python(distribution) for distribution in distributions()]


def _of_python(distribution: Distribution) -> dict[str, Any]:
    name, version = distribution.metadata["Name"], distribution.version
    reference = f"pkg:pypi/{name.lower().replace('_', '-')}@{version}"
    component: dict[str, Any] = {
        "type": "library",
        "bom-ref": reference,
        "name": name,
        "version": version,
        "purl": reference,
    }
    licence = distribution.metadata.get("License-Expression")
    if licence:
        component["licenses"] = [{"expression": licence}]
    return component


def debian_packages() -> list[dict[str, Any]]:
    """Return a component for every installed Debian package."""
    command = ["dpkg-query", "--show", f"--showformat={FIELDS}"]
    listing = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    components = []
    for line in listing.splitlines():
        name, version, architecture, state = line.split("\t")
        if state == "installed":
            reference = f"pkg:deb/debian/{name}@{version}?arch={architecture}"
            components.append(
                {"type": "library", "bom-ref": reference, "name": name, "version": version, "purl": reference}
            )
    return components


def document(components: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the bill of materials; its serial number is a hash of what it lists."""
    once = {component["bom-ref"]: component for component in components}
    listed = [once[reference] for reference in sorted(once)]
    digest = hashlib.sha256("\n".join(once[r]["bom-ref"] for r in sorted(once)).encode()).hexdigest()
    serial = f"{digest[:8]}-{digest[8:12]}-5{digest[13:16]}-8{digest[17:20]}-{digest[20:32]}"
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "serialNumber": f"urn:uuid:{serial}",
        "version": 1,
        "components": listed,
    }


def main() -> None:
    json.dump(document(python_packages() + debian_packages()), sys.stdout, indent=1)


if __name__ == "__main__":
    main()
