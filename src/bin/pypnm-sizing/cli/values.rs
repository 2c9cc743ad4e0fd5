//! Parsers of option values: CPUs, sizes, times, units and addresses.

use std::net::{IpAddr, Ipv6Addr};
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::{PathBufValueParser, TypedValueParser};
use pypnm_sizing::parse::quantity::{GIB, Gib, Size, memory_size, milli_cpus, scaled};
use pypnm_sizing::units::name::service_name;

/// The name of a service; `.service` is appended as by systemctl(1).
pub(super) fn unit(text: &str) -> Result<String, String> {
    service_name(text).ok_or_else(|| "expected the name of a service, such as pypnm.service".to_owned())
}

/// An address that a service can listen on, or a host name.
pub(super) fn host(text: &str) -> Result<String, String> {
    let expected = || "expected an address or the name of a host, such as 0.0.0.0 or ::".to_owned();
    if let Some(address) = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        return Err(format!("expected the address without brackets: {address}"));
    }
    if let Ok(address) = text.parse::<IpAddr>() {
        return match address {
            IpAddr::V4(v4) if v4.is_broadcast() || v4.is_multicast() => {
                Err("no service can listen on a broadcast or multicast address".to_owned())
            }
            IpAddr::V6(v6) if v6.is_multicast() => {
                Err("no service can listen on a multicast address".to_owned())
            }
            IpAddr::V6(v6) if v6.is_unicast_link_local() => {
                Err(format!("a link-local address needs its interface, such as {text}%eth0"))
            }
            _ => Ok(text.to_owned()),
        };
    }
    if let Some((address, interface)) = text.split_once('%') {
        let is_address = address.parse::<Ipv6Addr>().is_ok_and(|address| address.is_unicast_link_local());
        // As the kernel's dev_valid_name(), minus characters with a special meaning in units.
        let is_interface = (1..16).contains(&interface.len())
            && interface.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
        return if is_address && is_interface { Ok(text.to_owned()) } else { Err(expected()) };
    }
    if let Some((host, port)) = text.rsplit_once(':')
        && !host.contains(':')
        && !port.is_empty()
        && port.bytes().all(|b| b.is_ascii_digit())
    {
        return Err(format!("expected the host alone; the port is --port {port}"));
    }
    if is_host_name(text) { Ok(text.to_owned()) } else { Err(expected()) }
}

/// RFC 1123, section 2.1, plus underscores, which some networks use. A name that ends in a number is a mistyped
/// address.
fn is_host_name(text: &str) -> bool {
    let name = text.strip_suffix('.').unwrap_or(text);
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    let is_number = |label: &str| label.bytes().all(|b| b.is_ascii_digit());
    name.len() <= 253 && name.split('.').all(is_label) && !name.rsplit('.').next().is_some_and(is_number)
}

pub(super) fn port(text: &str) -> Result<u16, String> {
    // Without a sign and spaces, which numbers may have elsewhere.
    let number = if text.bytes().all(|b| b.is_ascii_digit()) { text.parse().ok() } else { None };
    number.filter(|port| *port > 0).ok_or_else(|| "expected a port from 1 to 65535".to_owned())
}

pub(super) fn cpus(text: &str) -> Result<u64, String> {
    milli_cpus(text)
        .filter(|milli| *milli > 0)
        .ok_or_else(|| "expected a number of CPUs above 0, such as 4 or 1.5".to_owned())
}

pub(super) fn memory(text: &str) -> Result<u64, String> {
    let bytes = match memory_size(text) {
        Some(Size::Bytes(bytes)) => Some(bytes),
        _ => None,
    };
    // A number without a unit is in bytes: nobody means less than a megabyte, but the unit is easily forgotten.
    if let Some(few @ 1..1_000_000) = bytes {
        return Err(format!("that is {few} bytes; did you mean {text}G or {text}GB?"));
    }
    bytes
        .filter(|bytes| *bytes > 0)
        .ok_or_else(|| "expected a size such as 16GB (10^9 bytes), 15.6GiB or 8G (base 1024)".to_owned())
}

