"""What a model takes and how fast it is, planned from its header. Pure, but for `machine`.

Memory
    memory      all terms of a model; `estimate` what they are, `profiles` what runtimes do by themselves
    caches      what is kept of the context; `cells` how many
    compute     the compute buffer: `graph` what is computed, `layers` and `attention` build it
    repack      weights that the CPU rearranges
    placement   which tensor lies where; `devices`, `schedule` and `offload` what that costs, `hosts` over
                several machines, `splits` how many layers each device gets
    verdict     whether it fits
Speed
    speed       tokens per second of a family of machines; `outlook` of this model on this machine
    rig         a machine that is judged for; `machines` the profiles of machines.toml
The machine
    machine     asks the system; `smbios` and `channels` the memory modules, `cpus`, `gpus`, `bandwidth`
"""
