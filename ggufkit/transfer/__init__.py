"""Bytes: from anywhere into files, once, proven, whatever happens. docs/transfer.md tells how to use it.

Writing
    engine      writes any layout from any sources, goes on where it stopped
    journal     what of a file is there, right after a kill and after a power loss
    alone       one writer per file, where locks work
    prover      digests while it is written; `marks` of them on the way; `mend` finds and fetches bad blocks
    consume     out of local files in the space of one copy: `consume_notes`, `holes`, `holders`
Fetching
    sources     a local file, a file on a hub; `likeness` reads headers of many quants
    several     one file from several places: `crew` who works, `stretches` on what, `tally` how well
    http        one ranged stream; `stream` its body, `sockets` that can be cut
Disks
    disk        links, clones, room, durable writes; `copying` within the kernel
    digest      SHA-256 of files, remembered
    filesystem  what a file system can't do, before the first byte
"""
