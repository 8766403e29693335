"""python -m tests.host.make_locale (in the host's environment): write locales/en from the nodes' definitions.

Other languages are translated by hand; test_help.py says what they lack.
"""

from __future__ import annotations

import json
from typing import Any

from .harness import ROOT, Host, open_host

LOCALES = ROOT / "locales"


def defined(host: Host) -> dict[str, Any]:
    """The names and texts of all nodes, as nodeDefs.json holds them."""
    schemas = {node_id: host.node(node_id).define_schema() for node_id in host.pack_nodes}
    return {
        node_id: {
            "display_name": schema.display_name,
            "description": schema.description,
            "inputs": {i.id: {"name": i.display_name or i.id, "tooltip": i.tooltip} for i in schema.inputs},
            "outputs": {
                str(slot): {"name": o.display_name or o.id, "tooltip": o.tooltip}
                for slot, o in enumerate(schema.outputs)
            },
        }
        for node_id, schema in schemas.items()
    }


if __name__ == "__main__":
    text = json.dumps(defined(open_host()), indent=1, ensure_ascii=False) + "\n"
    (LOCALES / "en" / "nodeDefs.json").write_text(text, encoding="utf-8")
