//! The report of the recording against the kernel's totals of the same run.

use serde_json::Value;
use xtask::arch::Arch;
use xtask::phase::{EARLY_VM, Identity, LAB_VM, Mmu, Run};

use super::series::sum;
use super::{Check, formula, total};

/// Every comparison.
pub(super) fn check(run: &Run, report: &Value) -> Vec<Check> {
    let mut checks = against_kernel(run, report);
    checks.extend(against_daemon(run, report));
    checks.extend(the_vm(run, report));
    checks.extend(quality(report));
    checks
}

/// The report of the run with a working `change_pte`.
pub(super) fn check_control(run: &Run, report: &Value) -> Vec<Check> {
    let outcome = |name: &str| sum_over(report, &format!("/change_pte/outcomes/{name}"));
    let by_daemon = |reason: &str| -> Option<i64> {
        let labels = [("reason", reason)];
        let phases = run.phases.iter();
        phases.map(|p| Some(sum(p.daemon.as_ref()?, "change_pte_effective_total", &labels))).sum()
    };
    let mut checks: Vec<Check> = ["effective_updated", "effective_dropped"]
        .map(|name| Check::numbers(&format!("{name} = daemon's"), by_daemon(name), outcome(name)))
        .into();
    let calls = Some(total(run, "change_pte"));
    checks.push(Check::numbers(
        "change_pte.calls = kernel's calls",
        calls,
        sum_over(report, "/change_pte/calls"),
    ));
    checks.push(Check::numbers("sum of outcomes", calls, sum_of_object(report, "/change_pte/outcomes")));
    checks.push(Check::numbers("no-op", Some(0), sum_over(report, "/change_pte/noop")));
    checks.extend(quality(report));
    checks
}

/// The two recordings of one run, of which one used kprobes only.
///
/// A kernel that preempts kernel code may have missed a few hits of kprobes while a guest and a tracer
/// shared a CPU. The recording must say so, and then no count may differ by more than it says.
pub(super) fn check_ladder(run: &Run, report: &Value, kprobe: &Value) -> Vec<Check> {
    let backends = |report: &Value| -> Vec<String> {
        let hooks = report.pointer("/quality/hooks").and_then(Value::as_array).cloned().unwrap_or_default();
        let mut names: Vec<String> =
            hooks.iter().filter_map(|hook| hook.get("backend")?.as_str().map(str::to_owned)).collect();
        names.sort_unstable();
        names.dedup();
        names
    };
    let mut checks =
        vec![Check::equal("fentry used where it works", &has_fentry(run), &has(&backends(report), "fentry"))];
    checks.push(Check::equal("fentry used on the kprobe step", &false, &has(&backends(kprobe), "fentry")));
    checks.push(Check::equal("kprobe used on the kprobe step", &true, &has(&backends(kprobe), "kprobe")));
    let (expected, got) = (flatten(&counts(report)), flatten(&counts(kprobe)));
    checks.push(Check::equal("number of counts", &expected.len(), &got.len()));
    let missed = kprobe.pointer("/quality/missed_returns").and_then(Value::as_u64).unwrap_or(0);
    for (path, value) in expected {
        let other = got.iter().find(|(p, _)| *p == path).map_or("missing".to_owned(), |(_, v)| v.clone());
        let numbers = value.parse::<u64>().ok().zip(other.parse().ok());
        let is_told = numbers.is_some_and(|(one, two)| one.abs_diff(two) <= missed);
        checks.push(Check::equal(&path, &value, if is_told { &value } else { &other }));
    }
    if missed == 0 {
        checks.extend(quality(kprobe));
    } else {
        let few = sum_over(kprobe, "/page_faults/total").is_some_and(|n| (missed * 100) as i64 <= n);
        let complete = kprobe.pointer("/quality/complete").map_or("missing".to_owned(), plain);
        checks.push(Check::equal("misses told are a few", &true, &few));
        checks.push(Check::equal("quality.complete", &"false", &complete));
    }
    checks
}

/// Whether fentry works there: on arm64 from Linux 6.4 on, and all of the lab's kernels that old have the
/// callback.
fn has_fentry(run: &Run) -> bool {
    run.arch == Arch::Amd64 || !run.has_change_pte()
}

