//! Settings in the files of a unit that the library does not load with it, because they do not affect sizing.

use pypnm_sizing::parse::syntax::{Item, items};
use pypnm_sizing::root::Root;

/// A setting in the section `[Service]`.
pub(crate) struct Setting {
    pub(crate) key: String,
    pub(crate) value: String,
    pub(crate) line: u32,
}

/// The settings in a unit's file or drop-in, in order. A file that cannot be read has none.
pub(crate) fn service_settings(root: &Root, file: &str) -> Vec<Setting> {
    let bytes = root.bytes(file).unwrap_or_default();
    let mut settings = Vec::new();
    let mut is_service = false;
    for item in items(&bytes) {
        match item {
            Item::Section { name, .. } => is_service = name == "Service",
            Item::Assignment { key, value, line } if is_service => {
                settings.push(Setting { key, value, line });
            }
            _ => {}
        }
    }
    settings
}

/// The last value of a setting in these files.
pub(crate) fn last_value<'a>(
    root: &Root,
    files: impl IntoIterator<Item = &'a String>,
    key: &str,
) -> Option<String> {
    let settings = files.into_iter().flat_map(|file| service_settings(root, file));
    settings.filter(|setting| setting.key == key).last().map(|setting| setting.value)
}
