//! Measures what needs neither a lab nor a hook: prints a JSON list of figures.
//!
//! Each part is a file with one function that returns its figures. `cargo xtask bench` builds this as a
//! release and runs it; with names of parts it measures only those.

mod driver;
mod guest;
mod process;
mod reading;
mod recording;
mod scrape;
mod scratch;
mod start;

use anyhow::Result;
use xtask::figure::Figure;

/// A part: its name, and what measures it.
type Part = (&'static str, fn() -> Result<Vec<Figure>>);

const PARTS: &[Part] = &[
    ("driver", driver::measure),
    ("scrape", scrape::measure),
    ("start", start::measure),
    ("recording", recording::measure),
    ("reading", reading::measure),
];

fn main() -> Result<()> {
    let mut args = std::env::args();
    let program = args.next().unwrap_or_default();
    let args: Vec<String> = args.collect();
    match args.as_slice() {
        _ if program == scrape::VMM => scrape::be_vmm(),
        [role] if role == start::START => start::start_once(),
        [role, n_vms] if role == scrape::SERVE => scrape::serve(n_vms),
        wanted => measure(wanted),
    }
}

fn measure(wanted: &[String]) -> Result<()> {
    let mut figures = Vec::new();
    for (name, measure) in PARTS {
        if wanted.is_empty() || wanted.iter().any(|wanted| wanted == name) {
            eprintln!("bench: {name}");
            figures.extend(measure()?);
        }
    }
    println!("{}", serde_json::to_string(&figures)?);
    Ok(())
}