/// Whether a hook had fentry.
pub(super) fn has_fentry_for(report: &Value, name: &str) -> bool {
    let hooks = report.pointer("/quality/hooks").and_then(Value::as_array).into_iter().flatten();
    let text = |hook: &Value, key: &str| hook.get(key).and_then(Value::as_str).map(str::to_owned);
    hooks.into_iter().any(|hook| {
        text(hook, "hook").as_deref() == Some(name) && text(hook, "backend").as_deref() == Some("fentry")
    })
}

fn has(names: &[String], name: &str) -> bool {
    names.iter().any(|n| n == name)
}

/// Whether both VMs are found under their own names while they run: by `mmu-trace vms`, in the daemon's
/// `vm_info`, and by `mmu-trace top`. One of them is older than the daemon.
pub(super) fn check_identity(vms: &str, metrics: &str, top: &str) -> Vec<Check> {
    let listed = |vm: Identity| vms.lines().any(|line| line.contains(vm.name) && line.contains(vm.uuid));
    let exposed = |vm: Identity| {
        let labels = [format!("domain=\"{}\"", vm.name), format!("uuid=\"{}\"", vm.uuid)];
        let mut info = metrics.lines().filter(|line| line.starts_with("mmu_trace_vm_info{"));
        info.any(|line| labels.iter().all(|label| line.contains(label)))
    };
    let mut checks = Vec::new();
    for vm in [LAB_VM, EARLY_VM] {
        let name = vm.name;
        checks.push(Check::equal(&format!("vms lists {name} with its uuid"), &true, &listed(vm)));
        checks.push(Check::equal(&format!("vm_info has {name} with its uuid"), &true, &exposed(vm)));
        let is_line = top.lines().any(|line| line.split(' ').next() == Some(name));
        checks.push(Check::equal(&format!("top lists {name}"), &true, &is_line));
    }
    checks
}

/// The entries of `vms`, and `unattributed`.
fn parts(report: &Value) -> Vec<&Value> {
    let vms = report.get("vms").and_then(Value::as_array).into_iter().flatten();
    vms.chain(report.get("unattributed")).collect()
}

/// The sum of the number at `pointer` over all parts; `None` if one part has no number there.
pub(super) fn sum_over(report: &Value, pointer: &str) -> Option<i64> {
    let parts = parts(report);
    let numbers: Vec<i64> = parts.iter().filter_map(|part| part.pointer(pointer)?.as_i64()).collect();
    (!parts.is_empty() && numbers.len() == parts.len()).then(|| numbers.iter().sum())
}

pub(super) fn ranges(report: &Value) -> Option<i64> {
    let mut total = 0;
    for part in parts(report) {
        for row in part.get("invalidations")?.as_array()? {
            total += row.get("ranges")?.as_i64()?;
        }
    }
    Some(total)
}

fn sum_of_object(report: &Value, pointer: &str) -> Option<i64> {
    let mut total = 0;
    for part in parts(report) {
        for value in part.pointer(pointer)?.as_object()?.values() {
            total += value.as_i64()?;
        }
    }
    Some(total)
}

fn against_kernel(run: &Run, report: &Value) -> Vec<Check> {
    let mut checks = vec![
        Check::numbers("invalidations = kernel's calls", Some(total(run, "range_start")), ranges(report)),
        Check::numbers(
            "page_faults.total = kernel's calls",
            Some(total(run, "page_fault")),
            sum_over(report, "/page_faults/total"),
        ),
        Check::numbers(
            "page_faults.fixed = faults that KVM fixed",
            formula::fixed(run, if run.arch == Arch::Amd64 { &run.kvm_at_end } else { &run.totals }),
            formula::fixed_results(run.arch)
                .iter()
                .map(|result| sum_over(report, &format!("/page_faults/{result}")))
                .sum(),
        ),
    ];
    if run.has_change_pte() {
        checks.extend(change_pte(run, report));
    }
    checks
}

