//! What the tracer must have done under bad input: exit code, message, and the capture it left.

use mmu_trace::model::Figure;
use xtask::phase::Series;
use xtask::refusal::{Case, CaseKind, Reading, Refusals};

use super::series::{sum, values};
use super::{Check, Group};

/// What a case must have done.
struct Expected {
    exit: i32,
    /// Parts of what it must have said.
    says: &'static [&'static str],
    /// What it may have left, see [`left`].
    leaves: &'static [&'static str],
}

const NONE: &str = "none";
const INTACT: &str = "intact";
const CUT_OFF: &str = "cut off";

fn expected(kind: CaseKind) -> Expected {
    let (exit, says, leaves): (i32, &'static [&'static str], &'static [&'static str]) = match kind {
        CaseKind::BeforeKvm => (0, &["kvm is not loaded: waiting"], &[INTACT]),
        CaseKind::DaemonBeforeKvm => (
            0,
            &["kvm is not loaded: waiting", "serving http", "kvm was loaded: tracing", "stopped"],
            &[NONE],
        ),
        CaseKind::UnknownVm => (2, &["no VM is called \"nosuch\"", "early"], &[NONE, INTACT]),
        CaseKind::MissingDirectory => (1, &["missing/x.mmt", "No such file or directory"], &[NONE]),
        CaseKind::FullDisk => (1, &["no room", "full/x.mmt", "readable"], &[INTACT, CUT_OFF]),
        CaseKind::SecondDaemon => (1, &["another mmu-trace may be running", "--listen"], &[NONE]),
        CaseKind::Interrupt | CaseKind::Terminate => (130, &["wrote "], &[INTACT]),
        CaseKind::Kill => (137, &[], &[CUT_OFF]),
        CaseKind::NoProgram => (2, &["/no/such/program", "No such file or directory"], &[NONE, INTACT]),
        CaseKind::NotRoot => (3, &["sudo"], &[NONE]),
    };
    Expected { exit, says, leaves }
}

/// Every comparison.
pub(super) fn check(tried: &Refusals) -> Vec<Group> {
    let mut groups: Vec<Group> = CaseKind::ALL.iter().map(|kind| check_case(*kind, &tried.cases)).collect();
    groups.push(Group { name: "refused: afterwards".to_owned(), checks: check_rest(tried) });
    groups
}

fn check_case(kind: CaseKind, cases: &[Case]) -> Group {
    let tried: Vec<&Case> = cases.iter().filter(|case| case.kind == kind).collect();
    let mut checks = vec![Check::equal("times tried", &1, &tried.len())];
    for case in tried {
        let expected = expected(kind);
        checks.push(Check::equal("exit code", &expected.exit, &case.exit));
        for text in expected.says {
            let said = if case.stderr.contains(text) { text } else { case.stderr.trim_end() };
            checks.push(Check::equal("says", text, &said));
        }
        let left = left(case.capture.as_ref());
        let allowed = expected.leaves.iter().find(|allowed| **allowed == left);
        let allowed = allowed.map_or_else(|| expected.leaves.join(" or "), |allowed| (*allowed).to_owned());
        checks.push(Check::equal("capture", &allowed, &left));
    }
    Group { name: format!("refused: {}", kind.label()), checks }
}

/// What a case left, in one of the words above, or how the reader took it.
fn left(capture: Option<&Reading>) -> String {
    match capture {
        None => NONE.to_owned(),
        Some(Reading { exit: 0, prints: true, .. }) => INTACT.to_owned(),
        Some(Reading { exit: 4, prints: true, stderr }) if stderr.contains("its end is missing") => {
            CUT_OFF.to_owned()
        }
        Some(Reading { exit, stderr, .. }) => format!("report: exit {exit}, {}", stderr.trim_end()),
    }
}

fn check_rest(tried: &Refusals) -> Vec<Check> {
    let daemon = &tried.waiting_daemon;
    let seen = tried.bpf_during.programs;
    let no_series = Series::new();
    let (before, after) =
        (daemon.before.as_ref().unwrap_or(&no_series), daemon.after.as_ref().unwrap_or(&no_series));
    let attached = |series| sum(series, "probe_attached", &[("hook", "page_fault")]);
    vec![
        Check::equal("record runs on without kvm", &true, &daemon.recorder_waits),
        Check::equal("/metrics answers without kvm", &true, &daemon.before.is_some()),
        Check::equal("page faults unavailable without kvm", &true, &all_unavailable(before)),
        Check::equal("page_fault attached without kvm", &0, &attached(before)),
        Check::equal("page_fault attached with kvm", &1, &attached(after)),
        Check::equal("the first daemon goes on serving", &true, &tried.first_daemon_serves),
        Check::equal("a running daemon's BPF programs are seen", &true, &(seen > tried.bpf_before.programs)),
        Check::equal("BPF programs left", &tried.bpf_before.programs, &tried.bpf_after.programs),
        Check::equal("BPF links left", &tried.bpf_before.links, &tried.bpf_after.links),
        Check::equal("BPF maps left", &tried.bpf_before.maps, &tried.bpf_after.maps),
    ]
}

