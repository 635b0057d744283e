//! Measures what needs neither a lab nor a hook: prints a JSON list of figures.
//!
//! Each part is a file with one function that returns its figures. `cargo xtask bench` builds this as a
//! release and runs it; with names of parts it measures only those.

use anyhow::Result;
use xtask::figure::Figure;

/// A part: its name, and what measures it.
type Part = (&'static str, fn() -> Result<Vec<Figure>>);

const PARTS: &[Part] = &[];

fn main() -> Result<()> {
    let wanted: Vec<String> = std::env::args().skip(1).collect();
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