fn change_pte(run: &Run, report: &Value) -> Vec<Check> {
    let calls = total(run, "change_pte");
    let updated = if run.installs() { total(run, "kvm_set_spte") } else { 0 };
    let outcome = |name: &str| sum_over(report, &format!("/change_pte/outcomes/{name}"));
    let mut checks = vec![
        Check::numbers(
            "change_pte.calls = kernel's calls",
            Some(calls),
            sum_over(report, "/change_pte/calls"),
        ),
        Check::numbers("sum of outcomes", Some(calls), sum_of_object(report, "/change_pte/outcomes")),
        Check::numbers("sum of causes", Some(calls), sum_of_object(report, "/change_pte/causes")),
        Check::numbers("effective_updated", Some(updated), outcome("effective_updated")),
        Check::numbers("effective_dropped", Some(0), outcome("effective_dropped")),
        Check::numbers("unbracketed", Some(0), outcome("unbracketed")),
    ];
    let outside = outcome("not_guest_memory").zip(outcome("no_subscriber")).map(|(a, b)| a + b);
    let noop = sum_over(report, "/change_pte/noop");
    if run.handlers_see_guest_memory_only() {
        let in_guest = total(run, "kvm_set_spte");
        checks.push(Check::numbers("calls outside guest memory", Some(calls - in_guest), outside));
        let expected = Some(in_guest - updated);
        checks.push(Check::numbers("change_pte.noop = the other calls in guest memory", expected, noop));
    } else {
        let both = noop.zip(outside).map(|(a, b)| a + b);
        checks.push(Check::numbers("calls inside and outside guest memory", Some(calls), both));
    }
    checks
}

/// The recording against the daemon, which traced the same phases with its own maps.
fn against_daemon(run: &Run, report: &Value) -> Vec<Check> {
    let daemon = |name: &str, labels: &[(&str, &str)]| -> Option<i64> {
        run.phases.iter().map(|phase| Some(sum(phase.daemon.as_ref()?, name, labels))).sum()
    };
    let mut checks = vec![
        Check::numbers(
            "refaults = daemon's",
            daemon("refaults_total", &[]),
            sum_over(report, "/refaults/total"),
        ),
        Check::numbers(
            "avoidable refaults = daemon's",
            daemon("avoidable_refaults_total", &[]),
            sum_over(report, "/refaults/avoidable"),
        ),
    ];
    if !run.has_change_pte() {
        checks.push(Check::numbers(
            "would_be_change_pte = daemon's",
            daemon("would_be_change_pte_total", &[]),
            sum_of_object(report, "/would_be_change_pte"),
        ));
        return checks;
    }
    for reason in ["noop_zapped_by_bracket", "noop_zapped_by_same_op", "noop_not_mapped"] {
        checks.push(Check::numbers(
            &format!("{reason} = daemon's"),
            daemon("change_pte_noop_total", &[("reason", reason)]),
            sum_over(report, &format!("/change_pte/outcomes/{reason}")),
        ));
    }
    checks
}

fn the_vm(run: &Run, report: &Value) -> Vec<Check> {
    let (change_pte, mode, noop_ratio) = if run.installs() {
        ("present", "direct", "0.0")
    } else if run.has_change_pte() {
        ("present", "direct", "1.0")
    } else {
        ("absent", "counterfactual", "missing")
    };
    let text = |value: &Value, pointer: &str| value.pointer(pointer).map_or("missing".to_owned(), plain);
    let vms = report.get("vms").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let by_name = |vm: &&Value| vm.get("name").and_then(Value::as_str) == Some(LAB_VM.name);
    let vm = vms.iter().find(by_name).unwrap_or(&Value::Null);
    let is_active = |vm: &&Value| {
        let figure = |pointer| vm.pointer(pointer).and_then(Value::as_i64).unwrap_or(0);
        figure("/change_pte/calls") + figure("/page_faults/total") > 0
    };
    vec![
        Check::equal("schema", &"mmu-trace-report/1", &text(report, "/schema")),
        Check::equal("host.change_pte", &change_pte, &text(report, "/host/change_pte")),
        Check::equal("host.mode", &mode, &text(report, "/host/mode")),
        Check::equal("VMs with any call or fault", &1, &vms.iter().filter(is_active).count()),
        Check::equal("name", &LAB_VM.name, &text(vm, "/name")),
        Check::equal("uuid", &LAB_VM.uuid, &text(vm, "/uuid")),
        Check::equal("vmm", &"qemu", &text(vm, "/vmm")),
        Check::equal("mmu", &run.mmu.map_or("null", Mmu::name), &text(vm, "/mmu")),
        Check::equal("noop_ratio", &noop_ratio, &text(vm, "/change_pte/noop_ratio")),
    ]
}

