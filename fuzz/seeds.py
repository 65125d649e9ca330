#!/usr/bin/env python3
"""Writes fuzz/corpus-seeds: for each parser a few small files that it takes, from stored records and by hand.

Text where it can be; what is packed is made here, so that nobody has to believe a binary file.
"""
import binascii
import io
import json
import lzma
import shutil
import struct
import subprocess
import tarfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
SEEDS = HERE / "corpus-seeds"
RECORD = ROOT / "harness/tests/golden/records/x86_64/6.12/6.12.118+deb13-cloud-amd64.json"
COSTS = ROOT / "results/bench/x86_64/6.12/6.12.118+deb13-cloud-amd64.json"
CASE = "copy/unchanged[backing=anon,waiter=user-read,msg=read]"


def put(parser, name, content):
    path = SEEDS / parser / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())


def head(data):
    """Kernel, place and program of a stored file, with one setting of each kind."""
    data["kernel"]["config"] = dict(list(data["kernel"]["config"].items())[:1])
    environment = data["environment"]
    environment["uffd_features"] = environment["uffd_features"][:1]
    environment["sysctls"] = dict(list(environment["sysctls"].items())[:1])
    return data


def records():
    record = head(json.loads(RECORD.read_text()))
    probes = list(record["cases"].items())
    record["cases"] = {
        probe: [{"outcome": g["outcome"], "cases": g["cases"][:2]} for g in groups[:2]]
        for probe, groups in probes[:: len(probes) // 4][:3]
    }
    record["cases"]["x/hangs"] = [
        {"outcome": {"end": "hang", "detail": "in copy", "facts": "a=1"}, "cases": ["a=1", "a=2"]},
        {"outcome": {"end": "unsupported", "detail": "no UFFDIO_MOVE"}, "cases": ["a=3"]},
    ]
    record["by"] = "A. Other"
    put("record", "schema-2.json", json.dumps(record, indent=1))
    record["schema"] = 1
    record["cases"] = {"copy/a": {"": "copy=0 field=4096", "b=1": "copy=ENOENT field=-2"}}
    put("record", "schema-1.json", json.dumps(record))
    costs = head(json.loads(COSTS.read_text()))
    with_limit = [o for o in costs["operations"] if "ratio" in o][:2]
    without = [o for o in costs["operations"] if "missing" in o][:1]
    costs["operations"] = with_limit + without
    put("costs", "instructions.json", json.dumps(costs, indent=1))


def outcomes():
    put("outcome", "facts", "fault=read@2 change=0 copy=ENOENT field=-2 waiter=asleep queue=1/0 reg=mm..mm pages=------")
    put("outcome", "done.json", '"copy=0 field=4096"')
    put("outcome", "hang.json", '{"end":"hang","detail":"during copy","facts":"copy=0 field=4096"}')
    put("outcome", "lacks.json", '{"end":"precondition","detail":"no 2 MiB pages"}')
    put("table", "two-kernels", "\n".join([
        "uffd-results data 2", "kernels 2",
        "5.10.218\t5.10.0-30-cloud-amd64\t#1 SMP Debian 5.10.218-1\tx86_64\t5.10.218-1\t-\ttcg\t77360b6d2a8bc7d7",
        "7.3.0~rc7\t7.3-rc7-cloud-amd64\t#1 SMP\tx86_64\t-\t-\ttcg\t77360b6d2a8bc7d7",
        "outcomes 3", "copy=0 waiter=woken", "copy=EAGAIN", "!hang\tin copy\tcopy=0",
        "rows 3", "0*2", "1d 2", "- 0", "probes 1",
        "copy/unchanged\tIt copies.\tQEMU\tCRIU", " \t2", " backing=anon\t0", " backing=shmem\t1",
        "reasons 1", "1\tcopy/unchanged\tcopy\tA commit.",
        "apart 1", "copy/unchanged[backing=anon]\tcopy\t6.13\tEAGAIN|0", "end", ""]))


def words():
    releases = ["6.12.43", "6.12.118+deb13-cloud-amd64", "5.10.0-46-cloud-amd64", "6.8.0-45-generic",
                "5.14.0-503.11.1.el9_5.x86_64", "6.4.0-150600.23.25-default", "6.12.9-200.fc41.x86_64",
                "5.10.198-android13-4-00050-gabc", "7.3.0-rc7", "6.12.43-rc1", "6.6.58-0-lts"]
    for n, release in enumerate(releases):
        put("release", str(n), f"{release}\n#1 SMP Debian 6.1.170-1 (2026-09-01)\naarch64\n"
                               "1:6.12~rc1-1~exp1\n6.12.90-2~bpo12+1\n6.12.90-2\n")
    for n, filt in enumerate(["copy/", "copy/*backing=anon*", "*", "6.12", "7.*", "6.12.118-1", "7.3-rc7",
                              "6.12.43+deb12-cloud-amd64", "c?py*read]"]):
        put("filter", str(n), f"{filt}\n{CASE}")
    for n, query in enumerate(["since(6.12) & suite(copy) | changed", "value(unmap(0..6)) & ! ! constant",
                               'text("a ) b") & (axis(waiter=user-*) | backing(anon))',
                               "held(fails) & only(7.3) & until(6.1.0-47-amd64) & contract(qemu-*)",
                               'Differs-By(backing) & fact(a"b) & unsupported(6.8.0-45-generic) & consumer(QEMU)']):
        put("query", str(n), query)
    for n, steps in enumerate([
            "map anon a0..6; map shmem a2..4; mremap a0..6 to b0..6",
            "open 1; open 2 events; map shmem a0..4; register 1 missing+wp a0..4; user-write a1; copy 1 a1 dontwake; read 1; wake 1 a1; close 1",
            "open 1 wp-async; map anon a0..8; register 1 wp a0..8; writeprotect 1 a0..2; unprotect 1 a0 dontwake; unregister 1 a0..8",
            "open 1; map anon a0..2; map anon b0..2; register 1 missing a0..2; move 1 a0..2 from b0..2 holes; fork a1",
            "map file a0..3; mprotect read a1; mremap-keep a0..2 to c0..2; mremap-resize a0..2 to a0..4; lock c0; guard a3; seal a2; sys-read c1"]):
        put("sequence", str(n), steps)


def frame(n, payload):
    crc = binascii.crc32(payload) ^ binascii.crc32(struct.pack("<Q", n))
    return b"\x01%d %d %08x %s\n" % (n, len(payload), crc, payload)


def guests():
    record = json.loads(RECORD.read_text())
    hello = {"release": "6.12.118", "version": "#1 SMP", "machine": "x86_64", "cases": 1,
             "environment": head(record)["environment"], "suite": record["suite"]}
    messages = [{"hello": hello}, {"start": {"index": 0}},
                {"case": {"index": 0, "outcome": "copy=ENOENT field=-2"}},
                {"case": {"index": 1, "outcome": {"end": "hang", "detail": "in copy", "facts": "a=1"}}},
                {"file": {"name": "mm/u.gcda", "bytes": [0, 1, 255], "more": False}},
                {"fault": {"text": "a\x01b\n"}}, {"end": {"cases": 1}}]
    lines = [json.dumps(m, separators=(",", ":")).encode() for m in messages]
    put("frames", "messages", b"\n".join(lines))
    put("frames", "frames", b"noise\r\n" + b"".join(frame(n, line) for n, line in enumerate(lines)))
    put("frames", "damaged", frame(0, lines[1]) + frame(0, lines[1]) + frame(2, lines[2])[:-7] + frame(3, b"{}"))
    put("frames", "plan", f"accelerator=tcg\nmemory-mib=1024\n\n{CASE}\nwake/unchanged\n")
    put("console", "panic", "\x1b[2J[    1.5][  T31] kernel BUG at mm/userfaultfd.c:42!\r\n"
                            "[    1.6] Oops: 0002 [#1] PREEMPT SMP\n[    1.7] RIP: 0010:0xffffffff81234567\n"
                            "[    1.8] Kernel panic - not syncing: Fatal exception\n")
    put("console", "warnings", "[    1.5] WARNING: CPU: 0 PID: 31 at mm/memory.c:77 x+0x1/0x2\n"
                               "INFO: task init:31 blocked for more than 120 seconds.\nBUG: \u202eat ffff8880deadbeef\n")


def elf(size):
    """An ELF file with the note by which QEMU finds the entry."""
    file = bytearray(b"\x7fELF\x02\x01".ljust(120, b"\0"))
    file[32], file[56], file[64], file[72], file[96] = 64, 1, 4, 128, 64
    file = file.ljust(128, b"\0") + struct.pack("<III", 4, 6, 1) + b"GNU\0abcdef\0\0"
    file += struct.pack("<III", 4, 8, 18) + b"Xen\0" + bytes(8)
    return bytes(file.ljust(size, b"\7"))


def lz4(data):
    """One run of literals."""
    raw, rest = b"\xf0", len(data) - 15
    raw += b"\xff" * (rest // 255) + bytes([rest % 255]) + data
    return struct.pack("<I", len(raw)) + raw


def zstd(data):
    return subprocess.run(["zstd", "-q", "-c"], input=data, capture_output=True, check=True).stdout


def boot_image(payload, banner):
    image = bytearray(3 * 512)
    image[0x1f1] = 2
    image[0x202:0x206] = b"HdrS"
    image[0x206:0x208] = struct.pack("<H", 0x20f)
    image[0x20e:0x210] = struct.pack("<H", 0x300)
    image[0x211] = image[0x236] = 1
    image[0x24c:0x250] = struct.pack("<I", len(payload))
    image[0x500:0x500 + len(banner)] = banner
    image += payload + bytes(-len(payload) % 16)
    image[0x1f4:0x1f8] = struct.pack("<I", (len(image) - 3 * 512) // 16)
    return bytes(image)


def images():
    kernel = elf(400)
    size = struct.pack("<I", len(kernel))
    banner = b"6.12.118+deb13-cloud-amd64 (a@b) #1 SMP Debian 6.12.118-1 (2026-11-20)"
    put("image", "zstd", boot_image(zstd(kernel) + size, banner))
    put("image", "lz4", boot_image(b"\x02\x21\x4c\x18" + lz4(kernel) + size, b"7.3.0-rc2-mine (a@b)"))
    # Behind the mark of their compression, as the target puts it there.
    put("image", "payload-zstd", zstd(kernel)[4:] + size)
    put("image", "payload-lz4", lz4(kernel) + size)


def module(needs):
    return f"\x7fELF\0license=GPL\0depends={needs}\0name=x\0".encode("latin-1")


def sections(names):
    """A module with sections of these names, of which the last one holds them."""
    texts = 64 + 64 * len(names)
    head = b"\x7fELF\x02\x01" + bytes(34) + struct.pack("<Q10xHHH", 64, 64, len(names), len(names) - 1)
    text = b""
    for name in names:
        head += struct.pack("<I20xQ32x", len(text), texts)
        text += name.encode() + b"\0"
    return head + text


def tar(members):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    # Two empty blocks end it; what pads it to a tape's record is left out.
    whole = out.getvalue().rstrip(b"\0")
    return whole + bytes(-len(whole) % 512 + 1024)


def packages():
    def xz(data, check=lzma.CHECK_CRC32):
        return lzma.compress(data, check=check, filters=[{"id": lzma.FILTER_LZMA2, "dict_size": 4096}])

    signed = module("") + b"sig" + bytes(8) + struct.pack(">I", 3) + b"~Module signature appended~\n"
    modules = "./usr/lib/modules/7.3/kernel/"
    put("package", "modules.tar", tar([
        ("./boot/vmlinuz-6.12", b"image"), ("./boot/config-6.12", b"CONFIG_USERFAULTFD=y\n"),
        (modules + "kvm-amd.ko.xz", xz(module("kvm,ccp"))), (modules + "ccp.ko", signed),
        (modules + "kvm.ko.zst", zstd(module("irqbypass"))), (modules + "irqbypass.ko", module("")),
        (modules + "loop.ko", module("loop"))]))
    put("package", "lzma.xz", xz(module("a-b,c") * 30, lzma.CHECK_CRC64))
    put("package", "raw.xz", xz(bytes(range(200)), lzma.CHECK_NONE))
    put("package", "module.zst", zstd(module("a,b") * 9))
    put("package", "signed.ko", signed)
    put("package", "traced.ko", sections([".text", "__mcount_loc", ".names"]))


def rpms():
    def header(texts):
        entries, store = b"", b""
        for tag, text in texts:
            entries += struct.pack(">IIII", tag, 6, len(store), 1)
            store += text.encode() + b"\0"
        return bytes([0x8E, 0xAD, 0xE8, 1]) + bytes(4) + struct.pack(">II", len(texts), len(store)) + entries + store

    def cpio(members):
        out = b""
        for name, mode, data in members + [("TRAILER!!!", 0, b"")]:
            words = [1, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name) + 1, 0]
            out += b"070701" + "".join(f"{word:08x}" for word in words).encode() + name.encode() + b"\0"
            out += bytes(-len(out) % 4) + data
            out += bytes(-len(out) % 4)
        return out

    signatures = header([(1004, "md5")])
    lead = bytes([0xED, 0xAB, 0xEE, 0xDB, 3, 0]) + bytes(90)
    named = header([(1000, "kernel-core"), (1001, "6.12.0"), (1002, "55.el10")])
    put("rpm", "head.rpm", lead + signatures + bytes(-len(signatures) % 8) + named)
    put("rpm", "files.cpio", cpio([
        ("./lib/modules/6.12", 0o40755, b""), ("./lib/modules/6.12/vmlinuz", 0o100644, b"image!"),
        ("../../etc/passwd", 0o100644, b"root"), ("./link", 0o120777, b"/etc")]))


def stanza(name, size):
    return (f"Package: {name}\nVersion: 7.3.4-1~bpo13+1\nDescription: a kernel\n more: words\n"
            f"Filename: pool/main/l/linux/{name}_7.3.4-1_amd64.deb\nSize: {size}\nSHA256: {'a' * 64}\n")


def indexes():
    put("index", "Packages", "\n".join([
        stanza("linux-binary-7.3.4+deb13-cloud-amd64", 13604064), stanza("linux-base-7.3.4+deb13-cloud-amd64", 1025208),
        stanza("linux-modules-7.3.4+deb13-cloud-amd64", 30000000), stanza("linux-image-7.3.4+deb13-amd64", 54000000)]))
    lock = json.loads((ROOT / "kernels.lock").read_text())
    lock["kernels"] = [lock["kernels"][0], lock["kernels"][-1]]
    put("index", "lock", json.dumps(lock, indent=1))
    put("index", "config", "CONFIG_USERFAULTFD=y\n# CONFIG_PREEMPT is not set\nCONFIG_HZ=250\nCONFIG_ZRAM=m\n")
    put("index", "apt", "Debian\tsid\tmirror:/main\nDebian-Security\ttrixie-security\tmirror:/security\n"
                        "yes\tsid\t/x/sid\nE: Unable to locate\nW: unsandboxed\n")


def tomls():
    need = '[{ cases = ["copy/"], except = ["*part=tail*"], facts = { copy = "0|EAGAIN", waiter = "(none)" } }]'
    assumption = 'says = "It fills."\nwhere = ["file.c: function()"]\nbreaks = "hang"\neffect = "It hangs."\n'
    put("toml", "contract", f'title = "T"\nabout = "A"\nsnapshot = "1"\n[[assumption]]\nid = "t.a"\n{assumption}needs = {need}\n'
                            f'[[assumption]]\nid = "t.b"\n{assumption}not-asked = "No."\n'
                            '[[shares]]\nid = "s.a"\nwhere = []\nbreaks = "crash"\neffect = "Dies."\n')
    put("toml", "notes", '[[note]]\nprobe = "copy/*"\nkernels = ["6.12"]\nfacts = ["copy"]\nsays = """\nSo it \\\nis."""\nsource = "mm/a.c"\n')
    put("toml", "costs", '[[note]]\noperation = "copy/"\nkernel = "6.12"\nsays = "So."\nsource = "a commit"\n')
    put("toml", "recipes", '[[recipe]]\nid = "a"\ntitle = "A"\nwhen = "Now."\n[[recipe.step]]\ndoes = "It."\nrests-on = ["t.a"]\n')


if __name__ == "__main__":
    shutil.rmtree(SEEDS, ignore_errors=True)
    for make in [records, outcomes, words, guests, images, packages, rpms, indexes, tomls]:
        make()
