"""From a graph that ComfyUI exported to a template with params.

The way of a file: `export` reads it and refuses what is none; `asked` takes the params that its author names, `usual`
proposes them where none is named, by what `tracing` finds upstream of the samplers and `naming` makes of the nodes'
titles; `writing` puts placeholders in and says what the graph does; `remarks` tells what is left to look at.
"""
