"""python -m tests.host.released (in the host's environment): note what the nodes look like, at a release.

Saved workflows hold values of widgets by their place and links by the number of the output; test_nodes.py compares.
"""

from __future__ import annotations

import json
from typing import Any

from .harness import ROOT, Host, open_host
from .ui_workflow import inputs_of, is_widget

RELEASED = ROOT / "tests" / "host" / "released_nodes.json"


def layout(host: Host) -> dict[str, dict[str, list[str]]]:
    """Every node's widgets and the types of its outputs, in their order."""
    found = {}
    for node_id in host.pack_nodes:
        about: dict[str, Any] = {"input": host.node(node_id).INPUT_TYPES()}
        widgets = [name for name, kind in inputs_of(about).items() if is_widget(*kind)]
        found[node_id] = {"widgets": widgets, "outputs": list(host.node(node_id).RETURN_TYPES)}
    return found


if __name__ == "__main__":
    RELEASED.write_text(json.dumps(layout(open_host()), indent=1) + "\n", encoding="utf-8")
