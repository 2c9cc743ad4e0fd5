//! Parses the files in which pip and venv describe an installed package. Pure.
//!
//! Core metadata and entry points: <https://packaging.python.org/en/latest/specifications/>; `pyvenv.cfg`: PEP 405;
//! `direct_url.json`: PEP 610.

use configparser::ini::{Ini, IniDefault};
use serde_json::Value;

/// Keys and values in the syntax of Python's configparser. The case of names is preserved.
fn ini(text: &str) -> Option<Ini> {
    let mut settings = IniDefault::default();
    settings.delimiters = vec!['='];
    settings.comment_symbols = vec!['#', ';'];
    settings.case_sensitive = true;
    let mut ini = Ini::new_from_defaults(settings);
    ini.read(text.to_owned()).ok()?;
    Some(ini)
}

/// `home` in a `pyvenv.cfg`: the directory of the Python that the environment is based on.
pub(super) fn home(pyvenv: &str) -> Option<String> {
    // The keys are not in a section.
    ini(pyvenv)?.get("default", "home")
}

/// The function that the console script `name` in an `entry_points.txt` calls, such as `pypnm.cli:main`.
pub(super) fn console_script(entry_points: &str, name: &str) -> Option<String> {
    ini(entry_points)?.get("console_scripts", name)
}

/// `Version:` in a `METADATA`, which has the format of a mail (RFC 822) with the package's README as its body.
pub(super) fn version(metadata: &str) -> Option<String> {
    let headers = metadata.lines().take_while(|line| !line.trim_end().is_empty());
    let mut fields = headers.filter_map(|line| line.split_once(':'));
    let (_, version) = fields.find(|(key, _)| key.eq_ignore_ascii_case("Version"))?;
    let version = version.trim();
    (!version.is_empty()).then(|| version.to_owned())
}

/// The first two numbers of a version's release segment (PEP 440), without epoch, pre-release and local version.
pub(super) fn release(version: &str) -> Option<(u32, u32)> {
    let version = version.trim_start_matches(['v', 'V']);
    let version = version.split_once('!').map_or(version, |(_, release)| release);
    let digits = |text: &str| text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (major, rest) = version.split_at(digits(version));
    let minor = rest.strip_prefix('.').map_or("", |rest| &rest[..digits(rest)]);
    let minor = if minor.is_empty() { 0 } else { minor.parse().ok()? };
    Some((major.parse().ok()?, minor))
}

/// The source directory of an editable installation, according to `direct_url.json`.
pub(super) fn editable_source(direct_url: &str) -> Option<String> {
    let value: Value = serde_json::from_str(direct_url).ok()?;
    let is_editable = value.pointer("/dir_info/editable").and_then(Value::as_bool).unwrap_or(false);
    let path = value.get("url")?.as_str()?.strip_prefix("file://")?;
    if is_editable && path.starts_with('/') { decoded(path) } else { None }
}

/// The path of a URL with `%XX` decoded (RFC 3986, section 2.1).
fn decoded(path: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(path.len());
    let mut rest = path.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
        let (high, low) = (digit(rest.next())?, digit(rest.next())?);
        bytes.push(u8::try_from(high * 16 + low).ok()?);
    }
    String::from_utf8(bytes).ok().filter(|path| !path.contains('\0'))
}

/// The shell in the `#!` line of a script. `None`: it is not a shell script, or is a console script that a shell
/// starts.
pub(super) fn shell(script: &str) -> Option<&str> {
    let mut lines = script.lines();
    let line = lines.next()?.strip_prefix("#!")?.trim();
    let is_console_script = lines.next().is_some_and(|line| line.starts_with("'''exec'"));
    let mut words = line.split_ascii_whitespace().filter(|word| !is_console_script && !word.starts_with('-'));
    let first = words.next()?;
    if first.ends_with("/env") { words.next() } else { Some(first) }
}

