//! Shell completions are generated from the helper's command line definition here, so that no shipped program contains
//! the code that generates them. `BLESS=1 cargo test --test completions` updates them.
#![allow(clippy::unwrap_used, clippy::expect_used, dead_code, unused_imports)]

#[path = "../src/bin/pypnm-sizing/cli/mod.rs"]
mod cli;

use std::fs;
use std::path::Path;

use clap::CommandFactory as _;
use clap_complete::{Generator, Shell};

/// The names under which packages install them: bash uses the name of the command, zsh and fish these.
const FILES: [(Shell, &str); 3] =
    [(Shell::Bash, "pypnm-sizing.bash"), (Shell::Zsh, "_pypnm-sizing"), (Shell::Fish, "pypnm-sizing.fish")];

fn generated(shell: Shell) -> String {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut cli::Options::command(), "pypnm-sizing", &mut text);
    let text = String::from_utf8(text).unwrap();
    // clap_complete 4.6.11 (clap-rs/clap#6421) treats the hyphen in a program's name as the separator of a subcommand
    // in one of two places, so that bash would not complete any options.
    text.replace("pypnm__subcmd__sizing", "pypnm__sizing")
}

#[test]
fn the_completions_are_up_to_date() {
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
