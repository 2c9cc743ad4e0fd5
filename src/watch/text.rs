//! Formats amounts and times for people. Pure.

use super::trend::Slope;
use super::{MIB, number, to_u64};

/// The size of a process or of a service: `3.5 MiB`, `235 MiB`, or, from 10 GiB on, `12.1 GiB`.
pub fn size(bytes: u64) -> String {
    match bytes / MIB {
        0..10 if bytes > 0 => format!("{:.1} MiB", number(bytes) / number(MIB)),
        0..10_240 => format!("{} MiB", bytes.div_ceil(MIB)),
        _ => gib(bytes),
    }
}

/// The memory of a machine, or a limit, in GiB.
pub fn gib(bytes: u64) -> String {
    format!("{:.1} GiB", number(bytes) / number(1 << 30))
}

/// `1 worker`, `4 workers`.
pub fn counted(count: u64, singular: &str, plural: &str) -> String {
    format!("{count} {}", if count == 1 { singular } else { plural })
}

/// Bytes per second as MiB per hour: `+1.2 MiB/h`.
pub fn per_hour(per_second: f64) -> String {
    // Not -0.0.
    format!("{:+.1} MiB/h", (per_second * 36_000.0 / number(MIB)).round() / 10.0 + 0.0)
}

/// A slope with its uncertainty: `+1.2 MiB/h (0.9 to 1.5)`.
pub fn interval(slope: &Slope) -> String {
    let mib = |per_second: f64| (per_second * 36_000.0 / number(MIB)).round() / 10.0 + 0.0;
    format!("{} ({:.1} to {:.1})", per_hour(slope.per_second), mib(slope.low), mib(slope.high))
}

/// A duration, suitably rounded: `42 s`, `3 min`, `1 h 30 min`, `4 days`.
pub fn duration(seconds: f64) -> String {
    let (minutes, hours) = (to_u64(seconds / 60.0), to_u64(seconds / 3600.0));
    if seconds < 119.5 {
        format!("{} s", to_u64(seconds))
    } else if minutes < 60 {
        format!("{minutes} min")
    } else if hours < 48 {
        match minutes % 60 {
            0 => format!("{} h", minutes / 60),
            rest => format!("{} h {rest} min", minutes / 60),
        }
    } else {
        match (hours / 24, hours % 24) {
            (days @ ..7, rest @ 1..) => format!("{days} days {rest} h"),
            (days, 0..12) => format!("{days} days"),
            (days, _) => format!("{} days", days + 1),
        }
    }
}

/// `80% of 13 min`.
pub fn part(seconds: f64, of: f64) -> String {
    format!("{} of {}", percent(seconds * 100.0 / of.max(f64::MIN_POSITIVE)), duration(of))
}

/// `80%`, or `less than 1%`.
pub fn percent(percent: f64) -> String {
    if percent > 0.0 && percent < 0.5 { "less than 1%".to_owned() } else { format!("{percent:.0}%") }
}

/// A period of time, in which a common beginning is written only once.
pub fn clock_range(clock: &dyn Fn(f64) -> String, from: f64, until: f64) -> String {
    let (from, until) = (clock(from), clock(until));
    match (from.rsplit_once(' '), until.rsplit_once(' ')) {
        (Some((day, _)), Some((same, time))) if day == same => format!("{from} to {time}"),
        _ => format!("{from} to {until}"),
    }
}

/// Wraps a text into lines of at most `width` characters. A longer word is put on a separate line.
pub fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_ascii_whitespace() {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::{clock_range, duration, part, size, wrapped};

    #[test]
    fn durations() {
        let cases = [
            (0.0, "0 s"),
            (119.0, "119 s"),
            (120.0, "2 min"),
            (3599.9, "1 h"),
            (3600.0, "1 h"),
            (5400.0, "1 h 30 min"),
            (86_399.0, "24 h"),
            (172_800.0, "2 days"),
            (180_000.0, "2 days 2 h"),
            (604_799.0, "7 days"),
            (864_000.0 + 70_000.0, "11 days"),
        ];
        for (seconds, text) in cases {
            assert_eq!(duration(seconds), text, "{seconds}");
        }
    }

    #[test]
    fn amounts() {
        assert_eq!(
            [size(0), size(1 << 20), size(235 << 20), size(12_358 << 20)],
            ["0 MiB", "1.0 MiB", "235 MiB", "12.1 GiB"]
        );
        assert_eq!(part(1.0, 3600.0), "less than 1% of 1 h");
        assert_eq!(part(0.0, 3600.0), "0% of 1 h");
        let clock = |at: f64| format!("Mon {at}:00");
        assert_eq!(clock_range(&clock, 9.0, 10.0), "Mon 9:00 to 10:00");
        assert_eq!(wrapped("a bb ccc", 4), ["a bb", "ccc"]);
        assert_eq!(wrapped("abcdef", 2), ["abcdef"]);
        assert!(wrapped("", 4).is_empty());
    }
}
