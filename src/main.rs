//! The `kilofs` program.

fn main() {}
