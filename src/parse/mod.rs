//! Pure parsers for the formats of the inputs. They open no files.

pub mod boolean;
pub mod cgroup;
pub mod cpu_list;
pub mod environment;
pub mod mountinfo;
pub mod printable;
pub mod quantity;
pub mod syntax;
pub mod words;
