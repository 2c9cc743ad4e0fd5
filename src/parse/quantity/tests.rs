//! Tests of amounts: values of the guide, of systemd and of the kernel, and their bounds.

use super::{
    Cpus, GIB, Gb, Gib, Size, decimal, in_cpus, integer, kibibytes, kibibytes_of, memory_size, milli_cpus,
    permyriad, size,
};

#[test]
fn one_cpu_is_singular() {
    assert_eq!(
        [1000, 1500, 0, 2000].map(|milli| in_cpus(Cpus(milli))),
        ["1 CPU", "1.5 CPUs", "0 CPUs", "2 CPUs"]
    );
}

#[test]
fn sizes_in_files_of_the_kernel() {
    assert_eq!(kibibytes("178493 kB"), Some(178_493 << 10));
    for wrong in ["", "1", "x kB", "99999999999999999999 kB", "18446744073709551615 kB"] {
        assert_eq!(kibibytes(wrong), None, "{wrong:?}");
    }
    let smaps = "55d0-7ffe ---p 00000000 00:00 0   [rollup]\nRss:    9 kB\nPss:   12 kB\nPss_Anon: x\n";
    let found = ["Pss", "Rss", "Pss_Anon", "Swap"].map(|key| kibibytes_of(smaps, key));
    assert_eq!(found, [Some(12 << 10), Some(9 << 10), None, None]);
}

#[test]
fn numbers_have_digits_only() {
    assert_eq!(decimal("0042"), Some(42_u32));
    for text in ["", "+5", "-5", " 5", "5 ", "4294967296"] {
        assert_eq!(decimal::<u32>(text), None, "{text:?}");
    }
}

#[test]
fn sizes_as_systemd_reads_them() {
    let b = |n| Some(Size::Bytes(n));
    for (text, expected) in [
        ("0", b(0)),
        ("1024", b(1024)),
        ("1K", b(1024)),
        ("2G", b(2 * GIB)),
        ("1.5G", b(GIB + GIB / 2)),
        ("4 G", b(4 * GIB)),
        ("1G 512M", b(GIB + (512 << 20))),
        ("100B", b(100)),
        ("15E", b(15 << 60)),
        ("3.", b(3)),
        ("+1K", b(1024)),
        ("50%", Some(Size::Permyriad(5000))),
        ("12.55%", Some(Size::Permyriad(1255))),
        ("100%", Some(Size::Permyriad(10_000))),
        ("125‰", Some(Size::Permyriad(1250))),
        ("12.5‰", Some(Size::Permyriad(125))),
        ("7‱", Some(Size::Permyriad(7))),
    ] {
        assert_eq!(size(text), expected, "{text:?}");
    }
    for text in [
        "",
        " ",
        "G",
        ".5G",
        "-1",
        "+",
        "15.5E",
        "1g",
        "1KB",
        "512M 1G",
        "1G 1G",
        "16E",
        "99999999999999999999",
        "101%",
        "1.555%",
        "infinity",
        "1G x",
        "0x10",
        "12.55‰",
        "1.5‱",
        "%",
        ".5%",
    ] {
        assert_eq!(size(text), None, "{text:?}");
    }
}

#[test]
fn a_share_of_the_largest_memory_does_not_overflow() {
    assert_eq!(Size::Permyriad(10_000).in_bytes(u64::MAX), u64::MAX);
    assert_eq!(Size::Permyriad(2500).in_bytes(8 * GIB), 2 * GIB);
    assert_eq!(permyriad("42949672.96%"), None);
    assert_eq!(permyriad("400%"), Some(40_000));
}

#[test]
fn sizes_in_decimal_units() {
    let b = |n| Some(Size::Bytes(n));
    for (text, expected) in [
        ("64KB", b(64_000)),
        ("1.5 MB", b(1_500_000)),
        ("64GB", b(64_000_000_000)),
        ("2TB", b(2_000_000_000_000)),
        ("2TiB", b(2 << 40)),
        ("1.9999999999999999999999GB", b(1_999_999_999)),
        ("1.000000000000000000000xGB", None),
        ("1..5GB", None),
    ] {
        assert_eq!(memory_size(text), expected, "{text:?}");
    }
}

#[test]
fn integers_as_systemd_reads_them() {
    for (text, number) in [
        ("0", 0),
        ("10", 10),
        ("+7", 7),
        (" 7", 7),
        ("-0", 0),
        ("0x1f", 31),
        ("010", 8),
        ("0b11", 3),
        ("0o17", 15),
        ("4294967295", u32::MAX),
    ] {
        assert_eq!(integer(text), Some(number), "{text:?}");
    }
    for text in ["", "+", "-1", "08", "0x", "1 ", "1e3", "++1", "0x-1", "0b2", "0b++1", "4294967296"] {
        assert_eq!(integer(text), None, "{text:?}");
    }
}

#[test]
fn cpus_in_thousandths() {
    for (text, milli) in [("0", 0), ("2", 2000), ("1.5", 1500), ("0.125", 125), ("1024", 1_024_000)] {
        assert_eq!(milli_cpus(text), Some(milli), "{text:?}");
    }
    for text in ["", ".5", "1.", "1.2345", "-1", "1e3", "1,5"] {
        assert_eq!(milli_cpus(text), None, "{text:?}");
    }
}

#[test]
fn formats() {
    assert_eq!(Gib(8 * GIB).to_string(), "8.0");
    assert_eq!(Gib(16_389_412 * 1024).to_string(), "15.63");
    assert_eq!(Gib(GIB / 2).to_string(), "0.5");
    assert_eq!(Gib(GIB / 100 + GIB).to_string(), "1.01");
    assert_eq!(Gib(0).to_string(), "0.0");
    // Python: round(3.125, 2) is 3.12, round(3.375, 2) is 3.38.
    assert_eq!(Gib(3200 << 20).to_string(), "3.12");
    assert_eq!(Gib(3456 << 20).to_string(), "3.38");
    assert_eq!(Gib((3200 << 20) + 1).to_string(), "3.13");
    assert_eq!(Gib(15 * GIB + GIB / 8 * 5).to_string(), "15.62");
    assert_eq!(Cpus(1500).to_string(), "1.5");
    assert_eq!(Cpus(16_000).to_string(), "16");
    assert_eq!(Cpus(1).to_string(), "0.001");
    assert_eq!(Gb(5_999_999_999).to_string(), "5.9 GB");
    assert_eq!(Gb(6_000_000_000).to_string(), "6.0 GB");
}
