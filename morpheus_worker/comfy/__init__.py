"""Everything that knows ComfyUI: its messages, its graphs, its process, its sockets."""
