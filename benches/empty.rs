//! An empty program, for benches/cost: the cost of starting a process.

fn main() {}
