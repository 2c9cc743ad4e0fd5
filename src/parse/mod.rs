//! Pure readers of the small languages that the inputs are written in. They open no file.

pub mod boolean;
pub mod cgroup;
pub mod cpu_list;
pub mod environment;
pub mod mountinfo;
pub mod printable;
pub mod quantity;
pub mod syntax;
pub mod words;
