//! The `mmu-trace` command.
use mmu_trace::bpf::{BackendChoice, Live, Options};
fn main() {
    let backend = match std::env::args().nth(1).as_deref() {
        Some("kprobe") => BackendChoice::Kprobe,
        Some("fentry") => BackendChoice::Fentry,
        _ => BackendChoice::Auto,
    };
    let t = std::time::Instant::now();
    match Live::start(Options { backend, recording: true, vm_histograms: true, max_vms: 255 }) {
        Ok(mut live) => {
            println!("started in {:?}", t.elapsed());
            for h in live.hooks() {
                println!("{:?} {:?} {} {} {:?}", h.state, h.backend, h.hook, h.symbol, h.reason);
            }
            let mut n = 0;
            for _ in 0..50 {
                std::thread::sleep(std::time::Duration::from_millis(100));
                n += live.drain(|_| ());
            }
            println!("{n} events {:#?}", live.snapshot());
        }
        Err(e) => {
            for r in mmu_trace::bpf::requirements() {
                println!("{r:?}");
            }
            println!("{e:?}");
        }
    }
}
