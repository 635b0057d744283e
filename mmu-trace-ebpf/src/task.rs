//! Stub.
pub const MAX_DEPTH: usize = 4;
