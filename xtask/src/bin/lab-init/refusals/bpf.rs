//! How many BPF objects the kernel holds, whoever made them.

use anyhow::{Context, Result};
use xtask::refusal::BpfObjects;

use crate::bpf::{self, LINK_GET_NEXT_ID, MAP_GET_NEXT_ID, PROG_GET_NEXT_ID};

/// Counts all of them.
pub(super) fn count() -> Result<BpfObjects> {
    Ok(BpfObjects {
        programs: count_ids(PROG_GET_NEXT_ID).context("cannot count BPF programs")?,
        links: count_ids(LINK_GET_NEXT_ID).context("cannot count BPF links")?,
        maps: count_ids(MAP_GET_NEXT_ID).context("cannot count BPF maps")?,
    })
}

fn count_ids(command: libc::c_int) -> Result<u32> {
    Ok(u32::try_from(bpf::ids(command)?.len())?)
}
