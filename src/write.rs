//! Writes files, and is the only module that does: replaces a file atomically by a rename, or leaves it unchanged; and
//! appends to recordings.
//!
//! A file appears under its name complete and with its mode, regardless of the umask and of when the program is killed.
//! A killed run can leave a file behind whose name begins with a dot and does not end in ".conf", so systemd never
//! reads it as a drop-in.
//!
//! The helper may run as root in a directory that the user of a service can write to. It therefore opens a directory
//! once ([`Directory`]), follows no symbolic link that another user could have created, and from then on uses the
//! descriptor, even if the directory is renamed. It never opens a file for writing that another user could have put
//! there, changes no modes, and replaces nothing but regular files.

mod atomic;
mod directory;
mod error;

pub use atomic::replace;
pub use directory::Directory;
pub use error::WriteError;
