//! The sections of the manual that the command line's definition does not know.

use clap::Command;
use clap_mangen::roff::{Roff, bold, roman};
use mmu_trace::cli::EXIT_CODES;

/// Where the packages put the configuration.
const CONFIG: &str = "/etc/mmu-trace/mmu-trace.toml";

/// The sections that follow the options on the page of `command`; the program's own has no name.
pub(super) fn of(command: &str, definition: &Command) -> Roff {
    let mut roff = Roff::new();
    exit_status(&mut roff);
    files(&mut roff, command);
    environment(&mut roff, command, definition);
    if command == "daemon" {
        signals(&mut roff);
    }
    examples(&mut roff, command);
    see_also(&mut roff, command);
    roff
}

fn heading(roff: &mut Roff, title: &str) {
    roff.control("SH", [title]);
}

/// A term and what it means.
fn entry(roff: &mut Roff, term: &str, text: &str) {
    roff.control("TP", ["4"]).text([bold(term)]).text([roman(text)]);
}

fn exit_status(roff: &mut Roff) {
    heading(roff, "EXIT STATUS");
    for line in EXIT_CODES.lines().skip(1) {
        if let Some((code, meaning)) = line.trim().split_once(' ') {
            entry(roff, code, meaning.trim());
        }
    }
}

fn files(roff: &mut Roff, command: &str) {
    let reads_config = matches!(command, "" | "daemon" | "record" | "replay" | "top" | "doctor");
    if !reads_config {
        return;
    }
    heading(roff, "FILES");
    let text = "Where the packages put the settings. It is read if --config.file names it. Its keys are the long \
                flags of mmu-trace daemon; one whose name has dots may stand in a table.";
    entry(roff, CONFIG, text);
    entry(roff, "/sys/kernel/btf", "The kernel's description of its own types, which tracing needs.");
}

fn environment(roff: &mut Roff, command: &str, definition: &Command) {
    heading(roff, "ENVIRONMENT");
    let text = "Every flag but --print-config has a variable: in upper case, with _ for each dash and dot. A flag \
                wins over its variable, a variable over the configuration file. A switch takes true or false, a flag \
                that may be given several times takes one value.";
    entry(roff, "MMU_TRACE_<FLAG>", text);
    for arg in definition.get_arguments() {
        if let (Some(variable), Some(flag)) = (arg.get_env(), arg.get_long()) {
            entry(roff, &variable.to_string_lossy(), &format!("The same as --{flag}."));
        }
    }
    if command == "daemon" {
        entry(
            roff,
            "NOTIFY_SOCKET, WATCHDOG_USEC",
            "Set by systemd, which then hears when every hook was tried.",
        );
        entry(roff, "JOURNAL_STREAM", "Set by systemd. Its journal is told which lines are errors.");
    }
    if command == "top" {
        entry(roff, "NO_COLOR", "If it is set and not empty, nothing is coloured.");
    }
}

fn signals(roff: &mut Roff) {
    heading(roff, "SIGNALS");
    entry(roff, "SIGINT, SIGTERM", "Detach everything and end with 0.");
    entry(roff, "SIGUSR1", "Let go of KVM: every hook is detached, so that its module can be unloaded.");
    entry(roff, "SIGUSR2", "Trace again after SIGUSR1, at once. All counters start from 0.");
}

fn examples(roff: &mut Roff, command: &str) {
    heading(roff, "EXAMPLES");
    let lines: &[(&str, &str)] = match command {
        "daemon" => &[
            ("mmu-trace daemon", "Trace, and serve metrics on 127.0.0.1:9948."),
            (
                "mmu-trace daemon --config.file=/etc/mmu-trace/mmu-trace.toml --print-config",
                "Show the settings in force, and where each comes from.",
            ),
        ],
        "record" => &[("mmu-trace record -o ksm.mmt --duration 60s", "Record one minute.")],
        "report" => &[
            ("mmu-trace report ksm.mmt", "Show a capture as text."),
            ("mmu-trace report ksm.mmt --format html -o ksm.html", "Show it as a page with plots."),
        ],
        "replay" => {
            &[("mmu-trace replay ksm.mmt --speed 1", "Serve a capture's metrics as they were recorded.")]
        }
        "top" => &[
            ("mmu-trace top", "Show live what each VM pays."),
            ("mmu-trace top --once", "Print the figures of one second as a plain table."),
        ],
        "vms" => &[("mmu-trace vms --format json", "List the VMs for a script.")],
        _ => &[("mmu-trace doctor", "Show what this kernel offers, hook by hook.")],
    };
    for (line, text) in lines {
        entry(roff, line, text);
    }
}

fn see_also(roff: &mut Roff, command: &str) {
    heading(roff, "SEE ALSO");
    let program = mmu_trace::cli::command();
    let others = program.get_subcommands().map(Command::get_name).filter(|name| *name != command);
    let mut pages: Vec<String> = others.map(|name| format!("mmu-trace-{name}(1)")).collect();
    if !command.is_empty() {
        pages.insert(0, "mmu-trace(1)".to_owned());
    }
    roff.text([roman(pages.join(", "))]);
}
