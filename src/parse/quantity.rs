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

/// A number of CPUs with its noun: `1 CPU`, `1.5 CPUs`.
pub fn in_cpus(number: impl std::fmt::Display) -> String {
    let number = number.to_string();
    let noun = if number == "1" { "CPU" } else { "CPUs" };
    format!("{number} {noun}")
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
mod tests;
