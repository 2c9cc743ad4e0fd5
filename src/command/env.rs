//! The options and assignments of env(1), GNU's and busybox's. Pure.

use crate::parse::name_and_value;

/// A change that env(1) makes to the environment before it executes its command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change<'w> {
    /// All variables are removed (`-i`, `--ignore-environment`, `-`).
    Clear,
    /// A variable is removed (`-u NAME`, `--unset=NAME`).
    Unset(&'w str),
    /// A variable is assigned (`NAME=value`).
    Assign(&'w str, &'w str),
}

/// The next word that env(1) expects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NextWord {
    /// An option, an assignment or the command.
    Option,
    /// An assignment or the command.
    Assignment,
    /// The variable to remove (`-u`).
    NameToUnset,
    /// The value of another option.
    Value,
}

/// The result of reading a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Parsed {
    /// It was an option or an assignment, and this is expected next.
    Then(NextWord),
    /// It is the command.
    Command,
    /// The command is unknown: `-S` splits its value into words.
    Unknown,
}

/// Reads a word, and calls `visit` for the changes that it makes.
pub(super) fn read<'w>(expected: NextWord, word: &'w str, visit: &mut dyn FnMut(Change<'w>)) -> Parsed {
    match expected {
        NextWord::Option if word.starts_with('-') => option(word, visit),
        NextWord::Value => Parsed::Then(NextWord::Option),
        NextWord::NameToUnset => {
            visit(Change::Unset(word));
            Parsed::Then(NextWord::Option)
        }
        NextWord::Option | NextWord::Assignment => match word.split_once('=') {
            Some((name, value)) => {
                visit(Change::Assign(name, value));
                Parsed::Then(NextWord::Assignment)
            }
            None => Parsed::Command,
        },
    }
}

fn option<'w>(word: &'w str, visit: &mut dyn FnMut(Change<'w>)) -> Parsed {
    if let Some(long) = word.strip_prefix("--") {
        return long_option(long, visit);
    }
    if word == "-" {
        visit(Change::Clear);
        return Parsed::Then(NextWord::Assignment);
    }
    for (at, option) in word.char_indices().skip(1) {
        let value = word.get(at + option.len_utf8()..).unwrap_or_default();
        match option {
            'i' => visit(Change::Clear),
            '0' | 'v' => {}
            'u' if value.is_empty() => return Parsed::Then(NextWord::NameToUnset),
            'C' | 'a' if value.is_empty() => return Parsed::Then(NextWord::Value),
            'u' => {
                visit(Change::Unset(value));
                break;
            }
            'C' | 'a' => break,
            _ => return Parsed::Unknown,
        }
    }
    Parsed::Then(NextWord::Option)
}

fn long_option<'w>(option: &'w str, visit: &mut dyn FnMut(Change<'w>)) -> Parsed {
    let (name, value) = name_and_value(option);
    // getopt_long(3) accepts any unambiguous prefix; `shortest` is the shortest one.
    let is = |option: &str, shortest: &str| option.starts_with(name) && name.starts_with(shortest);
    match value {
        None if name.is_empty() => return Parsed::Then(NextWord::Assignment),
        None if is("ignore-environment", "ignore-e") => visit(Change::Clear),
        None if is("unset", "u") => return Parsed::Then(NextWord::NameToUnset),
        None if is("chdir", "c") || is("argv0", "a") => return Parsed::Then(NextWord::Value),
        Some(name) if is("unset", "u") => visit(Change::Unset(name)),
        _ if is("split-string", "s") || is("help", "h") || is("version", "ve") => return Parsed::Unknown,
        _ => {}
    }
    Parsed::Then(NextWord::Option)
}