/// The interpreter of a console script, from its `#!` line. If that line would be too long or contains a space, pip
/// starts the interpreter through a shell, in the second line (distlib's `_build_shebang`); uv does so with single quotes.
/// `None`: another kind of script, or that of a relocatable environment, which looks in its own directory.
pub(super) fn interpreter(script: &str) -> Option<&str> {
    let mut lines = script.lines();
    let path = lines.next()?.strip_prefix("#!")?.trim();
    if path != "/bin/sh" {
        return path.split_ascii_whitespace().next();
    }
    let line = lines.next()?.strip_prefix("'''exec' ")?;
    let path = match line.chars().next()? {
        quote @ ('"' | '\'') => line.get(1..)?.split(quote).next(),
        _ => line.split_ascii_whitespace().next(),
    };
    path.filter(|path| path.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::{console_script, editable_source, home, interpreter, release, version};

    #[test]
    fn release_numbers() {
        for (version, expected) in [
            ("1.6.4.0", Some((1, 6))),
            ("1.10rc1", Some((1, 10))),
            ("1.6+local.5", Some((1, 6))),
            ("1.6.0.dev1", Some((1, 6))),
            ("1!2.0", Some((2, 0))),
            ("v1.6", Some((1, 6))),
            ("2", Some((2, 0))),
            ("2.dev0", Some((2, 0))),
            ("1.5.post1", Some((1, 5))),
            ("junk", None),
            ("", None),
            ("99999999999.1", None),
            ("1.99999999999", None),
        ] {
            assert_eq!(release(version), expected, "{version}");
        }
    }

    #[test]
    fn what_python_3_11_and_pip_23_write() {
        let pyvenv = "home = /usr/bin\ninclude-system-site-packages = false\nversion = 3.11.2\n\
            executable = /usr/bin/python3.11\ncommand = /usr/bin/python3 -m venv /opt/pypnm\n";
        assert_eq!(home(pyvenv).as_deref(), Some("/usr/bin"));
        let entry_points = "[console_scripts]\ndocs-build = mkdocs.__main__:build\npypnm = pypnm.cli:main\n";
        assert_eq!(console_script(entry_points, "pypnm").as_deref(), Some("pypnm.cli:main"));
        assert_eq!(console_script(entry_points, "pypnm-cmts"), None);
        let metadata = "Metadata-Version: 2.4\nName: pypnm-docsis\nVersion: 1.6.4.0\n\nVersion: 9\n";
        assert_eq!(version(metadata).as_deref(), Some("1.6.4.0"));
        assert_eq!(version("Name: x\r\n\r\nVersion: 9\r\n"), None);
        let editable = r#"{"dir_info": {"editable": true}, "url": "file:///home/op/My%20PyPNM"}"#;
        assert_eq!(editable_source(editable).as_deref(), Some("/home/op/My PyPNM"));
    }

    #[test]
    fn other_installations_are_not_editable() {
        for text in [
            "",
            "[]",
            "{",
            r#"{"url": "file:///x"}"#,
            r#"{"dir_info": {}, "url": "file:///x"}"#,
            r#"{"dir_info": {"editable": true}, "url": "https://example.org/x"}"#,
            r#"{"dir_info": {"editable": true}, "url": "file:///x%2"}"#,
            r#"{"dir_info": {"editable": true}, "url": "file:///x%00"}"#,
            r#"{"dir_info": {"editable": true}, "url": "file://host"}"#,
        ] {
            assert_eq!(editable_source(text), None, "{text}");
        }
    }

    #[test]
    fn the_interpreter_of_a_script() {
        assert_eq!(interpreter("#!/opt/pypnm/bin/python3\nimport re\n"), Some("/opt/pypnm/bin/python3"));
        let long = "#!/bin/sh\n'''exec' \"/home/o p/.env/bin/python3\" \"$0\" \"$@\"\n' '''\n";
        assert_eq!(interpreter(long), Some("/home/o p/.env/bin/python3"));
        assert_eq!(
            interpreter("#!/bin/sh\n'''exec' /x/bin/python \"$0\" \"$@\"\n' '''\n"),
            Some("/x/bin/python")
        );
        assert_eq!(
            interpreter("#!/bin/sh\n'''exec' '/home/o p/.venv/bin/python3' \"$0\" \"$@\"\n' '''\n"),
            Some("/home/o p/.venv/bin/python3")
        );
        let relocatable =
            "#!/bin/sh\n'''exec' \"$(dirname -- \"$(realpath -- \"$0\")\")\"/'python3' \"$0\" \"$@\"\n";
        for text in ["", "#!", "\x7fELF", "#!/bin/sh\necho\n", relocatable] {
            assert_eq!(interpreter(text), None, "{text}");
        }
    }
}
