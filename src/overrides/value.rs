//! The values that PyPNM and uvicorn accept. Pure.

use crate::config::MAX_SETTABLE_WORKERS;
use crate::names;
use crate::parse::cpu_list::MAX_CPUS;
use crate::parse::quantity::decimal;

/// Whether PyPNM or uvicorn accepts a value. They do not start with an invalid one.
pub fn is_valid_value(key: &str, value: &str) -> bool {
    let count = |most: u32| decimal::<u32>(value).is_some_and(|number| (1..=most).contains(&number));
    match key {
        names::LIMIT_MAX_REQUESTS => decimal::<u32>(value).is_some(),
        // Only what bash, systemd and PyPNM's `float()` interpret in the same way.
        names::TOTAL_MEMORY_GIB => {
            let (whole, fraction) = value.split_once('.').unwrap_or((value, "0"));
            decimal::<u64>(whole).is_some() && decimal::<u64>(fraction).is_some()
        }
        // Only characters that need no quotes in a unit file.
        names::ENV_FILE => {
            let plain = |b: u8| b.is_ascii_alphanumeric() || b"/._-:@+,".contains(&b);
            value.starts_with('/') && value.bytes().all(plain)
        }
        names::UVICORN_LIMIT_MAX_REQUESTS => count(u32::MAX),
        names::CPU_COUNT => count(MAX_CPUS),
        // As in sizing.conf.
        _ => count(MAX_SETTABLE_WORKERS),
    }
}

#[cfg(test)]
mod tests {
    use super::is_valid_value;
    use crate::names::{
        CPU_COUNT, ENV_FILE, LIMIT_MAX_REQUESTS, TOTAL_MEMORY_GIB, UVICORN_LIMIT_MAX_REQUESTS,
        UVICORN_WORKERS, WORKERS,
    };

    #[test]
    fn valid_values() {
        for (key, valid, invalid) in [
            (WORKERS, &["1", "1024"][..], &["0", "-1", "1025", "2.0", "", " 1"][..]),
            (UVICORN_WORKERS, &["1"], &["0", "x"]),
            (LIMIT_MAX_REQUESTS, &["0", "1", "4294967295"], &["-1", "1.5", "4294967296", ""]),
            (UVICORN_LIMIT_MAX_REQUESTS, &["1", "4294967295"], &["0", "4294967296"]),
            (
                TOTAL_MEMORY_GIB,
                &["0", "15.62", "8", "8192.0"],
                &[".5", "5.", "1e3", "-1", "1.x", "x.1", "", "nan"],
            ),
            (CPU_COUNT, &["1", "8192"], &["0", "8193", "1.5"]),
            (ENV_FILE, &["/run/a-b_c/d@e:1.env", "/a"], &["a", "", "/a b", "a/b", "/a%n", "/a\n"]),
        ] {
            for value in valid {
                assert!(is_valid_value(key, value), "{key}={value}");
            }
            for value in invalid {
                assert!(!is_valid_value(key, value), "{key}={value}");
            }
        }
    }
}
