"""What a user does. A command `x-y` is `cli/x_y.py` in front of `verbs/x_y.py`; what it needs stands by it.

Getting
    listing     a repo on all places that have it; `pinned` holds it to a manifest, `against` files to it
    pull        a quant, file by file; `pull_merged` into one file, `pull_to` into a runtime
    adopt       what other programs left is taken over: `leftovers` finds it, `aria2` reads that one's notes,
                `adopting` copies from it
    shard_sources, remote_shards, merged_there, links
                what a merged pull is made of, what is there of it, and its names on other disks
    manifest    frozen sets: make, show, check
    serve       a hub on the LAN
Proving
    verify      against what was published; `causes` names faults, `scan` reads for them, `blocks` places them
    sound       whether a file that is there is what would be written
Making one of many
    merge       shards to one file; `join` raw parts; `consume` in the space of one copy, `consumed` when that
                is over; `room` for what is to be written
    split       shards again; `restore` the published ones, which `shard_memory` has kept the headers of
Looking
    locate      which model a command means; `record` what was pulled, `remote` headers by range
    inspect     what is in a GGUF; `lookup` keys and tensors
Judging
    fit         one model; `several` and `fit_repo` all quants, `fit_machines` several machines, `hosts` one
                model over several; `asked` is the model and its settings, `rigs` what is known of machines
    advice      what to change; `placing` what to put on GPUs, `fit_params` asks llama.cpp the same
    calibrate, disk_rate
                learn from a run, and from the disk
    chart, plot what was found as a picture
    machine     what this machine has
Running
    ollama_import
                into Ollama: `ollama_told` what it is told, `ollama_modelfile` as a file, `ollama_send` to
                another machine, `ollama_moved` again, `ollama_undo` back
    lmstudio_import
                into LM Studio, `lmstudio_undo` back; `receipts` of both
    serve_config
                how llama.cpp is to be started
    bench       five questions; `bench_host` what the result says of the machine
    doctor      what is wrong with this set-up
"""
