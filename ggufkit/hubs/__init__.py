"""Where files are.

Asking
    hub         what a hub is: repos, files, addresses; `huggingface` and `modelscope` through their clients
    refs        what `owner/name@revision:QUANT` means; `paths` which names are safe
    places      the hubs, mirrors and LAN servers of `--source`; `asking` them, `together`
    endpoints   addresses, and who may see a token; `tokens` whether there is one
    calls       tries and waits; `refusals` what people are told
    surroundings
                certificates and proxies, the same for all
Understanding
    quants      files of a repo as quants; `labels` reads their names
    agreement   what several places say of one file; `compare` where they differ, `pins` what must hold
    manifest    a frozen set of files; `manifests` those that are shipped
"""
