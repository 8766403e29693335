"""ComfyUI's side of Choreo: with nodes/ the only folder that imports the host's modules."""
