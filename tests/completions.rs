//! The shells' completions are generated from the helper's own definition of its command line, here, so that no shipped
//! program carries what generates them. `BLESS=1 cargo test --test completions` writes them anew.
#![allow(clippy::unwrap_used, clippy::expect_used, dead_code, unused_imports)]

#[path = "../src/bin/pypnm-sizing/cli/mod.rs"]
mod cli;

use std::fs;
use std::path::Path;

use clap::CommandFactory as _;
use clap_complete::{Generator, Shell};

/// As the packages install them: bash finds the file by the command's name, zsh and fish by these.
const FILES: [(Shell, &str); 3] =
    [(Shell::Bash, "pypnm-sizing.bash"), (Shell::Zsh, "_pypnm-sizing"), (Shell::Fish, "pypnm-sizing.fish")];

fn generated(shell: Shell) -> String {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut cli::Options::command(), "pypnm-sizing", &mut text);
    let text = String::from_utf8(text).unwrap();
    // clap_complete 4.6.11 (clap-rs/clap#6421) takes the hyphen in a program's name for the border of a subcommand in one of two places, so
    // that bash completes no verb's flags.
    text.replace("pypnm__subcmd__sizing", "pypnm__sizing")
}

#[test]
fn they_are_up_to_date() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("completions");
    let bless = std::env::var_os("BLESS").is_some_and(|value| value == "1");
    for (shell, name) in FILES {
        assert_eq!(shell.file_name("pypnm-sizing"), name);
        let generated = generated(shell);
        let file = directory.join(name);
        if bless {
            fs::create_dir_all(&directory).unwrap();
            fs::write(&file, &generated).unwrap();
        }
        let committed = fs::read_to_string(&file).unwrap_or_default();
        assert!(
            committed == generated,
            "completions/{name} is out of date: BLESS=1 cargo test --test completions"
        );
    }
}
