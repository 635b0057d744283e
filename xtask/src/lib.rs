//! What the lab's init program writes and the lab's checks read.

pub mod arch;
pub mod confined;
pub mod cost;
pub mod crowd;
pub mod figure;
pub mod guests;
pub mod installed;
pub mod life;
pub mod lone;
pub mod phase;
pub mod refusal;
pub mod sleepers;