/// GiB as accepted by PyPNM's own script, which rounds to two decimals starting from the nearest binary fraction. If a
/// value lies between two whole bytes, this returns the one that is rounded to the same text.
pub(super) fn gib(text: &str) -> Result<u64, String> {
    let expected = || "expected GiB above 0, such as 8 or 15.63".to_owned();
    let bytes = scaled(text, GIB).filter(|bytes| *bytes > 0).ok_or_else(expected)?;
    let number: f64 = text.parse().map_err(|_| expected())?;
    let shown = |bytes: u64| Gib(bytes).to_string().parse::<f64>().ok().map(|gib| format!("{gib:.2}"));
    let meant =
        [bytes, bytes.saturating_add(1)].into_iter().find(|b| shown(*b) == Some(format!("{number:.2}")));
    Ok(meant.unwrap_or(bytes))
}

/// A file to write. It is replaced by rename, so it cannot be standard output.
pub(super) fn output_file() -> impl TypedValueParser<Value = PathBuf> {
    PathBufValueParser::new().try_map(|path| {
        if path.as_os_str() == "-" {
            return Err("expected the name of a file; standard output is not supported here");
        }
        Ok(path)
    })
}

/// Longer than anybody waits, and short enough for arithmetic.
pub(crate) const FOR_EVER: Duration = Duration::from_hours(100 * 365 * 24);

pub(super) fn interval(text: &str) -> Result<Duration, String> {
    let is_valid = |time: &Duration| (Duration::from_millis(50)..=Duration::from_hours(1)).contains(time);
    let expected = || "expected a time from 50ms to 1h, such as 2s".to_owned();
    time(text).ok().filter(is_valid).ok_or_else(expected)
}

pub(super) fn evidence(text: &str) -> Result<Duration, String> {
    let expected = || "expected a time of 3s or more, such as 10min".to_owned();
    time(text).ok().filter(|time| *time >= Duration::from_secs(3)).ok_or_else(expected)
}

pub(super) fn time(text: &str) -> Result<Duration, String> {
    let units = [("ms", 0.001), ("min", 60.0), ("h", 3600.0), ("d", 86_400.0), ("s", 1.0), ("m", 60.0)];
    let (number, unit) = units
        .iter()
        .find_map(|(suffix, unit)| Some((text.strip_suffix(suffix)?, *unit)))
        .unwrap_or((text, 1.0));
    let plain = number.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    number
        .trim_end()
        .parse::<f64>()
        .ok()
        .filter(|_| plain)
        .and_then(|number| Duration::try_from_secs_f64(number * unit).ok())
        .filter(|time| !time.is_zero() && *time < FOR_EVER)
        .ok_or_else(|| "expected a time such as 90s, 10min or 24h".to_owned())
}

/// A point in time as seconds since 1970: a date, a date with a time in the local time zone, an age, or `@SECONDS`.
pub(super) fn moment(text: &str) -> Result<f64, String> {
    let expected =
        || "expected a time such as 2026-11-20, \"2026-11-20 08:00\", 7d (ago) or @1764000000".to_owned();
    if let Some(seconds) = text.strip_prefix('@') {
        return seconds.parse().ok().filter(|seconds: &f64| seconds.is_finite()).ok_or_else(expected);
    }
    let now = jiff::Timestamp::now().as_duration().as_secs_f64();
    if let Ok(ago) = time(text)
        && !text.ends_with(|c: char| c.is_ascii_digit())
    {
        return Ok(now - ago.as_secs_f64());
    }
    let local = |civil: jiff::civil::DateTime| {
        let moment = civil.to_zoned(jiff::tz::TimeZone::system()).ok()?;
        Some(moment.timestamp().as_duration().as_secs_f64())
    };
    let zoned = text.parse::<jiff::Timestamp>().ok().map(|moment| moment.as_duration().as_secs_f64());
    zoned.or_else(|| text.parse().ok().and_then(local)).ok_or_else(expected)
}
