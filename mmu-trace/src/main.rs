//! The `mmu-trace` command.
fn main() {}
