"""Everything that can be known to be wrong with workflows before a GPU runs them.

`inspect` reads files, `tried` binds a template in every variation and judges the graphs, `declaring` looks at its
params, `needing` at the models and node packs; `remark` is what they all say.
"""
