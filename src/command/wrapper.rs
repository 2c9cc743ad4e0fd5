//! Programs that execute the command that follows their options. Pure.
//!
//! Only programs that are replaced by the command (execve(2)) and pass on their environment, CPUs and memory are listed.
//! Others are unknown: some remain as the parent of the service (timeout, flock, runuser, tini), some clear the environment
//! (sudo, `setpriv --reset-env`), some restrict memory in ways that are not read here (prlimit), and some interpret a text (a
//! shell, `env -S`). An option that is not listed makes a command unknown as well. [`super::confine`] reads the CPUs and
//! memory nodes of taskset and numactl.

use crate::names::{LAUNCHER_NAME, LAUNCHER_PACKAGE};

/// The options of a program, as getopt_long(3) reads them up to the first operand.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Wrapper {
    /// Short options without a value.
    letters: &'static str,
    /// Short options with a value, attached or in the next word.
    letters_with_value: &'static str,
    /// Long options without a value.
    words: &'static [&'static str],
    /// Long options with a value, after `=` or in the next word.
    words_with_value: &'static [&'static str],
    /// The number of operands before the command.
    pub(super) operands: u8,
}

/// The word that follows one that begins with a dash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum After {
    /// Another option or an operand.
    Option,
    /// The value of this option.
    Value,
    /// The first operand.
    Operand,
    /// The option is not known.
    Unknown,
}

const NONE: Wrapper =
    Wrapper { letters: "", letters_with_value: "", words: &[], words_with_value: &[], operands: 0 };

/// Programs without options: nohup(1), and the launcher of this package.
static PLAIN: Wrapper = NONE;
/// The verb `exec` of pypnm-sizing(1).
pub(super) static EXEC: Wrapper = Wrapper { words_with_value: &["unit", "root"], ..NONE };
/// chrt(1)
static CHRT: Wrapper = Wrapper {
    letters: "bfiorRv",
    words: &["batch", "fifo", "idle", "other", "rr", "reset-on-fork", "verbose"],
    operands: 1,
    ..NONE
};
/// gosu, and su-exec of Alpine Linux; the operand is a user.
static GOSU: Wrapper = Wrapper { operands: 1, ..NONE };
/// ionice(1)
static IONICE: Wrapper = Wrapper {
    letters: "t",
    letters_with_value: "cn",
    words: &["ignore"],
    words_with_value: &["class", "classdata"],
    ..NONE
};
/// nice(1); a number may follow the dash.
static NICE: Wrapper =
    Wrapper { letters: "0123456789", letters_with_value: "n", words_with_value: &["adjustment"], ..NONE };
/// numactl(8)
static NUMACTL: Wrapper = Wrapper {
    letters: "al",
    letters_with_value: "CNimp",
    words: &["all", "localalloc"],
    words_with_value: &["cpunodebind", "interleave", "membind", "physcpubind", "preferred"],
    ..NONE
};
/// setpriv(1)
static SETPRIV: Wrapper = Wrapper {
    words: &["nnp", "no-new-privs", "clear-groups", "keep-groups", "init-groups"],
    words_with_value: &[
        "ambient-caps",
        "apparmor-profile",
        "bounding-set",
        "egid",
        "euid",
        "groups",
        "inh-caps",
        "pdeathsig",
        "regid",
        "reuid",
        "rgid",
        "ruid",
        "securebits",
        "selinux-label",
    ],
    ..NONE
};
/// stdbuf(1)
static STDBUF: Wrapper =
    Wrapper { letters_with_value: "eio", words_with_value: &["error", "input", "output"], ..NONE };
/// systemd-cat(1)
static SYSTEMD_CAT: Wrapper = Wrapper {
    letters_with_value: "pt",
    words_with_value: &["identifier", "level-prefix", "namespace", "priority", "stderr-priority"],
    ..NONE
};

/// taskset(1); the operand is a mask or, with `-c`, a list of CPUs.
static TASKSET: Wrapper = Wrapper { letters: "ac", words: &["all-tasks", "cpu-list"], operands: 1, ..NONE };

/// The program of this name.
pub(super) fn find(name: &str) -> Option<&'static Wrapper> {
    Some(match name {
        "chrt" => &CHRT,
        "gosu" | "su-exec" => &GOSU,
        "ionice" => &IONICE,
        "nice" => &NICE,
        LAUNCHER_NAME | LAUNCHER_PACKAGE | "nohup" => &PLAIN,
        "numactl" => &NUMACTL,
        "setpriv" => &SETPRIV,
        "stdbuf" => &STDBUF,
        "systemd-cat" => &SYSTEMD_CAT,
        "taskset" => &TASKSET,
        _ => return None,
    })
}

impl Wrapper {
    pub(super) fn is_numactl(&self) -> bool {
        std::ptr::eq(self, &raw const NUMACTL)
    }

    pub(super) fn is_taskset(&self) -> bool {
        std::ptr::eq(self, &raw const TASKSET)
    }

    /// The word that follows `word`, which begins with a dash.
    pub(super) fn option(&self, word: &str) -> After {
        if let Some(long) = word.strip_prefix("--") {
            return match long.split_once('=') {
                None if long.is_empty() => After::Operand,
                None if self.words.contains(&long) => After::Option,
                None if self.words_with_value.contains(&long) => After::Value,
                Some((name, _)) if self.words_with_value.contains(&name) => After::Option,
                _ => After::Unknown,
            };
        }
        let mut letters = word.chars().skip(1).peekable();
        while let Some(letter) = letters.next() {
            if self.letters_with_value.contains(letter) {
                return if letters.peek().is_some() { After::Option } else { After::Value };
            }
            if !self.letters.contains(letter) {
                return After::Unknown;
            }
        }
        After::Option
    }
}
