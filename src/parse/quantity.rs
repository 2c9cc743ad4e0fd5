//! Parses and formats amounts: sizes in bytes, percentages, CPU time in milli-CPUs, and plain numbers. All arithmetic is on
//! integers; values out of range are rejected and never wrap.

use std::cmp::Ordering;

/// Bytes in a gigabyte, as in the guide.
pub const GB: u64 = 1_000_000_000;
/// Bytes in a gibibyte, PyPNM's and systemd's unit.
pub const GIB: u64 = 1 << 30;

/// A size in bytes, or a fraction of the host's memory, which the caller resolves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Size {
    /// A number of bytes.
    Bytes(u64),
    /// Hundredths of a percent of the host's memory, at most 10,000.
    Permyriad(u32),
}

impl Size {
    /// The size in bytes on a host with `host_bytes` of memory.
    pub fn in_bytes(self, host_bytes: u64) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes,
            Self::Permyriad(share) => {
                u64::try_from(u128::from(host_bytes) * u128::from(share) / 10_000).unwrap_or(u64::MAX)
            }
        }
    }
}

/// Parses a size as systemd does (`parse_size()`, `parse_permyriad()`): a number with an optional fraction and K, M, G, T, P,
/// E (base 1024) or `B`, several such parts in descending order ("1G 512M"), or a percentage. `infinity` is not a size.
pub fn size(text: &str) -> Option<Size> {
    match permyriad(text) {
        Some(share) => (share <= 10_000).then_some(Size::Permyriad(share)),
        None => bytes(text).map(Size::Bytes),
    }
}

/// Parses a size on the command line or in sizing.conf: as [`size`], with an optional `iB` after the letters, and `KB`, `MB`,
/// `GB`, `TB` (base 1000).
pub fn memory_size(text: &str) -> Option<Size> {
    let decimal_units = [("KB", 1000), ("MB", 1_000_000), ("GB", GB), ("TB", 1000 * GB)];
    match decimal_units.iter().find_map(|(unit, bytes)| Some((text.strip_suffix(unit)?, bytes))) {
        Some((number, unit)) => scaled(number.trim_end(), *unit).map(Size::Bytes),
        None => size(text.strip_suffix("iB").unwrap_or(text)),
    }
}

/// Parses a decimal number of `unit`s, rounded down.
pub fn scaled(text: &str, unit: u64) -> Option<u64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    if fraction.is_empty() || !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    decimal::<u64>(whole)?.checked_mul(unit)?.checked_add(fraction_of(fraction, unit))
}

/// `50%`, `12.5%`, `12.55%`, `125‰`, `12.5‰`, `1250‱`, in hundredths of a percent, without an upper bound
/// (`parse_permyriad_unbounded()`).
pub fn permyriad(text: &str) -> Option<u32> {
    let (number, scale) = if let Some(number) = text.strip_suffix('%') {
        (number, 100)
    } else if let Some(number) = text.strip_suffix('‰') {
        (number, 10)
    } else {
        (text.strip_suffix('‱')?, 1)
    };
    let (whole, fraction) =
        number.split_once('.').map_or((number, None), |(whole, fraction)| (whole, Some(fraction)));
    let fraction = match (fraction, scale) {
        (None, _) => 0,
        (Some(digit), 100) if digit.len() == 1 => decimal::<u32>(digit)? * 10,
        (Some(two), 100) if two.len() == 2 => decimal::<u32>(two)?,
        (Some(digit), 10) if digit.len() == 1 => decimal::<u32>(digit)?,
        _ => return None,
    };
    // systemd stores it in this type.
    let most = i32::MAX.unsigned_abs();
    integer(whole)?.checked_mul(scale)?.checked_add(fraction).filter(|sum| *sum <= most)
}

/// Parses a non-negative integer as systemd does (`safe_atou()`): with leading white space and a sign, and the prefixes
/// `0x`, `0` (octal), `0o` and `0b`.
pub fn integer(text: &str) -> Option<u32> {
    let text = text.trim_start_matches([' ', '\t', '\n', '\r']);
    let number = |digits: &str, radix: u32| -> Option<u32> {
        let (negative, digits) = match digits.strip_prefix('-') {
            Some(digits) => (true, digits),
            None => (false, digits.strip_prefix('+').unwrap_or(digits)),
        };
        let valid = !digits.is_empty() && digits.chars().all(|digit| digit.is_digit(radix));
        let number = valid.then(|| u32::from_str_radix(digits, radix).ok()).flatten()?;
        (!negative || number == 0).then_some(number)
    };
    let prefixed = |prefixes: [&str; 2]| prefixes.into_iter().find_map(|prefix| text.strip_prefix(prefix));
    if let Some(digits) = prefixed(["0b", "0B"]) {
        return number(digits, 2);
    }
    if let Some(digits) = prefixed(["0o", "0O"]) {
        return number(digits, 8);
    }
    let sign = text.len() - text.trim_start_matches(['+', '-']).len();
    let (sign, digits) = text.split_at_checked(sign).filter(|(sign, _)| sign.len() <= 1)?;
    let radix = match digits.as_bytes() {
        [b'0', b'x' | b'X', ..] => 16,
        [b'0', _, ..] => 8,
        _ => 10,
    };
    let digits = if radix == 16 { digits.get(2..)? } else { digits };
    if digits.starts_with(['+', '-']) {
        return None;
    }
    number(&format!("{sign}{digits}"), radix)
}

