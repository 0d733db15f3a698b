"""How a model comes to the node: fetched, unpacked, described, locked, tried.

`add` is the whole way. `zoo`, `download` and `archive` bring the files, `large_files` those that
lie elsewhere; `description` reads the bundle's configuration as data and never evaluates it;
`draft` writes from it a `dicom.toml` in which each guess is named (`drafted_inputs`,
`drafted_outputs` and `drafted_labels`, on a `page`), with codes from `concepts`; `trial` runs the
model once in a process of its own. `checking` says before any study comes what in a bundle looks
wrong, and what it needs and this installation lacks (`needs`, `packages`).

Nothing here imports torch, MONAI or a bundle's own code.
"""
