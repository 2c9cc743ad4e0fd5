//! Makes text of unknown origin safe for a terminal, a log, and a comment in a unit file. Pure.

use std::fmt::{self, Write as _};

/// Displays text with control characters and characters that change the text direction as escape sequences. File names and
/// keys may contain any characters.
#[derive(Clone, Copy, Debug)]
pub struct Printable<'a>(pub &'a str);

/// Whether a character controls the terminal or is not shown as it is: control characters (C0, DEL, C1), line and paragraph
/// separators, and Unicode's format characters that are invisible or change the text direction (UAX #9).
pub fn is_hidden(character: char) -> bool {
    character.is_control()
        || matches!(character,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

impl fmt::Display for Printable<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
            return f.write_str(self.0);
        }
        for character in self.0.chars() {
            match character {
                '\n' => f.write_str("\\n")?,
                '\t' => f.write_str("\\t")?,
                hidden if is_hidden(hidden) && (hidden as u32) < 0x100 => {
                    write!(f, "\\x{:02x}", hidden as u32)?;
                }
                hidden if is_hidden(hidden) => write!(f, "\\u{:04x}", hidden as u32)?,
                shown => f.write_char(shown)?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::Printable;

    #[test]
    fn control_characters_are_escaped() {
        for (text, shown) in [
            ("/etc/pypnm/sizing.conf", "/etc/pypnm/sizing.conf"),
            ("caf\u{e9} \u{4e2d}", "caf\u{e9} \u{4e2d}"),
            ("a\n[Service]\r\tb", "a\\n[Service]\\x0d\\tb"),
            ("\u{1b}]0;x\u{7}\u{9b}", "\\x1b]0;x\\x07\\x9b"),
            ("a\u{202e}b\u{2066}", "a\\u202eb\\u2066"),
        ] {
            assert_eq!(Printable(text).to_string(), shown);
        }
    }
}