/// Bytes after `parse_size(…, 1024)`.
fn bytes(text: &str) -> Option<u64> {
    const UNITS: [(&str, u32); 8] =
        [("E", 60), ("P", 50), ("T", 40), ("G", 30), ("M", 20), ("K", 10), ("B", 0), ("", 0)];
    let mut rest = text.trim_start();
    let mut total: u64 = 0;
    let mut first_unit = 0;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        rest = rest.strip_prefix('+').unwrap_or(rest);
        let (whole, after) = split_digits(rest);
        let whole: u64 = decimal(whole)?;
        let (fraction, after) = after.strip_prefix('.').map_or(("", after), split_digits);
        let after = after.trim_start();
        // Parts are in descending order of their units: "1G 512M" is a size, "512M 1G" is not.
        let (at, (suffix, shift)) =
            UNITS.iter().enumerate().skip(first_unit).find(|(_, (suffix, _))| after.starts_with(suffix))?;
        let fraction = fraction_of(fraction, 1 << *shift);
        // As in systemd, a value with a fraction must leave room for the next whole one.
        whole.checked_add(u64::from(fraction > 0)).filter(|most| *most <= u64::MAX >> *shift)?;
        total = total.checked_add(whole << *shift)?.checked_add(fraction)?;
        first_unit = at + 1;
        rest = after.get(suffix.len()..)?.trim_start();
    }
    Some(total)
}

/// The digits at the beginning, and what follows them.
fn split_digits(text: &str) -> (&str, &str) {
    text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()))
}

/// `0.fraction × unit`, rounded down. Digits beyond the eighteenth are less than a byte.
fn fraction_of(fraction: &str, unit: u64) -> u64 {
    let mut numerator: u128 = 0;
    let mut denominator: u128 = 1;
    for digit in fraction.bytes().take(18) {
        numerator = numerator * 10 + u128::from(digit - b'0');
        denominator *= 10;
    }
    u64::try_from(numerator * u128::from(unit) / denominator).unwrap_or(0)
}

/// Parses a number of CPUs with at most three decimal places (`2`, `1.5`), in milli-CPUs.
pub fn milli_cpus(text: &str) -> Option<u64> {
    let decimals = text.split_once('.').map_or(0, |(_, fraction)| fraction.len());
    scaled(text, 1000).filter(|_| decimals <= 3)
}

/// Parses ASCII digits, without sign, spaces or separators. `None` on overflow.
pub fn decimal<T: std::str::FromStr>(text: &str) -> Option<T> {
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    text.parse().ok()
}

/// Bytes in the format of `PYPNM_SERVE_TOTAL_MEMORY_GIB`: GiB as Python prints a float rounded to two decimal places (`8.0`,
/// `15.63`). Python rounds half to even, which matters because a whole number of bytes can be exactly half a hundredth.
pub struct Gib(pub u64);

impl std::fmt::Display for Gib {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (exact, gib) = (u128::from(self.0) * 100, u128::from(GIB));
        let rounded_down = exact / gib;
        let hundredths = match (exact % gib).cmp(&(gib / 2)) {
            Ordering::Less => rounded_down,
            Ordering::Equal => rounded_down + rounded_down % 2,
            Ordering::Greater => rounded_down + 1,
        };
        let hundredths = u64::try_from(hundredths).unwrap_or(u64::MAX);
        let (whole, hundredths) = (hundredths / 100, hundredths % 100);
        if hundredths % 10 == 0 {
            write!(f, "{whole}.{}", hundredths / 10)
        } else {
            write!(f, "{whole}.{hundredths:02}")
        }
    }
}

/// Bytes with the unit: `8.0 GiB`.
pub fn in_gib(bytes: u64) -> String {
    format!("{} GiB", Gib(bytes))
}

/// Milli-CPUs in the format `4`, `1.5`.
pub struct Cpus(pub u64);

impl std::fmt::Display for Cpus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0 / 1000)?;
        let milli = self.0 % 1000;
        if milli == 0 {
            return Ok(());
        }
        let text = format!("{milli:03}");
        write!(f, ".{}", text.trim_end_matches('0'))
    }
}

/// Milli-CPUs with the unit: `1 CPU`, `1.5 CPUs`.
pub fn in_cpus(milli: u64) -> String {
    let unit = if milli == 1000 { "CPU" } else { "CPUs" };
    format!("{} {unit}", Cpus(milli))
}

/// Bytes in the guide's GB with one decimal place, rounded down so that a boundary is never shown before it is reached.
pub struct Gb(pub u64);

impl std::fmt::Display for Gb {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{} GB", self.0 / GB, self.0 % GB / (GB / 10))
    }
}

/// Parses a value such as `4016576 kB` in files of /proc and /sys, in bytes.
pub fn kibibytes(value: &str) -> Option<u64> {
    decimal::<u64>(value.strip_suffix("kB")?.trim_end())?.checked_mul(1024)
}

/// The value of a line such as `MemTotal: 4016576 kB` in such a file, in bytes. `None`: missing or invalid.
pub fn kibibytes_of(text: &str, key: &str) -> Option<u64> {
    let mut lines = text.lines().filter_map(|line| line.split_once(':'));
    lines.find(|(name, _)| *name == key).and_then(|(_, value)| kibibytes(value.trim()))
}

#[cfg(test)]
mod tests {
    use super::{
        Cpus, GIB, Gb, Gib, Size, decimal, in_cpus, integer, kibibytes, kibibytes_of, memory_size,
        milli_cpus, permyriad, size,
    };

    #[test]
    fn one_cpu_is_singular() {
        assert_eq!([1000, 1500, 0, 2000].map(in_cpus), ["1 CPU", "1.5 CPUs", "0 CPUs", "2 CPUs"]);
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
}