/// Whether there are groups of figures, and none that is traced is said to be known.
fn all_unavailable(series: &Series) -> bool {
    let sources = values(series, "source_available", "source");
    let known = |figure: &Figure| sum(series, "source_available", &[("source", figure.label())]) > 0;
    !sources.is_empty() && !Figure::ALL.iter().any(known)
}

#[cfg(test)]
mod tests {
    use xtask::refusal::{BpfObjects, WaitingDaemon};

    use super::*;

    fn reading(what: &str) -> Option<Reading> {
        match what {
            NONE => None,
            INTACT => Some(Reading { exit: 0, stderr: String::new(), prints: true }),
            _ => Some(Reading { exit: 4, stderr: "its end is missing, from byte 9 on".into(), prints: true }),
        }
    }

    fn series(available: f64, attached: f64) -> Option<Series> {
        Some(Series::from([
            ("mmu_trace_source_available{source=\"page_faults\",reason=\"\"}".into(), available),
            ("mmu_trace_probe_attached{hook=\"page_fault\",symbol=\"x\"}".into(), attached),
        ]))
    }

    fn passing() -> Refusals {
        let case = |kind: &CaseKind| {
            let Expected { exit, says, leaves } = expected(*kind);
            Case { kind: *kind, exit, seconds: 1.0, stderr: says.join(" "), capture: reading(leaves[0]) }
        };
        Refusals {
            cases: CaseKind::ALL.iter().map(case).collect(),
            waiting_daemon: WaitingDaemon {
                recorder_waits: true,
                before: series(0.0, 0.0),
                after: series(1.0, 1.0),
            },
            first_daemon_serves: true,
            bpf_before: BpfObjects::default(),
            bpf_during: BpfObjects { programs: 20, links: 20, maps: 9 },
            bpf_after: BpfObjects::default(),
        }
    }

    fn failures(tried: &Refusals) -> Vec<String> {
        let checks = check(tried).into_iter().flat_map(|group| group.checks);
        checks.filter(|check| !check.passed()).map(|check| check.name).collect()
    }

    fn change(kind: CaseKind, change: impl Fn(&mut Case)) -> Vec<String> {
        let mut tried = passing();
        tried.cases.iter_mut().filter(|case| case.kind == kind).for_each(change);
        failures(&tried)
    }

    #[test]
    fn what_is_expected_passes() {
        assert_eq!(failures(&passing()), Vec::<String>::new());
    }

    #[test]
    fn a_wrong_exit_code_message_or_capture_fails() {
        assert_eq!(change(CaseKind::NotRoot, |case| case.exit = 1), ["exit code"]);
        assert_eq!(change(CaseKind::NotRoot, |case| case.stderr = "denied".into()), ["says"]);
        assert_eq!(change(CaseKind::NotRoot, |case| case.capture = reading(INTACT)), ["capture"]);
        assert_eq!(change(CaseKind::Interrupt, |case| case.capture = reading(CUT_OFF)), ["capture"]);
        assert_eq!(change(CaseKind::Kill, |case| case.capture = reading(INTACT)), ["capture"]);
    }

    #[test]
    fn a_case_that_was_not_tried_fails() {
        let mut tried = passing();
        tried.cases.pop();
        assert_eq!(failures(&tried), ["times tried"]);
    }

    #[test]
    fn a_capture_without_a_report_fails() {
        let prints_nothing = |case: &mut Case| {
            case.capture = reading(CUT_OFF).map(|reading| Reading { prints: false, ..reading });
        };
        assert_eq!(change(CaseKind::Kill, prints_nothing), ["capture"]);
    }

    #[test]
    fn a_daemon_that_does_not_answer_or_never_traces_fails() {
        let mut tried = passing();
        tried.waiting_daemon.before = None;
        tried.waiting_daemon.after = series(0.0, 0.0);
        assert_eq!(
            failures(&tried),
            [
                "/metrics answers without kvm",
                "page faults unavailable without kvm",
                "page_fault attached with kvm"
            ]
        );
    }

    #[test]
    fn a_program_left_behind_fails() {
        let mut tried = passing();
        tried.bpf_after.programs = 1;
        assert_eq!(failures(&tried), ["BPF programs left"]);
    }
}
