//! The floor: attaches empty programs to the hooks of the daemon, says so, and detaches them once its
//! standard input ends.

use anyhow::Result;
use mmu_trace::bpf::{BackendChoice, Live, Options};

fn main() -> Result<()> {
    let options =
        Options { backend: BackendChoice::Auto, recording: false, vm_histograms: false, max_vms: 16 };
    let live = Live::start_empty(options)?;
    println!("ready");
    std::io::copy(&mut std::io::stdin(), &mut std::io::sink())?;
    drop(live);
    Ok(())
}
