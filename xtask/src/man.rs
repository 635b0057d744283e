//! `cargo xtask man`: manual pages and shell completions, from the command line's definition.
//!
//! What the definition does not know stands in [`sections`].

mod sections;

use std::{fs, path::Path};

use anyhow::{Context, Result};
use clap::Command;
use clap_complete::{Generator, Shell};
use clap_mangen::Man;

use crate::tools;

/// What is completed.
const PROGRAM: &str = "mmu-trace";
/// The shells that completions are written for.
const SHELLS: [Shell; 3] = [Shell::Bash, Shell::Zsh, Shell::Fish];

/// When the texts of the pages were last changed.
const DATE: &str = "2026-11-25";

/// Writes `dist/man` and `dist/completions` below the target directory.
pub(crate) fn run() -> Result<()> {
    let dist = tools::target_dir()?.join("dist");
    let (man, completions) = (dist.join("man"), dist.join("completions"));
    for dir in [&man, &completions] {
        fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
    }
    for shell in SHELLS {
        write(&completions.join(shell.file_name(PROGRAM)), completion(shell).as_bytes())?;
    }
    for (name, page) in pages()? {
        write(&man.join(name), &page)?;
    }
    println!("{} and {}", man.display(), completions.display());
    Ok(())
}

/// The completions for `shell`.
fn completion(shell: Shell) -> String {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut mmu_trace::cli::command(), PROGRAM, &mut script);
    // clap_complete 4.6 takes the dash in the program's name for the one before a command, in one of two
    // places: without this no flag is completed in bash.
    String::from_utf8_lossy(&script).replace("mmu__subcmd__trace", "mmu__trace")
}

fn write(path: &Path, page: &[u8]) -> Result<()> {
    fs::write(path, page).with_context(|| format!("cannot write {}", path.display()))
}

/// Every page with its file name: the program's, and one for each command.
fn pages() -> Result<Vec<(String, Vec<u8>)>> {
    let mut program = mmu_trace::cli::command().disable_help_subcommand(true).after_help(None::<&str>);
    program.build();
    let commands = program.get_subcommands().cloned().map(|command| {
        let name = command.get_name().to_owned();
        page(&name, command)
    });
    let commands: Vec<_> = commands.collect::<Result<_>>()?;
    let mut pages = vec![page("", program)?];
    pages.extend(commands);
    Ok(pages)
}

/// The page of the command `name`, or of the program.
fn page(name: &str, command: Command) -> Result<(String, Vec<u8>)> {
    let mut text = Vec::new();
    let man = Man::new(command.clone())
        .date(DATE)
        .manual("mmu-trace")
        .source(concat!("mmu-trace ", env!("CARGO_PKG_VERSION")));
    man.render_title(&mut text)?;
    man.render_name_section(&mut text)?;
    man.render_synopsis_section(&mut text)?;
    man.render_description_section(&mut text)?;
    man.render_options_section(&mut text)?;
    if name.is_empty() {
        man.render_subcommands_section(&mut text)?;
    }
    sections::of(name, &command).to_writer(&mut text)?;
    let file = if name.is_empty() { "mmu-trace.1".to_owned() } else { format!("mmu-trace-{name}.1") };
    Ok((file, text))
}

#[cfg(test)]
mod tests {
    use std::process::Command as Process;

    use super::*;

    /// What bash offers for the last of `words`.
    fn completed(words: &str) -> String {
        let script = completion(Shell::Bash);
        let ask = format!(
            "{script}\nCOMP_WORDS=({words}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))\n\
             _mmu__trace mmu-trace \"${{COMP_WORDS[-1]}}\" \"${{COMP_WORDS[-2]}}\"\necho \"${{COMPREPLY[@]}}\""
        );
        let output = Process::new("bash").args(["--norc", "-c", &ask]).output().unwrap();
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    #[test]
    fn bash_completes_commands_flags_and_values() {
        assert_eq!(completed("mmu-trace d"), "daemon doctor");
        assert_eq!(completed("mmu-trace daemon --ba"), "--backend");
        assert_eq!(completed("mmu-trace daemon --backend k"), "kprobe");
    }

    #[test]
    fn every_page_has_its_sections() {
        let pages = pages().unwrap();
        assert_eq!(pages.len(), mmu_trace::cli::command().get_subcommands().count() + 1);
        for (name, page) in pages {
            let page = String::from_utf8(page).unwrap();
            for section in
                ["NAME", "SYNOPSIS", "OPTIONS", "EXIT STATUS", "ENVIRONMENT", "EXAMPLES", "SEE ALSO"]
            {
                let n = page.lines().filter(|line| line.replace('"', "") == format!(".SH {section}")).count();
                assert_eq!(n, 1, "{section} in {name}");
            }
        }
    }
}
