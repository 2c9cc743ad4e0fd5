//! The empty program: what starting costs, before anything is done.

fn main() {}