pub(super) fn quality(report: &Value) -> Vec<Check> {
    let complete = report.pointer("/quality/complete").map_or("missing".to_owned(), plain);
    let mut checks = vec![Check::equal("quality.complete", &"true", &complete)];
    for gap in ["lost_events", "missed_returns", "map_full", "orphan_brackets", "unbracketed"] {
        let got = report.pointer(&format!("/quality/{gap}")).and_then(Value::as_i64);
        checks.push(Check::numbers(&format!("quality.{gap}"), Some(0), got));
    }
    checks
}

/// A value without the quotes of a string.
fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// The report without what differs between two recordings of one run: times, hooks, the window.
fn counts(report: &Value) -> Value {
    let is_time = |key: &str| key.ends_with("seconds") || key.ends_with("_ns");
    match report {
        Value::Object(object) => object
            .iter()
            .filter(|(key, _)| !is_time(key) && !["window", "quality"].contains(&key.as_str()))
            .map(|(key, value)| (key.clone(), counts(value)))
            .collect(),
        Value::Array(array) => array.iter().map(counts).collect(),
        other => other.clone(),
    }
}

/// Every leaf with its path.
fn flatten(value: &Value) -> Vec<(String, String)> {
    let join = |key: &str, inner: Vec<(String, String)>| -> Vec<(String, String)> {
        inner.into_iter().map(|(path, leaf)| (format!("/{key}{path}"), leaf)).collect()
    };
    match value {
        Value::Object(object) => object.iter().flat_map(|(key, value)| join(key, flatten(value))).collect(),
        Value::Array(array) => array
            .iter()
            .enumerate()
            .flat_map(|(index, value)| join(&index.to_string(), flatten(value)))
            .collect(),
        leaf => vec![(String::new(), plain(leaf))],
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::formula::tests::{merge, run_of};
    use super::*;

    fn part() -> Value {
        json!({ "name": LAB_VM.name, "uuid": LAB_VM.uuid, "vmm": "qemu", "mmu": "tdp",
            "change_pte": { "calls": 15, "noop": 15, "noop_ratio": 1.0, "seconds": 0.5,
                "outcomes": { "effective_updated": 0, "effective_dropped": 0, "noop_zapped_by_bracket": 8,
                    "noop_zapped_by_same_op": 7, "noop_not_mapped": 0, "not_guest_memory": 0,
                    "no_subscriber": 0, "unbracketed": 0 },
                "causes": { "ksm_write_protect": 8, "ksm_replace": 7 } },
            "invalidations": [{ "cause": "ksm_write_protect", "ranges": 8 }, { "cause": "ksm_replace", "ranges": 7 }],
            "page_faults": { "total": 0, "fixed": 0 },
            "refaults": { "total": 0, "avoidable": 0 } })
    }

    fn nothing() -> Value {
        fn zero(value: &mut Value) {
            match value {
                Value::Object(object) => object.values_mut().for_each(zero),
                Value::Array(array) => array.clear(),
                Value::Number(_) => *value = json!(0),
                _ => {}
            }
        }
        let mut nothing = part();
        zero(&mut nothing);
        nothing
    }

    fn report() -> Value {
        json!({ "schema": "mmu-trace-report/1",
            "host": { "change_pte": "present", "mode": "direct" },
            "window": { "seconds": 3.0 },
            "quality": { "complete": true, "lost_events": 0, "missed_returns": 0, "map_full": 0,
                "orphan_brackets": 0, "unbracketed": 0, "hooks": [{ "backend": "fentry" }] },
            "vms": [part()], "unattributed": nothing() })
    }

    fn run() -> Run {
        let mut phase = merge();
        phase.daemon = Some(
            [("noop_zapped_by_bracket", 8.0), ("noop_zapped_by_same_op", 7.0)]
                .into_iter()
                .map(|(reason, n)| (format!("mmu_trace_change_pte_noop_total{{reason=\"{reason}\"}}"), n))
                .collect(),
        );
        let mut run = run_of(phase);
        run.kvm_at_end.insert("kvm:pf_fixed".into(), 0);
        run
    }

    fn failures(checks: Vec<Check>) -> Vec<String> {
        checks.into_iter().filter(|c| !c.passed()).map(|c| c.name).collect()
    }

    #[test]
    fn a_right_report_passes() {
        assert_eq!(failures(check(&run(), &report())), Vec::<String>::new());
    }

    #[test]
    fn one_call_too_few_fails() {
        let mut report = report();
        report["vms"][0]["change_pte"]["calls"] = json!(14);
        assert_eq!(failures(check(&run(), &report)), ["change_pte.calls = kernel's calls"]);
    }

    #[test]
    fn unknown_is_not_zero() {
        let mut report = report();
        report["quality"]["lost_events"] = Value::Null;
        report["vms"][0]["page_faults"]["fixed"] = Value::Null;
        assert_eq!(
            failures(check(&run(), &report)),
            ["page_faults.fixed = faults that KVM fixed", "quality.lost_events"]
        );
    }

    #[test]
    fn an_empty_report_fails_almost_everything() {
        assert!(failures(check(&run(), &json!({}))).len() > 25);
    }

    #[test]
    fn a_vm_without_its_name_fails() {
        let mut vms = String::new();
        let mut metrics = String::new();
        let top = "VM pid\nlab 7\nearly 8\n";
        for Identity { name, uuid } in [LAB_VM, EARLY_VM] {
            vms += &format!("{name} {uuid} 77 qemu\n");
            metrics += &format!("mmu_trace_vm_info{{domain=\"{name}\",uuid=\"{uuid}\"}} 1\n");
        }
        assert_eq!(failures(check_identity(&vms, &metrics, top)), Vec::<String>::new());
        let early = vms.lines().next().unwrap_or_default();
        assert_eq!(failures(check_identity(early, &metrics, top)), ["vms lists early with its uuid"]);
        assert_eq!(failures(check_identity("lab-vmm-77\n", "", "")).len(), 6);
    }

    #[test]
    fn the_ladder_compares_counts_and_not_times() {
        let mut kprobe = report();
        kprobe["quality"]["hooks"] = json!([{ "backend": "kprobe" }]);
        kprobe["window"]["seconds"] = json!(4.0);
        kprobe["vms"][0]["change_pte"]["seconds"] = json!(0.7);
        assert_eq!(failures(check_ladder(&run(), &report(), &kprobe)), Vec::<String>::new());
        kprobe["vms"][0]["refaults"]["total"] = json!(1);
        assert_eq!(failures(check_ladder(&run(), &report(), &kprobe)), ["/vms/0/refaults/total"]);
    }

    #[test]
    fn a_ladder_may_lose_what_it_says_it_missed() {
        let with = |recorded: i64, missed: i64, complete: bool| {
            let (mut fentry, mut kprobe) = (report(), report());
            kprobe["quality"]["hooks"] = json!([{ "backend": "kprobe" }]);
            fentry["vms"][0]["page_faults"]["total"] = json!(1000);
            kprobe["vms"][0]["page_faults"]["total"] = json!(recorded);
            kprobe["quality"]["missed_returns"] = json!(missed);
            kprobe["quality"]["complete"] = json!(complete);
            failures(check_ladder(&run(), &fentry, &kprobe))
        };
        assert_eq!(with(992, 8, false), Vec::<String>::new());
        assert_eq!(with(992, 0, true), ["/vms/0/page_faults/total"]);
        assert_eq!(with(992, 7, false), ["/vms/0/page_faults/total"]);
        assert_eq!(with(992, 8, true), ["quality.complete"]);
        assert_eq!(with(900, 100, false), ["misses told are a few"]);
    }
}
