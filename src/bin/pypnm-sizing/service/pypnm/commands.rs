//! The commands in a unit's `ExecStart=`, as words. Pure.

use pypnm_sizing::command::PREFIXES;
use pypnm_sizing::parse::words::words_of;
use pypnm_sizing::problem::Source;
use pypnm_sizing::units::{Assignment, Unit, specifier};

/// The effective commands.
pub(super) fn commands(unit: &Unit) -> Vec<&Assignment> {
    let mut commands = Vec::new();
    for assignment in unit.assignments_of("ExecStart") {
        if assignment.value.is_empty() {
            commands.clear();
        } else {
            commands.push(assignment);
        }
    }
    commands
}

/// The words of a command up to the first invalid one, without the prefixes of the program.
fn words(command: &Assignment) -> impl Iterator<Item = String> {
    words_of(&command.value).enumerate().map(|(index, word)| {
        let word = if index == 0 { word.trim_start_matches(PREFIXES) } else { &word };
        word.to_owned()
    })
}

/// The program of a command.
pub(super) fn first_word(command: &Assignment) -> Option<String> {
    words(command).next().filter(|word| !word.is_empty())
}

/// The words of all commands, with specifiers expanded if their values are known.
pub(super) fn start_words(unit: &Unit) -> Vec<(String, &Source)> {
    let mut all = Vec::new();
    for command in commands(unit) {
        let name = unit.name_at(command);
        let expanded = |word: &str| Some(specifier::expand(word, name.as_ref()?).ok()?.into_owned());
        all.extend(words(command).map(|word| (expanded(&word).unwrap_or(word), &command.source)));
    }
    all
}
