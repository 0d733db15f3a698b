"""What the node keeps: files, and the database that knows them.

`disk` holds what was received, as files. `database`, `tables` (with `access_tables` and `schema`),
`journal` and `arrival` are what the rest stands on. `studies` knows what was received as rows,
`commitments` what peers were promised, `work` what is to be done, and `keeping` how long all of it
must stay. `auditing` holds what a collector is to be told, `alerts` what an administrator is.
`asked` answers questions; `access` knows who may ask them.
"""
